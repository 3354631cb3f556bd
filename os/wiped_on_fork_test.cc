// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/wiped_on_fork.h"

#include <sys/mman.h>

#include "cohort/testing/child.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::Child;
using ::cohort_testing::Exited;

TEST(WipedOnForkTest, EmptyAtFirstAndInEveryCopy) {
  auto* const number = static_cast<int*>(MapWipedOnFork(sizeof(int)));
  EXPECT_EQ(*number, 0);
  *number = 7;
  const auto what_a_copy_sees = [&] {
    const int seen = *number;
    *number = 8;
    return seen;
  };
  EXPECT_EQ(Child::Fork(what_a_copy_sees).Wait(), Exited(0));
  EXPECT_EQ(*number, 7);
  EXPECT_EQ(munmap(number, sizeof(int)), 0);
}

TEST(WipedOnForkDeathTest, TooMuchIsFatal) {
  EXPECT_DEATH(MapWipedOnFork(~size_t{0} >> 1), "no page that a fork clears");
}

}  // namespace
}  // namespace cohort::os
