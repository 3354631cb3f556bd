// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;
using ::testing::MatchesRegex;

TEST(ConditionTest, EachItemIsConsumedOnceAndTheShelfNeverOverflows) {
  const Output output = OutputOf("examples/condition");
  EXPECT_EQ(output.exit_status, 0);
  EXPECT_THAT(output.lines,
              ElementsAre("consumed 200 items, sum 10100",
                          MatchesRegex("at most [1-4] at a time")));
}

}  // namespace
}  // namespace cohort_examples
