// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/check.h"

#include <unistd.h>

#include <cstddef>
#include <cstdlib>

namespace cohort::os {

void Fatal(const char* message) {
  // One write keeps the line whole when several processes share the stream.
  char line[512];
  size_t size = 0;
  for (const char* c = "cohort: "; *c != '\0'; ++c) line[size++] = *c;
  for (const char* c = message; *c != '\0' && size < 508; ++c) {
    line[size++] = *c;
  }
  line[size++] = '\n';
  // A failed write changes nothing: the abort below still tells.
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line, size);
  std::abort();
}

}  // namespace cohort::os
