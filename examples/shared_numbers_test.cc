// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;

TEST(SharedNumbersTest, NothingIsLostAndADeathIsNoticed) {
  const Output output = OutputOf("examples/shared_numbers");
  EXPECT_EQ(output.exit_status, 0);
  EXPECT_THAT(output.lines,
              ElementsAre("array: 0 0 0 0 0", "array: 6 6 6 6 6", "workers: 3",
                          "the balance is in doubt", "repaired: 100"));
}

}  // namespace
}  // namespace cohort_examples
