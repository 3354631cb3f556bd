// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a ConditionVariable does.
// In each situation the mutex goes on, a notification was given or not, one
// that was given reaches somebody who lives, and nobody is left behind by
// notify_all().

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"
#include "cohort/sync/condition_variable.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Gate;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Arena {
  Mutex mu;
  ConditionVariable changed;
  std::atomic<int> items;
  std::atomic<bool> closed;
  std::atomic<int> returned;
  std::atomic<uint64_t> rescues;
  Gate gate;

  // The parts of the word: docs/design/condition_variable.md.
  std::atomic<uint64_t>& word() {
    return reinterpret_cast<std::atomic<uint64_t>&>(changed);
  }
  uint64_t credits() { return word() & 0x7ff; }
  uint64_t epoch() { return word() >> 12 & 0xffffff; }
  uint64_t counted() { return (word() >> 42 & 0x7ff) + (word() >> 53); }
};

constexpr uint64_t kSleepers = 1 << 11;

uint64_t WordOf(uint64_t young, uint64_t old, uint64_t epoch,
                uint64_t credits) {
  return young << 53 | old << 42 | epoch << 12 | credits;
}

class ConditionVariableCrashTest : public testing::Test {
 protected:
  void Reset() { new (arena_.get()) Arena(); }

  // So that a victim's first lock is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  void WaitOnce() {
    MutexLock lock(arena_->mu);
    arena_->changed.wait(lock);
    ++arena_->returned;
  }

  // Waits for an item and takes it, or for the end.
  void Consume() {
    Arena& arena = *arena_;
    MutexLock lock(arena.mu);
    while (arena.items == 0 && !arena.closed) {
      arena.changed.wait(lock);
      if (lock.poisoned()) arena.mu.clear_poison();
    }
    if (arena.items > 0) arena.items = arena.items - 1;
    arena.rescues += ConditionVariable::Rescues();
  }

  void Produce() {
    {
      MutexLock lock(arena_->mu);
      arena_->items = 1;
    }
    arena_->changed.notify_one();
  }

  std::vector<std::function<void()>> Waiters(int count) {
    return std::vector<std::function<void()>>(count, [&] { WaitOnce(); });
  }
  std::vector<std::function<void()>> Consumers(int count) {
    return std::vector<std::function<void()>>(count, [&] { Consume(); });
  }

  void CheckUsable() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Arena& arena = *arena_;
    ASSERT_TRUE(arena.mu.try_lock_for(seconds(2))) << "the mutex is lost";
    arena.mu.clear_poison();
    EXPECT_FALSE(
        arena.changed.wait_for(arena.mu, std::chrono::microseconds(1)));
    arena.mu.unlock();
  }

  // Nor is anybody counted who is not there.
  void CheckAllGone() {
    CheckUsable();
    arena_->changed.notify_all();
    EXPECT_EQ(arena_->counted(), 0u);
    EXPECT_EQ(arena_->credits(), 0u);
  }

  // Whether any notification was given since Reset().
  bool Given() {
    return arena_->returned > 0 || arena_->credits() > 0 || arena_->epoch() > 0;
  }

  void AwaitReturned(int count) {
    const Deadline lost = Deadline::After(seconds(2));
    while (arena_->returned < count && !lost.Passed()) sched_yield();
    EXPECT_GE(arena_->returned, count) << "a notification is lost";
  }

  // One that was given has reached as many as it was for.
  void CheckWaiters(const KillPoint& point, int waiters, int count) {
    if (Given()) AwaitReturned(count);
    arena_->changed.notify_all();
    for (int i = 0; i < waiters; ++i) {
      ASSERT_TRUE(point.AwaitSleeper(i)) << "waiter " << i;
    }
    EXPECT_EQ(arena_->returned, waiters);
    CheckAllGone();
  }

  // What was produced is taken, without a second notification, and the end is
  // heard by all.
  void CheckConsumers(const KillPoint& point, int consumers) {
    Arena& arena = *arena_;
    const Deadline lost = Deadline::After(seconds(2));
    while (arena.items > 0 && !lost.Passed()) sched_yield();
    EXPECT_EQ(arena.items, 0) << "a notification is lost";
    arena.closed = true;
    {
      // So that who has just looked waits by now.
      MutexLock lock(arena.mu);
    }
    arena.changed.notify_all();
    for (int i = 0; i < consumers; ++i) {
      ASSERT_TRUE(point.AwaitSleeper(i)) << "consumer " << i;
    }
    CheckAllGone();
  }

  void Run(KillScenario scenario, KillOptions options = {.first_kills = 3}) {
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  Shared<Arena> arena_;
};

TEST_F(ConditionVariableCrashTest, NotifyOne) {
  for (int waiters = 0; waiters <= 3; ++waiters) {
    Run({.name = "condition_variable/notify_one, waiters: " +
                 std::to_string(waiters),
         .operation = [&] { arena_->changed.notify_one(); },
         .sleepers = Waiters(waiters),
         .recover = [&] { arena_->changed.notify_one(); },
         .check =
             [&](const KillPoint& point) {
               if (waiters > 0 &&
                   (point.finished() || point.recovery_finished())) {
                 EXPECT_TRUE(Given());
               }
               CheckWaiters(point, waiters, waiters > 0 ? 1 : 0);
             }},
        {.first_kills = 3});
  }
}

TEST_F(ConditionVariableCrashTest, NotifyOneWithTheMutex) {
  for (int waiters = 1; waiters <= 3; ++waiters) {
    Run({.name = "condition_variable/notify_one with the mutex, waiters: " +
                 std::to_string(waiters),
         .prepare = Warm,
         .operation =
             [&] {
               MutexLock lock(arena_->mu);
               arena_->changed.notify_one();
             },
         .sleepers = Waiters(waiters),
         .check =
             [&](const KillPoint& point) { CheckWaiters(point, waiters, 1); }});
  }
}

TEST_F(ConditionVariableCrashTest, NotifyTwo) {
  for (int waiters = 2; waiters <= 3; ++waiters) {
    Run({.name = "condition_variable/notify(2), waiters: " +
                 std::to_string(waiters),
         .operation = [&] { arena_->changed.notify(2); },
         .sleepers = Waiters(waiters),
         .check =
             [&](const KillPoint& point) { CheckWaiters(point, waiters, 2); }});
  }
}

// Of those who wait some are old and some are young, and both are notified.
TEST_F(ConditionVariableCrashTest, NotifyOldAndYoung) {
  for (int count = 1; count <= 4; ++count) {
    std::vector<std::function<void()>> sleepers = Waiters(2);
    sleepers.insert(sleepers.begin(), [&] {
      WaitOnce();
      arena_->gate.Pass();
    });
    sleepers.push_back([&] {
      arena_->changed.notify_one();  // The first one, who has slept longest.
      WaitOnce();
    });
    sleepers.push_back([&] { WaitOnce(); });
    Run({.name = "condition_variable/notify(" + std::to_string(count) +
                 "), 2 old, 2 young",
         .operation = [&] { arena_->changed.notify(count); },
         .sleepers = sleepers,
         .check =
             [&](const KillPoint& point) {
               AwaitReturned(1);
               const bool given = arena_->credits() > 0 ||
                                  arena_->counted() < 4 || arena_->returned > 1;
               if (given) AwaitReturned(1 + count);
               if (point.finished()) {
                 EXPECT_TRUE(given);
               }
               arena_->gate.Open();
               CheckWaiters(point, 5, 1);
             }});
  }
}

TEST_F(ConditionVariableCrashTest, NotifyAll) {
  for (int waiters = 0; waiters <= 3; ++waiters) {
    Run({.name = "condition_variable/notify_all, waiters: " +
                 std::to_string(waiters),
         .operation = [&] { arena_->changed.notify_all(); },
         .sleepers = Waiters(waiters),
         .recover = [&] { arena_->changed.notify_all(); },
         .check =
             [&](const KillPoint& point) {
               if (waiters > 0 &&
                   (point.finished() || point.recovery_finished())) {
                 EXPECT_TRUE(Given());
               }
               CheckWaiters(point, waiters, waiters);
             }},
        {.first_kills = 3});
  }
}

// The one that is to take an item is killed: registering, on its way to sleep,
// asleep, woken, with the notification taken and with the item.
TEST_F(ConditionVariableCrashTest, Wait) {
  Run({.name = "condition_variable/wait, notified, two behind",
       .prepare = Warm,
       .operation = [&] { Consume(); },
       .while_blocked = [&] { Produce(); },
       .sleepers_behind = Consumers(2),
       .check = [&](const KillPoint& point) { CheckConsumers(point, 2); }});
}

// The victim is old and those behind it are young: what it was given and did
// not take comes back to one of them.
TEST_F(ConditionVariableCrashTest, WaitOfAnOldOne) {
  std::vector<std::function<void()>> young = Consumers(2);
  young[0] = [&] {
    // As one notification does that another one of its group took.
    arena_->word() = WordOf(0, 2, 1, 0) | kSleepers;
    Consume();
  };
  Run({.name = "condition_variable/wait of an old one, two young",
       .setup =
           [&] {
             Reset();
             arena_->word() = WordOf(1, 0, 0, 0);  // A dead one before it.
           },
       .prepare = Warm,
       .operation = [&] { Consume(); },
       .while_blocked = [&] { Produce(); },
       .sleepers_behind = young,
       .check = [&](const KillPoint& point) { CheckConsumers(point, 2); }},
      {.stride = 11});
}

TEST_F(ConditionVariableCrashTest, WaitEndedByNotifyAll) {
  Run({.name = "condition_variable/wait, all notified, one before, one behind",
       .prepare = Warm,
       .operation = [&] { WaitOnce(); },
       .sleepers = Waiters(1),
       .while_blocked = [&] { arena_->changed.notify_all(); },
       .sleepers_behind = Waiters(1),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             CheckAllGone();
           }});
}

TEST_F(ConditionVariableCrashTest, WaitTimingOut) {
  Run({.name = "condition_variable/wait_for, timing out, one before",
       .prepare = Warm,
       .operation =
           [&] {
             MutexLock lock(arena_->mu);
             (void)arena_->changed.wait_for(lock, std::chrono::microseconds(1));
           },
       .sleepers = Consumers(1),
       .check =
           [&](const KillPoint& point) {
             Produce();
             CheckConsumers(point, 1);
           }});
}

// A notification stands for one that died long ago. Whoever finds that and
// takes it over is killed; the next one does the same.
TEST_F(ConditionVariableCrashTest, Rescue) {
  Run({.name = "condition_variable/wait, taking over",
       .setup =
           [&] {
             Reset();
             arena_->items = 1;
             arena_->word() = WordOf(0, 1, 1, 1);
           },
       .prepare = Warm,
       .operation =
           [&] {
             MutexLock lock(arena_->mu);
             arena_->changed.wait(lock);
             arena_->items = 0;
           },
       .check =
           [&](const KillPoint& point) {
             {
               MutexLock lock(arena_->mu);
               if (point.finished()) {
                 EXPECT_EQ(arena_->items, 0);
               } else if (arena_->items > 0 && !lock.poisoned()) {
                 EXPECT_TRUE(arena_->changed.wait_for(lock, seconds(2)))
                     << "a notification is lost";
                 EXPECT_EQ(ConditionVariable::Rescues(), 1u);
               }
             }
             CheckUsable();
           }},
      {.stride = 23});
}

}  // namespace
}  // namespace cohort
