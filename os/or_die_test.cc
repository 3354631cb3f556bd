// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/or_die.h"

#include <memory>

#include "gtest/gtest.h"

namespace cohort {
namespace {

TEST(OrDieTest, PassesOnWhatIsGood) {
  OrDie(absl::OkStatus());
  EXPECT_EQ(OrDie(absl::StatusOr<int>(7)), 7);
  EXPECT_EQ(
      *OrDie(absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(8))),
      8);
}

TEST(OrDieDeathTest, NamesFileLineAndStatus) {
  EXPECT_DEATH(OrDie(absl::NotFoundError("no such queue")),
               "or_die_test.cc:[0-9]+: NOT_FOUND: no such queue");
  EXPECT_DEATH(OrDie(absl::StatusOr<int>(absl::DataLossError("torn"))),
               "or_die_test.cc:[0-9]+: DATA_LOSS: torn");
}

}  // namespace
}  // namespace cohort
