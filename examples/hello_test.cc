// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

TEST(HelloTest, PrintsSquaresAndAGreeting) {
  const Output output = OutputOf("examples/hello");
  EXPECT_EQ(output.exit_status, 0);
  EXPECT_THAT(output.lines,
              ::testing::ElementsAre("1", "4", "9", "hello world"));
}

}  // namespace
}  // namespace cohort_examples
