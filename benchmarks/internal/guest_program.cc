// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/internal/guest_program.h"

#include <cstdio>

#include "cohort/benchmarks/internal/stage.h"

namespace cohort_benchmarks {

int ServeFigures(int argc, char** argv,
                 const std::vector<std::pair<std::string, Player>>& figures) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  for (const auto& [name, play] : figures) {
    if (name != wanted) continue;
    printf("ready\n");
    fflush(stdout);
    for (int c = getchar(); c != EOF; c = getchar()) {
      if (c != '\n') continue;
      const absl::StatusOr<double> figure = play();
      Unpin();
      if (figure.ok()) {
        printf("%.9g\n", *figure);
      } else {
        printf("error: %s\n", figure.status().ToString().c_str());
      }
      fflush(stdout);
    }
    return 0;
  }
  printf("error: no figure \"%s\" here\n", wanted.c_str());
  return 2;
}

}  // namespace cohort_benchmarks
