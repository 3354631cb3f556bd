// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a Latch does. What is left
// of the count must be that before the dying one's step or that after it, and
// whoever waits must come out when the rest is counted.

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "cohort/os/robust.h"
#include "cohort/sync/latch.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::seconds;

class LatchCrashTest : public testing::Test {
 protected:
  void Reset(int count) { new (latch_.get()) Latch(count); }

  // So that a victim's first wait is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  uint32_t left() const {
    return *reinterpret_cast<std::atomic<uint32_t>*>(latch_.get()) & 0x7fffffff;
  }

  // Between `least` and `most` are left, and these open it.
  void CheckLeft(uint32_t least, uint32_t most) {
    const uint32_t rest = left();
    EXPECT_GE(rest, least);
    EXPECT_LE(rest, most);
    latch_->count_down(rest);
    EXPECT_TRUE(latch_->wait_for(seconds(2)));
  }

  std::vector<std::function<void()>> Sleepers(int count) {
    return std::vector<std::function<void()>>(count, [&] { latch_->wait(); });
  }

  void Run(KillScenario scenario) {
    const KillReport report =
        KillAtEveryInstruction(scenario, {.first_kills = 6});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  Shared<Latch> latch_;
};

TEST_F(LatchCrashTest, CountDown) {
  Run({.name = "latch/count_down, more to come",
       .setup = [&] { Reset(3); },
       .operation = [&] { latch_->count_down(); },
       .check =
           [&](const KillPoint& point) {
             CheckLeft(2, point.finished() ? 2 : 3);
           }});
}

TEST_F(LatchCrashTest, CountDownBeforeSleepers) {
  for (int sleepers = 1; sleepers <= 3; ++sleepers) {
    Run({.name = "latch/count_down, the last, sleepers: " +
                 std::to_string(sleepers),
         .setup = [&] { Reset(1); },
         .operation = [&] { latch_->count_down(); },
         .sleepers = Sleepers(sleepers),
         // A second one that counts in the place of the dead, and dies too.
         .recover =
             [&] {
               if (left() != 0) latch_->count_down();
             },
         .check =
             [&](const KillPoint& point) {
               CheckLeft(0, point.finished() ? 0 : 1);
               for (int i = 0; i < sleepers; ++i) {
                 EXPECT_TRUE(point.AwaitSleeper(i)) << "sleeper " << i;
               }
             }});
  }
}

TEST_F(LatchCrashTest, ArriveAndWait) {
  Run({.name = "latch/arrive_and_wait, woken, one behind",
       .setup = [&] { Reset(3); },
       .prepare = Warm,
       .operation = [&] { latch_->arrive_and_wait(); },
       .while_blocked = [&] { latch_->count_down(2); },
       .sleepers_behind = Sleepers(1),
       .check =
           [&](const KillPoint& point) {
             CheckLeft(0, point.asleep() || point.woken() ? 0 : 1);
             EXPECT_TRUE(point.AwaitSleeper(0));
           }});
}

TEST_F(LatchCrashTest, AWaitThatIsOver) {
  Run({.name = "latch/wait_for, timing out",
       .setup = [&] { Reset(1); },
       .prepare = Warm,
       .operation =
           [&] {
             if (latch_->wait_for(std::chrono::microseconds(1))) raise(SIGABRT);
           },
       .sleepers = Sleepers(1),
       .check =
           [&](const KillPoint& point) {
             CheckLeft(1, 1);
             EXPECT_TRUE(point.AwaitSleeper(0));
           }});
}

}  // namespace
}  // namespace cohort
