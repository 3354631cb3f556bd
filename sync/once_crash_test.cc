// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a Once does. In each
// situation the function must have run to its end once, or run again and be
// told so, and nobody who waited may be forgotten.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/mutex.h"
#include "cohort/sync/once.h"
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
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::seconds;
using Turn = sync_internal::OnceCore::Turn;

struct Arena {
  Once once;
  // Both 1 when the function has come to its end, from whatever they were.
  std::atomic<int> left;
  std::atomic<int> right;
  std::atomic<int> begun;
  std::atomic<int> ended;
  std::atomic<int> untold;
  Gate gate;
};

class OnceCrashTest : public testing::Test {
 protected:
  void Reset() { new (arena_.get()) Arena(); }

  // So that a victim's first lock is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  void Fill(bool again) {
    if (!again && arena_->begun != 0) ++arena_->untold;
    ++arena_->begun;
    arena_->left = 1;
    arena_->right = 1;
    ++arena_->ended;
  }

  void Call() {
    arena_->once.call([&](bool again) { Fill(again); });
    EXPECT_TRUE(arena_->once.done());
    EXPECT_EQ(arena_->left + arena_->right, 2) << "done halfway";
  }

  // As a survivor that is woken or else sleeps for ever.
  void CallWithoutSlices() {
    os::Slices::TurnOff();
    Call();
  }
  std::vector<std::function<void()>> Sleepers(int count) {
    return std::vector<std::function<void()>>(count,
                                              [&] { CallWithoutSlices(); });
  }

  // It can be called, and runs no more once it is done.
  void CheckUsable(const KillPoint& point, size_t sleepers = 0) {
    for (size_t i = 0; i < sleepers; ++i) {
      ASSERT_TRUE(point.AwaitSleeper(i)) << "sleeper " << i;
    }
    Arena& arena = *arena_;
    const bool was_done = arena.once.done();
    const int ended = arena.ended;
    ASSERT_TRUE(arena.once.try_call_for(seconds(2), [&](bool again) {
      Fill(again);
    })) << "nobody may run it";
    EXPECT_EQ(arena.ended - ended, was_done ? 0 : 1);
    Call();
    EXPECT_EQ(arena.left + arena.right, 2) << "done halfway";
    EXPECT_EQ(arena.untold, 0) << "run again, and not told";
    // One that died between the end of the function and the mark may have
    // ended it too, as the recoverer may.
    EXPECT_GE(arena.ended, 1);
    EXPECT_LE(arena.ended, 3);
    if (point.finished()) {
      EXPECT_TRUE(was_done);
      EXPECT_EQ(arena.ended, 1);
    }
  }

  sync_internal::OnceCore& core() {
    return *reinterpret_cast<sync_internal::OnceCore*>(&arena_->once);
  }
  std::atomic<uint32_t>& word() {
    return *reinterpret_cast<std::atomic<uint32_t>*>(
        reinterpret_cast<char*>(&arena_->once) + sizeof(Once) - sizeof(Mutex));
  }
  void Adopt() {
    os::RobustThread& thread = os::RobustThread::Self();
    thread.Pend(word());
    word() = thread.tid() | (word() & sync_internal::kWaiters);
    thread.Push(*reinterpret_cast<os::RobustNode*>(
        reinterpret_cast<char*>(&arena_->once) + sizeof(Once) -
        sizeof(os::RobustNode)));
    thread.Unpend();
  }

  void Run(KillScenario scenario, KillOptions options = {.first_kills = 6}) {
    scenario.name = "once/" + scenario.name;
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 5) << report;
  }

  Shared<Arena> arena_;
};

TEST_F(OnceCrashTest, Call) {
  Run({.name = "call",
       .prepare = Warm,
       .operation = [&] { Call(); },
       .recover = [&] { Call(); },
       .check = [&](const KillPoint& point) { CheckUsable(point); }});
}

TEST_F(OnceCrashTest, FirstLockOfAThread) {
  Run({.name = "call, first lock of its thread",
       .operation = [&] { Call(); },
       .check = [&](const KillPoint& point) { CheckUsable(point); }});
}

TEST_F(OnceCrashTest, CallWhenDone) {
  Run({.name = "call, done",
       .setup =
           [&] {
             Reset();
             Call();
           },
       .operation = [&] { Call(); },
       .check =
           [&](const KillPoint& point) {
             CheckUsable(point);
             EXPECT_EQ(arena_->ended, 1);
           }});
}

// The second runner is killed at each instruction, and so is the third.
TEST_F(OnceCrashTest, CallAfterADeath) {
  Run({.name = "call, after a death",
       .setup =
           [&] {
             Reset();
             ASSERT_EQ(Child::Fork([&] {
                         arena_->once.call([&] {
                           ++arena_->begun;
                           arena_->left = 1;
                           raise(SIGKILL);
                         });
                       }).Wait(),
                       KilledBy(SIGKILL));
           },
       .prepare = Warm,
       .operation = [&] { Call(); },
       .recover = [&] { Call(); },
       .check = [&](const KillPoint& point) { CheckUsable(point); }});
}

// The unwinder has many thousand instructions; ours are at its ends.
TEST_F(OnceCrashTest, AFunctionThatThrows) {
  auto throws = [&] {
    try {
      arena_->once.call([&](bool) {
        ++arena_->begun;
        throw std::runtime_error("no disk");
      });
    } catch (const std::runtime_error&) {
    }
  };
  Run({.name = "call, its function throws",
       .prepare = Warm,
       .operation = throws,
       .check =
           [&](const KillPoint& point) {
             EXPECT_FALSE(arena_->once.done());
             if (!point.finished()) CheckUsable(point);
           }},
      {.stride = 13});
}

// The runner is killed on its way out of the function, with others asleep. It
// cannot be there before the sleepers and yet be the victim, which begins last.
// So the mutex names a holder that runs no code, and then another process
// becomes it.
TEST_F(OnceCrashTest, EndBeforeSleepers) {
  for (const bool done : {false, true}) {
    Run({.name = done ? "end, three wait" : "end without success, three wait",
         .setup =
             [&] {
               Reset();
               ASSERT_EQ(core().Begin(Deadline::Infinite()), Turn::kFirst);
               core().End(false);
               arena_->begun = 1;
               word() = static_cast<uint32_t>(getpid());
             },
         .prepare = [&] { Adopt(); },
         .operation =
             [&, done] {
               if (done) Fill(true);
               core().End(done);
             },
         .sleepers = Sleepers(3),
         .check =
             [&, done](const KillPoint& point) {
               for (int i = 0; i < 3; ++i) {
                 ASSERT_TRUE(point.AwaitSleeper(i)) << "sleeper " << i;
               }
               EXPECT_TRUE(arena_->once.done());
               EXPECT_LE(arena_->ended, done ? 2 : 1);
               if (point.finished()) {
                 EXPECT_EQ(arena_->ended, 1);
               }
               Call();
             }});
  }
}

TEST_F(OnceCrashTest, WokenByTheEnd) {
  Run({.name = "call, woken, two behind",
       .prepare = Warm,
       .operation = [&] { Call(); },
       .sleepers = {[&] {
         arena_->once.call([&](bool again) {
           arena_->gate.Pass();
           Fill(again);
         });
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             CheckUsable(point, 3);
             EXPECT_EQ(arena_->ended, 1);
           }});
}

TEST_F(OnceCrashTest, WokenByADeath) {
  Run({.name = "call, woken by the runner's death, two behind",
       .prepare = Warm,
       .operation = [&] { Call(); },
       .sleepers = {[&] {
         arena_->once.call([&] {
           ++arena_->begun;
           arena_->left = 1;
           arena_->gate.Pass();
           _exit(0);
         });
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(1));
             ASSERT_TRUE(point.AwaitSleeper(2));
             CheckUsable(point);
           }});
}

TEST_F(OnceCrashTest, AWaitThatIsOver) {
  for (const bool timed : {false, true}) {
    Run({.name = timed ? "try_call_for, timing out" : "try_call, running",
         .prepare = Warm,
         .operation =
             [&, timed] {
               auto fail = [] { raise(SIGABRT); };
               const bool done = timed ? arena_->once.try_call_for(
                                             std::chrono::microseconds(1), fail)
                                       : arena_->once.try_call(fail);
               if (done) raise(SIGABRT);
             },
         .sleepers = {[&] {
           arena_->once.call([&](bool again) {
             arena_->gate.Pass();
             Fill(again);
           });
         }},
         .check =
             [&](const KillPoint& point) {
               EXPECT_FALSE(arena_->once.done());
               EXPECT_FALSE(arena_->once.try_call([] { raise(SIGABRT); }));
               arena_->gate.Open();
               ASSERT_TRUE(point.AwaitSleeper(0));
               EXPECT_TRUE(arena_->once.done());
               Call();
               EXPECT_EQ(arena_->ended, 1);
             }});
  }
}

}  // namespace
}  // namespace cohort
