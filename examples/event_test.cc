// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <string>
#include <vector>

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::UnorderedElementsAre;

TEST(EventTest, NobodyRunsBeforeTheStart) {
  const Output output = OutputOf("examples/event");
  EXPECT_EQ(output.exit_status, 0);
  const auto start =
      std::find(output.lines.begin(), output.lines.end(), "the start is given");
  ASSERT_NE(start, output.lines.end());
  EXPECT_THAT(
      std::vector<std::string>(output.lines.begin(), start),
      UnorderedElementsAre("runner 1 is at the line", "runner 2 is at the line",
                           "runner 3 is at the line"));
  EXPECT_THAT(
      std::vector<std::string>(start + 1, output.lines.end()),
      UnorderedElementsAre("runner 1 runs", "runner 2 runs", "runner 3 runs"));
}

}  // namespace
}  // namespace cohort_examples
