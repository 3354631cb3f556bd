// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/gate.h"

#include "cohort/os/deadline.h"
#include "cohort/testing/asleep.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

TEST(GateTest, BlocksUntilItIsOpened) {
  Shared<Gate> gate;
  Child child = Child::Fork([&] {
    gate->Pass();
    return 0;
  });
  ASSERT_TRUE(AwaitAsleepInFutex(child.pid()));
  gate->Open();
  EXPECT_EQ(child.Wait(), Exited(0));
  gate->Pass();
}

TEST(GateTest, LetsGoWhenTimeIsOver) {
  Shared<Gate> gate;
  gate->Pass(cohort::Deadline::Now());
}

}  // namespace
}  // namespace cohort_testing
