// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a RecursiveMutex does. The
// survivors must get the lock at depth 1, must be told of a death that left
// data torn, and are woken without the help of a slice.

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <new>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/sync/recursive_mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Gate;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KilledBy;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::seconds;

struct Arena {
  RecursiveMutex mu;
  // Guarded by `mu`; equal wherever nobody holds it.
  std::atomic<int> left;
  std::atomic<int> right;
  Gate gate;
  std::atomic<int> deaths_told;
};

class RecursiveMutexCrashTest : public testing::Test {
 protected:
  void Reset() { new (arena_.get()) Arena(); }

  // So that a victim's first lock is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  static void Repair(Arena& arena) { arena.right = arena.left.load(); }

  // One more change of the data, in two nested sections.
  void Change() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    RecursiveMutexLock outer(arena_->mu);
    arena_->left = arena_->left + 1;
    RecursiveMutexLock inner(arena_->mu);
    arena_->right = arena_->right + 1;
  }

  // Locks twice, looks, unlocks: a sleeper, and the core of each check.
  void Use() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    RecursiveMutex& mu = arena_->mu;
    ASSERT_TRUE(mu.try_lock_for(seconds(2))) << "the lock is lost";
    ASSERT_EQ(mu.depth(), 1u) << "the depth of a dead holder was left";
    ASSERT_TRUE(mu.try_lock());
    if (mu.poisoned()) {
      ++arena_->deaths_told;
      Repair(*arena_);
      mu.clear_poison();
    }
    EXPECT_EQ(arena_->left, arena_->right) << "torn data, and nobody was told";
    mu.unlock();
    mu.unlock();
  }

  // The mutex works, and works twice.
  void CheckUsable() {
    Use();
    const int told = arena_->deaths_told;
    Use();
    EXPECT_EQ(arena_->deaths_told, told) << "poison came back";
  }

  // Survivors that sleep without slices: who is not woken sleeps for ever.
  std::vector<std::function<void()>> Sleepers(int count) {
    return std::vector<std::function<void()>>(count, [this] {
      os::Slices::TurnOff();
      Use();
    });
  }

  void Run(KillScenario scenario) {
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    // A recoverer's first lock binds its thread, so it has 500 instructions.
    const KillReport report =
        KillAtEveryInstruction(scenario, {.first_kills = 6});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  Shared<Arena> arena_;
};

TEST_F(RecursiveMutexCrashTest, LockAndLockAgain) {
  Run({.name = "recursive_mutex/lock, lock",
       .prepare = Warm,
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             arena_->mu.lock();
             arena_->mu.lock();
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 1);
             }
           }});
}

TEST_F(RecursiveMutexCrashTest, TryLockAndTryAgain) {
  Run({.name = "recursive_mutex/try_lock, try_lock_for",
       .prepare = Warm,
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             if (!arena_->mu.try_lock()) raise(SIGABRT);
             if (!arena_->mu.try_lock_for(seconds(1))) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 1);
             }
           }});
}

TEST_F(RecursiveMutexCrashTest, UnlockTwice) {
  Run({.name = "recursive_mutex/unlock, unlock",
       .prepare =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock_all(2); },
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             arena_->mu.unlock();
             arena_->mu.unlock();
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

TEST_F(RecursiveMutexCrashTest, CriticalSection) {
  Run({.name = "recursive_mutex/nested critical section",
       .prepare = Warm,
       .operation = [&] { Change(); },
       .recover =
           [&] {
             RecursiveMutexLock lock(arena_->mu, [&] { Repair(*arena_); });
             Change();
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished() && point.recovery_instruction() < 0) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

// The holder lets go of all levels while others sleep, and takes them back from
// those; it is killed at each instruction of both.
TEST_F(RecursiveMutexCrashTest, UnlockAllAndLockAll) {
  Run({.name = "recursive_mutex/unlock_all, lock_all",
       .prepare =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock_all(3); },
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             const uint32_t depth = arena_->mu.unlock_all();
             arena_->mu.lock_all(depth);
             if (arena_->mu.depth() != 3) raise(SIGABRT);
             (void)arena_->mu.unlock_all();
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

// A waiter is killed on its way to sleep, asleep, and at each instruction after
// it was woken, up to the end of its own unlocks; two others sleep behind it.
TEST_F(RecursiveMutexCrashTest, WokenWaiter) {
  Run({.name = "recursive_mutex/nested section, woken, two behind",
       .setup =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             Reset();
             arena_->mu.lock_all(2);
           },
       .prepare = Warm,
       .operation = [&] { Change(); },
       .while_blocked =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             (void)arena_->mu.unlock_all();
           },
       .sleepers_behind = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             CheckUsable();
           }});
}

// Likewise, with all levels let go and taken back on the way.
TEST_F(RecursiveMutexCrashTest, WokenWaiterThatLetsGoOfAll) {
  Run({.name = "recursive_mutex/unlock_all, woken, two behind",
       .setup =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             Reset();
             arena_->mu.lock();
           },
       .prepare = Warm,
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             arena_->mu.lock_all(2);
             (void)arena_->mu.unlock_all();
           },
       .while_blocked =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.unlock(); },
       .sleepers_behind = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             CheckUsable();
           }});
}

TEST_F(RecursiveMutexCrashTest, AWaitThatIsOver) {
  // No attempt of the victim may disturb the one that holds the lock.
  for (const bool timed : {false, true}) {
    Run({.name = timed ? "recursive_mutex/try_lock_for, timing out"
                       : "recursive_mutex/try_lock, held",
         .prepare = Warm,
         .operation =
             [&, timed]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
               const bool taken =
                   timed ? arena_->mu.try_lock_for(std::chrono::microseconds(1))
                         : arena_->mu.try_lock();
               if (taken) raise(SIGABRT);
             },
         .sleepers = {[&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
           RecursiveMutexLock outer(arena_->mu);
           RecursiveMutexLock inner(arena_->mu);
           arena_->gate.Pass();
           EXPECT_EQ(arena_->mu.depth(), 2u);
           Change();
         }},
         .check =
             [&](const KillPoint& point) {
               EXPECT_FALSE(arena_->mu.try_lock());
               arena_->gate.Open();
               ASSERT_TRUE(point.AwaitSleeper(0));
               CheckUsable();
               EXPECT_EQ(arena_->deaths_told, 0);
               EXPECT_EQ(arena_->left, 1);
             }});
  }
}

// A repairer dies at any instruction of its repair, and the repairer of that
// one too.
TEST_F(RecursiveMutexCrashTest, Repair) {
  Run({.name = "recursive_mutex/repair",
       .setup =
           [&] {
             Reset();
             ASSERT_EQ(Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
                         arena_->mu.lock_all(2);
                         arena_->left = 1;
                         return raise(SIGKILL);
                       }).Wait(),
                       KilledBy(SIGKILL));
           },
       .prepare = Warm,
       .operation =
           [&] {
             RecursiveMutexLock lock(arena_->mu, [&] { Repair(*arena_); });
           },
       .recover =
           [&] {
             RecursiveMutexLock lock(arena_->mu, [&] { Repair(*arena_); });
             Change();
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished() && point.recovery_instruction() < 0) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

}  // namespace
}  // namespace cohort
