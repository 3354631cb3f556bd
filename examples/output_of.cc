// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"

#include <cstdio>

namespace cohort_examples {

Output OutputOf(const std::string& command) {
  Output output;
  std::FILE* const program = popen(command.c_str(), "r");
  if (program == nullptr) return output;
  std::string line;
  for (int c; (c = std::fgetc(program)) != EOF;) {
    if (c == '\n') {
      output.lines.push_back(line);
      line.clear();
    } else {
      line += static_cast<char>(c);
    }
  }
  if (!line.empty()) output.lines.push_back(line);
  output.exit_status = pclose(program);
  return output;
}

}  // namespace cohort_examples
