// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything an Event does. The event
// is then set or clear, nothing between; who waits comes at the latest with the
// next set(), without slices too, and with slices by itself where the dead one
// had set it.

#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/sync/event.h"
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

struct Arena {
  Event event;
};

class EventCrashTest : public testing::Test {
 protected:
  void Reset() { new (arena_.get()) Arena(); }

  // So that a victim's first wait is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  std::vector<std::function<void()>> Sleepers(int count, bool slices = false) {
    return std::vector<std::function<void()>>(count, [this, slices] {
      if (!slices) os::Slices::TurnOff();
      arena_->event.wait();
    });
  }

  // Set and clear do what they say, and nobody is left behind.
  void CheckUsable() {
    Event& event = arena_->event;
    event.set();
    EXPECT_TRUE(event.is_set());
    event.wait();
    event.clear();
    EXPECT_FALSE(event.is_set());
    EXPECT_FALSE(event.wait_for(std::chrono::microseconds(1)));
    event.set();
    // Of the mark that somebody sleeps too nothing is left.
    EXPECT_EQ(reinterpret_cast<std::atomic<uint32_t>&>(event) >> 31, 0u);
  }

  void Run(KillScenario scenario) {
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    const KillReport report =
        KillAtEveryInstruction(scenario, {.first_kills = 6});
    EXPECT_EQ(report.violations, 0) << report;
  }

  Shared<Arena> arena_;
};

// Without slices: those whom the dead setter owed a wake-up get it from the
// next, which is killed at each of its instructions as well.
TEST_F(EventCrashTest, Set) {
  for (int sleepers = 0; sleepers <= 3; ++sleepers) {
    Run({.name = "event/set, sleepers: " + std::to_string(sleepers),
         .operation = [&] { arena_->event.set(); },
         .sleepers = Sleepers(sleepers),
         .recover = [&] { arena_->event.set(); },
         .check =
             [&](const KillPoint& point) {
               if (point.finished() || point.recovery_finished()) {
                 EXPECT_TRUE(arena_->event.is_set());
               } else {
                 arena_->event.set();
               }
               for (int i = 0; i < sleepers; ++i) {
                 ASSERT_TRUE(point.AwaitSleeper(i)) << "sleeper " << i;
               }
               CheckUsable();
             }});
  }
}

// With slices: whom the dead setter owed a wake-up comes without one.
TEST_F(EventCrashTest, SetAndNobodyElseDoes) {
  Run({.name = "event/set, no other setter",
       .operation = [&] { arena_->event.set(); },
       .sleepers = Sleepers(2, true),
       .check =
           [&](const KillPoint& point) {
             if (!arena_->event.is_set()) {
               EXPECT_FALSE(point.SleeperReturned(0));
               arena_->event.set();
             }
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             CheckUsable();
           }});
}

TEST_F(EventCrashTest, SetWhatIsSet) {
  Run({.name = "event/set, set already",
       .setup =
           [&] {
             Reset();
             arena_->event.set();
           },
       .operation = [&] { arena_->event.set(); },
       .check =
           [&](const KillPoint&) {
             EXPECT_TRUE(arena_->event.is_set());
             CheckUsable();
           }});
}

TEST_F(EventCrashTest, Clear) {
  Run({.name = "event/clear",
       .setup =
           [&] {
             Reset();
             arena_->event.set();
           },
       .operation = [&] { arena_->event.clear(); },
       .recover = [&] { arena_->event.clear(); },
       .check =
           [&](const KillPoint& point) {
             if (point.finished() || point.recovery_finished()) {
               EXPECT_FALSE(arena_->event.is_set());
             }
             CheckUsable();
           }});
}

// Both without a pause: those who sleep return, though it may be clear again
// when they look.
TEST_F(EventCrashTest, SetAndClear) {
  Run({.name = "event/set and clear, sleepers: 2",
       .operation =
           [&] {
             arena_->event.set();
             arena_->event.clear();
           },
       .sleepers = Sleepers(2),
       .recover =
           [&] {
             arena_->event.set();
             arena_->event.clear();
           },
       .check =
           [&](const KillPoint& point) {
             if (!point.finished() && !point.recovery_finished()) {
               arena_->event.set();
             }
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             CheckUsable();
           }});
}

// A waiter is killed on its way to sleep, asleep and woken; two others wait
// beside it.
TEST_F(EventCrashTest, Wait) {
  Run({.name = "event/wait, woken, two beside",
       .prepare = Warm,
       .operation = [&] { arena_->event.wait(); },
       .sleepers = Sleepers(1),
       .while_blocked = [&] { arena_->event.set(); },
       .sleepers_behind = Sleepers(1),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             EXPECT_TRUE(arena_->event.is_set());
             CheckUsable();
           }});
}

TEST_F(EventCrashTest, WaitTimingOut) {
  Run({.name = "event/wait_for, timing out, one beside",
       .prepare = Warm,
       .operation =
           [&] { (void)arena_->event.wait_for(std::chrono::microseconds(1)); },
       .sleepers = Sleepers(1),
       .check =
           [&](const KillPoint& point) {
             EXPECT_FALSE(point.SleeperReturned(0));
             arena_->event.set();
             ASSERT_TRUE(point.AwaitSleeper(0));
             CheckUsable();
           }});
}

}  // namespace
}  // namespace cohort
