// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a CountingSemaphore does.
// Each operation has been done or has not, and no permit lies there while a
// survivor sleeps for it.

#include <sched.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/sync/counting_semaphore.h"
#include "cohort/sync/internal/wait_word.h"
#include "cohort/testing/asleep.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Arena {
  explicit Arena(ptrdiff_t permits) : semaphore(permits) {}

  CountingSemaphore semaphore;
  Gate gate;
  Gate second_gate;
};

class CountingSemaphoreCrashTest : public testing::Test {
 protected:
  CountingSemaphore& semaphore() { return arena_->semaphore; }

  std::function<void()> Begin(ptrdiff_t permits) {
    return [this, permits] { new (arena_.get()) Arena(permits); };
  }

  // So that a victim's first wait is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  static std::vector<std::function<void()>> Times(int count,
                                                  std::function<void()> body) {
    return std::vector<std::function<void()>>(count, body);
  }
  std::vector<std::function<void()>> Sleepers(int count) {
    return Times(count, [this] { semaphore().acquire(); });
  }

  // `sleepers` survivors, from number `first` on, want a permit each. They get
  // what there is, and then all that they want. Returns what is left then.
  ptrdiff_t Settle(const KillPoint& point, int sleepers, int first = 0) {
    auto waiting = [&] {
      int count = 0;
      for (int i = 0; i < sleepers; ++i) {
        count += point.SleeperReturned(first + i) ? 0 : 1;
      }
      return count;
    };
    const Deadline lost = Deadline::After(seconds(2));
    while (semaphore().value() > 0 && waiting() > 0 && !lost.Passed()) {
      sched_yield();
    }
    EXPECT_TRUE(semaphore().value() == 0 || waiting() == 0)
        << "a permit lies there, and a survivor sleeps for it";
    semaphore().release(sleepers);
    for (int i = 0; i < sleepers; ++i) {
      EXPECT_TRUE(point.AwaitSleeper(first + i)) << "sleeper " << first + i;
    }
    // It works, and works twice.
    const ptrdiff_t left = semaphore().value();
    for (int i = 0; i < 2; ++i) {
      semaphore().release();
      EXPECT_TRUE(semaphore().try_acquire_for(seconds(2)));
    }
    EXPECT_EQ(semaphore().value(), left);
    return left;
  }

  void Run(KillScenario scenario) {
    const KillReport report = KillAtEveryInstruction(scenario);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 4) << report;
  }

  Shared<Arena> arena_{std::in_place, 0};
};

TEST_F(CountingSemaphoreCrashTest, Acquire) {
  Run({.name = "counting_semaphore/acquire",
       .setup = Begin(2),
       .operation = [&] { semaphore().acquire(); },
       .check =
           [&](const KillPoint& point) {
             const ptrdiff_t left = Settle(point, 0);
             EXPECT_TRUE(left == 1 || (left == 2 && !point.finished())) << left;
           }});
}

TEST_F(CountingSemaphoreCrashTest, Release) {
  for (const int n : {1, 3}) {
    Run({.name = "counting_semaphore/release " + std::to_string(n),
         .setup = Begin(2),
         .operation = [&] { semaphore().release(n); },
         .check =
             [&](const KillPoint& point) {
               const ptrdiff_t left = Settle(point, 0);
               EXPECT_TRUE(left == 2 + n || (left == 2 && !point.finished()))
                   << left;
             }});
  }
}

TEST_F(CountingSemaphoreCrashTest, ReleaseBeforeSleepers) {
  for (int sleepers = 1; sleepers <= 2; ++sleepers) {
    for (int n = 1; n <= 3; ++n) {
      Run({.name = "counting_semaphore/release " + std::to_string(n) +
                   ", sleepers: " + std::to_string(sleepers),
           .setup = Begin(0),
           .operation = [&] { semaphore().release(n); },
           .sleepers = Sleepers(sleepers),
           .check =
               [&](const KillPoint& point) {
                 // All or none.
                 const ptrdiff_t left = Settle(point, sleepers);
                 EXPECT_TRUE(left == n || (left == 0 && !point.finished()))
                     << left;
               }});
    }
  }
}

TEST_F(CountingSemaphoreCrashTest, AWaitThatIsOver) {
  for (const bool timed : {false, true}) {
    Run({.name = timed ? "counting_semaphore/try_acquire_for, timing out"
                       : "counting_semaphore/try_acquire, none",
         .setup = Begin(0),
         .prepare = Warm,
         .operation =
             [&] {
               const bool taken =
                   timed ? semaphore().try_acquire_for(microseconds(1))
                         : semaphore().try_acquire();
               if (taken) raise(SIGABRT);
             },
         .sleepers = Sleepers(1),
         .check =
             [&](const KillPoint& point) { EXPECT_EQ(Settle(point, 1), 0); }});
  }
}

// A waiter whose time ends in its sleep, another one beside it.
TEST_F(CountingSemaphoreCrashTest, AWaitThatEndsAsleep) {
  Run({.name = "counting_semaphore/try_acquire_for, over while asleep",
       .setup = Begin(0),
       .prepare = Warm,
       .operation = [&] { (void)semaphore().try_acquire_for(milliseconds(5)); },
       .sleepers = Sleepers(1),
       .check =
           [&](const KillPoint& point) { EXPECT_EQ(Settle(point, 1), 0); }});
}

// A waiter is killed on its way to sleep, asleep, and at each instruction after
// it was woken; two others sleep behind it.
TEST_F(CountingSemaphoreCrashTest, WokenWaiter) {
  Run({.name = "counting_semaphore/acquire, woken, two behind",
       .setup = Begin(0),
       .prepare = Warm,
       .operation = [&] { semaphore().acquire(); },
       .while_blocked = [&] { semaphore().release(); },
       .sleepers_behind = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             const ptrdiff_t left = Settle(point, 2);
             EXPECT_TRUE(left == 0 || (left == 1 && !point.finished())) << left;
           }});
}

// Likewise, but the one that woke it takes the permit again before the waiter
// can.
TEST_F(CountingSemaphoreCrashTest, WokenWaiterBehindABarger) {
  Run({.name = "counting_semaphore/acquire, woken, barged, two behind",
       .setup = Begin(0),
       .prepare = Warm,
       .operation = [&] { semaphore().acquire(); },
       .sleepers = {[&] {
         arena_->gate.Pass();
         semaphore().release();
         if (semaphore().try_acquire()) {
           arena_->second_gate.Pass(Deadline::After(milliseconds(3)));
           semaphore().release();
         }
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             const ptrdiff_t left = Settle(point, 2, 1);
             EXPECT_TRUE(left == 0 || (left == 1 && !point.finished())) << left;
           }});
}

// Nobody is killed. A release finds a stale mark; between any two instructions of
// its wake-up a rival takes the permit, and another falls asleep by that mark.
// The next release wakes it, slices or not. The processor's trap flag stops the
// release there.
struct Interruption {
  CountingSemaphore* semaphore;
  std::atomic<bool>* rival_may_come;
  pid_t rival;
  int steps;
};
Interruption* interruption;

TEST_F(CountingSemaphoreCrashTest,
       WhoSleepsInTheMiddleOfAWakeUpIsNotForgotten) {
  constexpr uint64_t kTrapFlag = 0x100;
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t*, void* context) {
    Interruption& now = *interruption;
    if (now.semaphore->value() == 0 || --now.steps != 0) return;
    if (!now.semaphore->try_acquire()) std::abort();
    *now.rival_may_come = true;
    if (!cohort_testing::AwaitAsleepInFutex(now.rival)) std::abort();
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &=
        ~static_cast<greg_t>(kTrapFlag);
  };
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGTRAP, &action, &before), 0);
  Shared<std::atomic<bool>> rival_may_come;
  int step = 0;
  for (;;) {
    Begin(0)();
    *reinterpret_cast<std::atomic<uint32_t>*>(&semaphore()) =
        sync_internal::kSleepers;
    *rival_may_come = false;
    Child rival = Child::Fork([&] {
      os::Slices::TurnOff();
      while (!*rival_may_come) sched_yield();
      semaphore().acquire();
    });
    Interruption now = {&semaphore(), rival_may_come.get(), rival.pid(),
                        ++step};
    interruption = &now;
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | kTrapFlag);
    semaphore().release();
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() &
                                   ~kTrapFlag);
    if (!*rival_may_come) break;  // It was over before.
    semaphore().release();
    ASSERT_EQ(rival.WaitFor(Deadline::After(seconds(5))), Exited(0)) << step;
  }
  EXPECT_GT(step, 20);
  sigaction(SIGTRAP, &before, nullptr);
}

}  // namespace
}  // namespace cohort
