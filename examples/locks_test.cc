// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;
using ::testing::MatchesRegex;

TEST(LocksTest, CountIsRightWithALockAndNoMoneyIsLost) {
  const Output output = OutputOf("examples/locks");
  EXPECT_EQ(output.exit_status, 0);
  // How much is lost without a lock is up to the scheduler.
  EXPECT_THAT(output.lines,
              ElementsAre(MatchesRegex("without a lock [0-9]+ of 30"),
                          "with a lock 30 of 30", "the bank has 100, as ever"));
}

}  // namespace
}  // namespace cohort_examples
