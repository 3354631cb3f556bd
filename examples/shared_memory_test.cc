// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/output_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;

TEST(SharedMemoryTest, ProgramsMeetByNameAndLeaveNone) {
  const Output output = OutputOf("examples/shared_memory");
  EXPECT_EQ(output.exit_status, 0);
  EXPECT_THAT(output.lines, ElementsAre("the consumer sees 0 1 2 3 4 5 6 7 8 9",
                                        "afterwards: NOT_FOUND", "players: 3"));
}

}  // namespace
}  // namespace cohort_examples
