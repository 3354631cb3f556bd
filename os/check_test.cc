// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/check.h"

#include <csignal>
#include <string>

#include "gtest/gtest.h"

namespace cohort::os {
namespace {

TEST(CheckTest, PassesWhereTrue) { Check(true, "not said"); }

TEST(CheckDeathTest, SaysOneLineAndAborts) {
  EXPECT_EXIT(Check(false, "the ring is too small"),
              testing::KilledBySignal(SIGABRT),
              "^cohort: the ring is too small\n");
}

TEST(CheckDeathTest, CutsAnEndlessMessage) {
  const std::string endless(100'000, 'x');
  const std::string cut = "^cohort: " + std::string(490, 'x');
  EXPECT_DEATH(Fatal(endless.c_str()), cut);
}

}  // namespace
}  // namespace cohort::os
