// SPDX-License-Identifier: Apache-2.0

#include <string>

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::HasSubstr;

TEST(SemaphoreTest, NoMoreThanTwoSitAndADeadOnesChairIsFree) {
  const Output output = OutputOf("examples/semaphore");
  EXPECT_EQ(output.exit_status, 0);
  ASSERT_EQ(output.lines.size(), 3u * 5 + 2);
  int sitting = 0;
  int came = 0;
  for (const std::string& line : output.lines) {
    if (line.ends_with(" sits")) {
      ++came;
      EXPECT_LE(++sitting, 2) << line;
    }
    if (line.ends_with(" goes")) --sitting;
  }
  EXPECT_EQ(came, 5);
  EXPECT_EQ(sitting, 0);
  EXPECT_THAT(output.lines[15], HasSubstr("SIGKILL"));
  EXPECT_EQ(output.lines[16], "2 chairs are free");
}

}  // namespace
}  // namespace cohort_examples
