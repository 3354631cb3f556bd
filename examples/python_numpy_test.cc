// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;

TEST(PythonNumpyTest, NumpyScalesOurNumbers) {
  const Output output = OutputOf("examples/python_numpy");
  EXPECT_EQ(output.exit_status, 0);
  EXPECT_THAT(output.lines,
              ElementsAre("scaled by NumPy", "the mean is 1251.25",
                          "the last is 2500"));
}

}  // namespace
}  // namespace cohort_examples
