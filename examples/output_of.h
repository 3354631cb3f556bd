// SPDX-License-Identifier: Apache-2.0
//
// What an example prints, for its test.
//
//   const Output output = OutputOf("examples/event");
//   EXPECT_EQ(output.exit_status, 0);
//   EXPECT_THAT(output.lines, Contains("the start is given"));

#ifndef COHORT_EXAMPLES_OUTPUT_OF_H_
#define COHORT_EXAMPLES_OUTPUT_OF_H_

#include <string>
#include <vector>

namespace cohort_examples {

struct Output {
  int exit_status = -1;  // As of pclose(3).
  std::vector<std::string> lines;
};

// Runs `command` until it ends; its standard error goes where ours does.
Output OutputOf(const std::string& command);

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_OUTPUT_OF_H_
