// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a Mutex and a ShortLock
// do. In each situation the survivors must get the lock, must be told of a
// death that left data torn, and must not owe their wake-up to the end of a
// slice.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/internal/short_lock.h"
#include "cohort/sync/mutex.h"
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
using std::chrono::milliseconds;
using std::chrono::seconds;
using sync_internal::Acquired;
using sync_internal::ShortLock;

struct Arena {
  Mutex mu;
  Mutex second;
  ShortLock short_lock;
  // Guarded by `mu` or `short_lock`; equal wherever nobody holds it.
  std::atomic<int> left;
  std::atomic<int> right;
  Gate gate;
  Gate second_gate;
  std::atomic<uint64_t> rescues;
  std::atomic<int> deaths_told;
};

class MutexCrashTest : public testing::Test {
 protected:
  void Reset() { new (arena_.get()) Arena(); }

  // So that a victim's first lock is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  static void Repair(Arena& arena) { arena.right = arena.left.load(); }

  // One more change of the data, for which the lock must be held.
  static void Change(Arena& arena) {
    arena.left = arena.left + 1;
    arena.right = arena.right + 1;
  }

  // Locks, looks, unlocks: a sleeper, and the core of each check.
  void Use() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Arena& arena = *arena_;
    ASSERT_TRUE(arena.mu.try_lock_for(seconds(2))) << "the lock is lost";
    if (arena.mu.poisoned()) {
      ++arena.deaths_told;
      Repair(arena);
      arena.mu.clear_poison();
    }
    EXPECT_EQ(arena.left, arena.right) << "torn data, and nobody was told";
    arena.mu.unlock();
    arena.rescues += sync_internal::Rescues();
  }

  void UseShort() {
    Arena& arena = *arena_;
    const Acquired acquired =
        arena.short_lock.Lock(Deadline::After(seconds(2)));
    ASSERT_NE(acquired, Acquired::kTimedOut) << "the lock is lost";
    if (acquired == Acquired::kOwnerDied) {
      ++arena.deaths_told;
      Repair(arena);
    }
    EXPECT_EQ(arena.left, arena.right) << "torn data, and nobody was told";
    arena.short_lock.Unlock();
    arena.rescues += sync_internal::Rescues();
  }

  // The mutex works, and works twice; nobody had to rescue himself.
  void CheckUsable() {
    Use();
    const int told = arena_->deaths_told;
    Use();
    EXPECT_EQ(arena_->deaths_told, told) << "poison came back";
    EXPECT_EQ(arena_->rescues, 0u) << "a sleeper was forgotten";
  }

  void CheckShortUsable() {
    UseShort();
    const int told = arena_->deaths_told;
    UseShort();
    EXPECT_EQ(arena_->deaths_told, told) << "a death was told twice";
    EXPECT_EQ(arena_->rescues, 0u) << "a sleeper was forgotten";
  }

  // Leaves torn data and a dead holder.
  void TearAndDie() {
    ASSERT_EQ(Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
                arena_->mu.lock();
                arena_->left = 1;
                return raise(SIGKILL);
              }).Wait(),
              KilledBy(SIGKILL));
  }

  // A holder cannot be there before the sleepers and yet be the victim, which
  // begins last. So the word names a holder that runs no code, and then another
  // process becomes it.
  std::atomic<uint32_t>& word() {
    return *reinterpret_cast<std::atomic<uint32_t>*>(&arena_->mu);
  }
  void HoldByNobody() { word() = static_cast<uint32_t>(getpid()); }
  void Adopt() {
    os::RobustThread& thread = os::RobustThread::Self();
    thread.Pend(word());
    word() = thread.tid() | (word() & sync_internal::kWaiters);
    thread.Push(*reinterpret_cast<os::RobustNode*>(
        reinterpret_cast<char*>(&arena_->mu) + sizeof(Mutex) -
        sizeof(os::RobustNode)));
    thread.Unpend();
  }

  // Survivors whose sleep is not cut into slices: who is not woken, by the one
  // who unlocks or by the kernel, gets nothing. With the lock once taken and
  // freed, each calls `body`.
  std::vector<std::function<void()>> Sleepers(int count,
                                              std::function<void()> body) {
    return std::vector<std::function<void()>>(count, [this, body] {
      os::Slices::TurnOff();
      Use();
      body();
    });
  }
  std::vector<std::function<void()>> ShortSleepers(int count) {
    return std::vector<std::function<void()>>(count, [this] {
      os::Slices::TurnOff();
      UseShort();
      UseShort();
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

TEST_F(MutexCrashTest, Lock) {
  Run({.name = "mutex/lock",
       .prepare = Warm,
       .operation = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock(); },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 1);
             }
           }});
}

TEST_F(MutexCrashTest, FirstLockOfAThread) {
  Run({.name = "mutex/lock, first of its thread",
       .operation = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock(); },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 1);
             }
           }});
}

TEST_F(MutexCrashTest, Unlock) {
  Run({.name = "mutex/unlock",
       .prepare = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock(); },
       .operation = [&]()
                        ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.unlock(); },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

TEST_F(MutexCrashTest, CriticalSection) {
  Run({.name = "mutex/critical section",
       .prepare = Warm,
       .operation =
           [&] {
             MutexLock lock(arena_->mu);
             Change(*arena_);
           },
       .recover = [&] { MutexLock lock(arena_->mu, [&] { Repair(*arena_); }); },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->left, 1);
             }
           }});
}

TEST_F(MutexCrashTest, UnlockBeforeSleepers) {
  // The holder is the victim, and the sleepers sleep before it begins.
  for (int sleepers = 1; sleepers <= 3; ++sleepers) {
    Run({.name = "mutex/unlock, sleepers: " + std::to_string(sleepers),
         .setup =
             [&] {
               Reset();
               HoldByNobody();
             },
         .prepare = [&] { Adopt(); },
         .operation =
             [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
               Change(*arena_);
               arena_->mu.unlock();
             },
         .sleepers = Sleepers(sleepers, [&] { Use(); }),
         .check =
             [&](const KillPoint& point) {
               for (int i = 0; i < sleepers; ++i) {
                 ASSERT_TRUE(point.AwaitSleeper(i)) << "sleeper " << i;
               }
               CheckUsable();
               if (point.finished()) {
                 EXPECT_EQ(arena_->deaths_told, 0);
               }
             }});
  }
}

// What the next holder does with the lock's links must not cut the list of the
// one who freed it: that one still holds another lock.
TEST_F(MutexCrashTest, UnlockWhileAnotherIsHeld) {
  Run({.name = "mutex/unlock, another one held, sleeper",
       .setup =
           [&] {
             Reset();
             HoldByNobody();
           },
       .prepare =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             arena_->second.lock();
             Adopt();
           },
       .operation = [&]()
                        ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.unlock(); },
       // It dies with the lock linked into a list of its own.
       .sleepers = Sleepers(
           1, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock(); }),
       .check =
           [&](const KillPoint& point) ABSL_NO_THREAD_SAFETY_ANALYSIS {
             ASSERT_TRUE(point.AwaitSleeper(0));
             CheckUsable();
             ASSERT_TRUE(arena_->second.try_lock_for(seconds(2)))
                 << "the other lock is lost";
             EXPECT_TRUE(arena_->second.poisoned());
             arena_->second.unlock();
           }});
}

TEST_F(MutexCrashTest, TryLock) {
  Run({.name = "mutex/try_lock, free",
       .prepare = Warm,
       .operation =
           [&]()
               ABSL_NO_THREAD_SAFETY_ANALYSIS { (void)arena_->mu.try_lock(); },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 1);
             }
           }});
}

TEST_F(MutexCrashTest, AWaitThatIsOver) {
  // No attempt of the victim may disturb the one that holds the lock.
  for (const bool timed : {false, true}) {
    Run({.name =
             timed ? "mutex/try_lock_for, timing out" : "mutex/try_lock, held",
         .prepare = Warm,
         .operation =
             [&, timed]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
               const bool taken =
                   timed ? arena_->mu.try_lock_for(std::chrono::microseconds(1))
                         : arena_->mu.try_lock();
               if (taken) raise(SIGABRT);
             },
         .sleepers = {[&] {
           MutexLock lock(arena_->mu);
           arena_->gate.Pass();
           Change(*arena_);
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

TEST_F(MutexCrashTest, NestedOutOfOrder) {
  Run({.name = "mutex/two, unlocked out of order",
       .prepare = Warm,
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             arena_->mu.lock();
             arena_->left = 1;
             arena_->second.lock();
             arena_->right = 1;
             arena_->mu.unlock();
             arena_->second.unlock();
           },
       .check =
           [&](const KillPoint& point) ABSL_NO_THREAD_SAFETY_ANALYSIS {
             CheckUsable();
             ASSERT_TRUE(arena_->second.try_lock_for(seconds(2)));
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 0);
               EXPECT_FALSE(arena_->second.poisoned());
             }
             arena_->second.unlock();
           }});
}

// The lock is kept over another that is taken and freed, and over a short
// section of the library: each uses the one pending slot.
TEST_F(MutexCrashTest, HeldOverOtherLocks) {
  Run({.name = "mutex/held over other locks",
       .prepare = Warm,
       .operation =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             arena_->mu.lock();
             arena_->left = 1;
             arena_->second.lock();
             arena_->second.unlock();
             (void)arena_->short_lock.Lock();
             arena_->short_lock.Unlock();
             arena_->right = 1;
             arena_->mu.unlock();
           },
       .check =
           [&](const KillPoint& point) ABSL_NO_THREAD_SAFETY_ANALYSIS {
             CheckUsable();
             ASSERT_TRUE(arena_->second.try_lock_for(seconds(2)));
             arena_->second.unlock();
             ASSERT_NE(arena_->short_lock.Lock(Deadline::After(seconds(2))),
                       Acquired::kTimedOut);
             arena_->short_lock.Unlock();
             if (point.finished()) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

// A repairer dies at any instruction of its repair, and the repairer of that
// one too: nobody may see torn data unwarned.
TEST_F(MutexCrashTest, Repair) {
  Run({.name = "mutex/repair",
       .setup =
           [&] {
             Reset();
             TearAndDie();
           },
       .prepare = Warm,
       .operation =
           [&] { MutexLock lock(arena_->mu, [&] { Repair(*arena_); }); },
       .recover =
           [&] {
             MutexLock lock(arena_->mu, [&] { Repair(*arena_); });
             Change(*arena_);
           },
       .check =
           [&](const KillPoint& point) {
             CheckUsable();
             if (point.finished() && point.recovery_instruction() < 0) {
               EXPECT_EQ(arena_->deaths_told, 0);
             }
           }});
}

// A waiter is killed on its way to sleep, asleep, and at each instruction after
// it was woken; two others sleep behind it.
TEST_F(MutexCrashTest, WokenWaiter) {
  Run({.name = "mutex/lock, woken, two behind",
       .setup =
           [&] {
             Reset();
             HoldByNobody();
           },
       .prepare = Warm,
       .operation =
           [&] {
             MutexLock lock(arena_->mu);
             Change(*arena_);
           },
       .while_blocked =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             Adopt();
             arena_->mu.unlock();
           },
       .sleepers_behind = Sleepers(2, [&] { Use(); }),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             ASSERT_TRUE(point.AwaitSleeper(1));
             CheckUsable();
           }});
}

// Likewise, but the one that woke it takes the lock again before the waiter
// can.
TEST_F(MutexCrashTest, WokenWaiterBehindABarger) {
  Run({.name = "mutex/lock, woken, barged, two behind",
       .prepare = Warm,
       .operation =
           [&] {
             MutexLock lock(arena_->mu);
             Change(*arena_);
           },
       .sleepers = {[&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
         arena_->mu.lock();
         arena_->gate.Pass();
         arena_->mu.unlock();
         arena_->mu.lock();
         arena_->second_gate.Pass(Deadline::After(milliseconds(3)));
         arena_->mu.unlock();
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Sleepers(2, [&] { Use(); }),
       .check =
           [&](const KillPoint& point) {
             for (int i = 0; i < 3; ++i) ASSERT_TRUE(point.AwaitSleeper(i));
             CheckUsable();
           }});
}

// The holder dies, and then the sleeper whom the kernel has woken for it.
TEST_F(MutexCrashTest, WokenByADeath) {
  Run({.name = "mutex/lock, woken by a death, two behind",
       .prepare = Warm,
       .operation =
           [&] { MutexLock lock(arena_->mu, [&] { Repair(*arena_); }); },
       .sleepers = {[&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
         arena_->mu.lock();
         arena_->left = 1;
         arena_->gate.Pass();  // And ends, holding it.
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Sleepers(2, [&] { Use(); }),
       .check =
           [&](const KillPoint& point) {
             for (int i = 0; i < 3; ++i) ASSERT_TRUE(point.AwaitSleeper(i));
             CheckUsable();
           }});
}

TEST_F(MutexCrashTest, ShortLock) {
  Run({.name = "short_lock/section",
       .prepare = Warm,
       .operation =
           [&] {
             (void)arena_->short_lock.Lock();
             Change(*arena_);
             arena_->short_lock.Unlock();
           },
       .recover = [&] { UseShort(); },
       .check =
           [&](const KillPoint& point) {
             CheckShortUsable();
             if (point.finished()) {
               EXPECT_EQ(arena_->left, 1);
             }
           }});
}

TEST_F(MutexCrashTest, ShortLockWoken) {
  Run({.name = "short_lock/section, woken, two behind",
       .prepare = Warm,
       .operation =
           [&] {
             (void)arena_->short_lock.Lock();
             Change(*arena_);
             arena_->short_lock.Unlock();
           },
       .sleepers = {[&] {
         (void)arena_->short_lock.Lock();
         arena_->gate.Pass();
         arena_->short_lock.Unlock();
         if (arena_->short_lock.Lock() == Acquired::kOwnerDied) {
           ++arena_->deaths_told;
           Repair(*arena_);
         }
         arena_->second_gate.Pass(Deadline::After(milliseconds(3)));
         arena_->short_lock.Unlock();
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = ShortSleepers(2),
       .check =
           [&](const KillPoint& point) {
             for (int i = 0; i < 3; ++i) ASSERT_TRUE(point.AwaitSleeper(i));
             CheckShortUsable();
           }});
}

}  // namespace
}  // namespace cohort
