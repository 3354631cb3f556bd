// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a Barrier does. In each
// situation a round must end for all survivors alike, nobody may wait for the
// dead, and after a reset() the barrier must be as good as new.

#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"
#include "cohort/sync/barrier.h"
#include "cohort/testing/child.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::milliseconds;
using std::chrono::seconds;

// What an arrival came to: the index, or one of these.
constexpr int kNotYet = -1;
constexpr int kAborted = 50;
constexpr int kDied = 51;
constexpr int kTimedOut = 52;
constexpr int kReset = 53;
constexpr int kMyTimeIsOver = 60;

int Result(const absl::StatusOr<int>& index) {
  if (index.ok()) return *index;
  if (index.status().code() == absl::StatusCode::kDeadlineExceeded) {
    return kMyTimeIsOver;
  }
  const std::string message(index.status().message());
  auto says = [&](const char* what) {
    return message.find(what) != std::string::npos;
  };
  if (says("abort()")) return kAborted;
  if (says("died")) return kDied;
  if (says("time-out")) return kTimedOut;
  if (says("reset during")) return kReset;
  return 99;
}

bool Through(int result) { return result >= 0 && result < kAborted; }

struct Arena {
  explicit Arena(int parties) : barrier(parties) {}

  Barrier barrier;
  std::array<std::atomic<int>, 3> sleeper = {kNotYet, kNotYet, kNotYet};
  std::atomic<int> event = kNotYet;
  std::atomic<int> actions = 0;
};

class BarrierCrashTest : public testing::Test {
 protected:
  void Reset(int parties) { new (arena_.get()) Arena(parties); }

  // So that a victim's first arrival is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  Barrier& barrier() { return arena_->barrier; }

  // Arrives for a short time: the rest of the parties may be dead.
  int Arrive(milliseconds wait) {
    return Result(barrier().arrive_and_wait_for(wait));
  }

  // Survivors that wait in the round.
  std::vector<std::function<void()>> Sleepers(int count) {
    std::vector<std::function<void()>> sleepers;
    for (int i = 0; i < count; ++i) {
      sleepers.push_back([this, i] {
        arena_->sleeper[i] = Result(barrier().arrive_and_wait());
      });
    }
    return sleepers;
  }

  int AwaitSleeper(const KillPoint& point, int sleeper) {
    EXPECT_TRUE(point.AwaitSleeper(sleeper)) << "left waiting";
    return arena_->sleeper[sleeper];
  }

  // The state and the slots, as bits (sync/barrier.cc).
  std::atomic<uint64_t>& word(int index) {
    return reinterpret_cast<std::atomic<uint64_t>*>(&arena_->barrier)[index];
  }
  std::atomic<uint64_t>& state() { return word(0); }
  std::atomic<uint64_t>& slot(int index) { return word(2 + index); }

  // As if a round had gone through that one thread has not left yet.
  void LeaveOneBehind() {
    constexpr uint64_t kRoundOne = 1;
    constexpr uint64_t kCalmOne = uint64_t{1} << 46;
    state() = kRoundOne | kCalmOne;
    slot(3) = static_cast<uint64_t>(getpid());
  }
  // It must still be able to learn how its round ended.
  void CheckLeftBehind() {
    const uint64_t told = slot(3) >> 60;
    const bool forgotten = state() >> 46 == 0;
    EXPECT_TRUE(told == 0 || told == 8) << told;
    EXPECT_TRUE(told == 8 || !forgotten) << "forgotten before it was told";
    slot(3) = 0;
  }

  // As if one had arrived first and died.
  void LeaveOneDead() {
    state() = uint64_t{1} << 32;
    slot(0) = 0x40000000;
  }

  // Whatever has happened: after a reset a whole round, with and without an
  // action, in which nobody is missing and nobody dead.
  void CheckUsable() {
    for (const bool with_action : {false, true}) {
      barrier().reset();
      ASSERT_FALSE(barrier().broken());
      ASSERT_EQ(barrier().waiting(), 0);
      std::vector<Child> others;
      for (int i = 1; i < barrier().parties(); ++i) {
        others.push_back(Child::Fork(
            [&] { return Result(barrier().arrive_and_wait_for(seconds(2))); }));
        ASSERT_TRUE(others.back().AwaitAsleepInFutex());
      }
      const int last = barrier().parties() - 1;
      bool ran = false;
      EXPECT_EQ(Result(with_action ? barrier().arrive_and_wait_for(
                                         seconds(2), [&] { ran = true; })
                                   : barrier().arrive_and_wait_for(seconds(2))),
                last);
      EXPECT_EQ(ran, with_action);
      for (int i = 0; i < last; ++i) EXPECT_EQ(others[i].Wait(), Exited(i));
    }
  }

  void Run(KillScenario scenario) {
    scenario.prepare = Warm;
    // Whoever makes a message finds room for it at once. Else malloc's way
    // depends on what this process did before, and is another one each time.
    scenario.setup = [setup = std::move(scenario.setup)] {
      setup();
      for (int size = 16; size <= 160; size += 8) {
        (void)absl::AbortedError(std::string(size, ' '));
      }
    };
    // A recoverer's first arrival binds its thread and may make a message, so it
    // has a thousand instructions.
    const KillReport report =
        KillAtEveryInstruction(scenario, {.first_kills = 2});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  Shared<Arena> arena_{std::in_place, 1};
};

// The victim arrives first, sleeps, and is woken by the last.
TEST_F(BarrierCrashTest, First) {
  Run({.name = "barrier/arrive, the first",
       .setup = [&] { Reset(2); },
       .operation = [&] { (void)barrier().arrive_and_wait(); },
       .while_blocked = [&] { arena_->event = Arrive(milliseconds(5)); },
       .check =
           [&](const KillPoint& point) {
             const int event = arena_->event;
             if (point.finished() || point.woken()) {
               EXPECT_EQ(event, 1);
             } else if (point.asleep()) {
               EXPECT_EQ(event, kDied);
             } else {
               // Before it was counted, or after.
               EXPECT_TRUE(event == kDied || event == kMyTimeIsOver) << event;
             }
             CheckUsable();
           }});
}

// Somebody waits already; the victim is the second, and another the third.
TEST_F(BarrierCrashTest, Middle) {
  Run({.name = "barrier/arrive, the second of three",
       .setup = [&] { Reset(3); },
       .operation = [&] { (void)barrier().arrive_and_wait(); },
       .sleepers = Sleepers(1),
       .while_blocked = [&] { arena_->event = Arrive(milliseconds(5)); },
       .check =
           [&](const KillPoint& point) {
             const int sleeper = AwaitSleeper(point, 0);
             const int event = arena_->event;
             if (point.finished() || point.woken()) {
               EXPECT_EQ(event, 2);
               EXPECT_EQ(sleeper, 0);
             } else if (point.asleep() || sleeper == kDied) {
               EXPECT_EQ(event, kDied);
               EXPECT_EQ(sleeper, kDied);
             } else {
               EXPECT_EQ(event, kMyTimeIsOver);
               EXPECT_EQ(sleeper, kTimedOut);
             }
             CheckUsable();
           }});
}

// Two wait. The victim never waits, so that nothing of it is left: either the
// two are through, or the checker is the last in its place.
TEST_F(BarrierCrashTest, Last) {
  Run({.name = "barrier/arrive, the last, two asleep",
       .setup = [&] { Reset(3); },
       .operation = [&] { (void)barrier().arrive_and_wait(); },
       .sleepers = Sleepers(2),
       .check =
           [&](const KillPoint& point) {
             const int result = Arrive(milliseconds(0));
             if (point.finished()) {
               EXPECT_EQ(result, kMyTimeIsOver);  // In the next round.
             } else {
               EXPECT_TRUE(result == 2 || result == kMyTimeIsOver) << result;
             }
             EXPECT_EQ(AwaitSleeper(point, 0), 0);
             EXPECT_EQ(AwaitSleeper(point, 1), 1);
             CheckUsable();
           }});
}

// The last runs an action. The other two are through or not, but both alike,
// and they are not before the action was over.
TEST_F(BarrierCrashTest, Action) {
  Run({.name = "barrier/arrive, the last, with an action, two asleep",
       .setup = [&] { Reset(3); },
       .operation =
           [&] { (void)barrier().arrive_and_wait([&] { ++arena_->actions; }); },
       .sleepers = Sleepers(2),
       .recover =
           [&] { (void)barrier().arrive_and_wait_until(Deadline::Now()); },
       .check =
           [&](const KillPoint& point) {
             const int result = Arrive(milliseconds(0));
             const int first = AwaitSleeper(point, 0);
             const int second = AwaitSleeper(point, 1);
             EXPECT_LE(arena_->actions, 1);
             if (Through(first)) {
               EXPECT_EQ(first, 0);
               EXPECT_EQ(second, 1);
               const bool in_its_place =
                   result == 2 || point.recovery_instruction() >= 0;
               EXPECT_TRUE(arena_->actions == 1 || in_its_place);
             } else {
               EXPECT_EQ(first, kDied);
               EXPECT_EQ(second, kDied);
               EXPECT_EQ(result, kDied);
               EXPECT_FALSE(point.finished());
             }
             CheckUsable();
           }});
}

// The time of the second of three is over: it breaks the round.
TEST_F(BarrierCrashTest, TimeOut) {
  Run({.name = "barrier/arrive, timing out, one asleep, one late",
       .setup =
           [&] {
             Reset(3);
             LeaveOneBehind();
           },
       .operation =
           [&] {
             if (barrier()
                     .arrive_and_wait_for(std::chrono::microseconds(1))
                     .ok()) {
               raise(SIGABRT);
             }
           },
       .sleepers = Sleepers(1),
       .check =
           [&](const KillPoint& point) {
             CheckLeftBehind();
             const int result = Arrive(milliseconds(0));
             const int sleeper = AwaitSleeper(point, 0);
             if (sleeper == kTimedOut) {
               EXPECT_TRUE(result == kTimedOut || result == kMyTimeIsOver);
             } else {
               EXPECT_EQ(sleeper, kDied);
               EXPECT_EQ(result, kDied);
               EXPECT_FALSE(point.finished());
             }
             CheckUsable();
           }});
}

TEST_F(BarrierCrashTest, Abort) {
  Run({.name = "barrier/abort, two asleep, one late",
       .setup =
           [&] {
             Reset(3);
             LeaveOneBehind();
           },
       .operation = [&] { barrier().abort(); },
       .sleepers = Sleepers(2),
       .recover = [&] { barrier().abort(); },
       .check =
           [&](const KillPoint& point) {
             CheckLeftBehind();
             if (point.finished() || point.recovery_finished()) {
               EXPECT_TRUE(barrier().broken());
             }
             barrier().abort();
             EXPECT_EQ(Arrive(milliseconds(0)), kAborted);
             EXPECT_EQ(AwaitSleeper(point, 0), kAborted);
             EXPECT_EQ(AwaitSleeper(point, 1), kAborted);
             CheckUsable();
           }});
}

TEST_F(BarrierCrashTest, Reset) {
  Run({.name = "barrier/reset, two asleep, one late",
       .setup =
           [&] {
             Reset(3);
             LeaveOneBehind();
           },
       .operation = [&] { barrier().reset(); },
       .sleepers = Sleepers(2),
       .recover = [&] { barrier().reset(); },
       .check =
           [&](const KillPoint& point) {
             CheckLeftBehind();
             if (point.finished() || point.recovery_finished()) {
               EXPECT_EQ(barrier().waiting(), 0);
             }
             barrier().reset();
             EXPECT_EQ(AwaitSleeper(point, 0), kReset);
             EXPECT_EQ(AwaitSleeper(point, 1), kReset);
             CheckUsable();
           }});
}

TEST_F(BarrierCrashTest, ResetOfABrokenOne) {
  Run({.name = "barrier/reset of a broken one",
       .setup =
           [&] {
             Reset(2);
             barrier().abort();
           },
       .operation = [&] { barrier().reset(); },
       .check =
           [&](const KillPoint& point) {
             if (point.finished()) {
               EXPECT_FALSE(barrier().broken());
             }
             CheckUsable();
           }});
}

// One has arrived and died. Whoever finds it dies too, and so does the next.
TEST_F(BarrierCrashTest, Recover) {
  auto find = [&] {
    if (barrier().arrive_and_wait().ok()) raise(SIGABRT);
  };
  for (const int parties : {2, 3}) {
    KillScenario scenario = {
        .name = parties == 2 ? "barrier/arrive, the last, first one dead"
                             : "barrier/arrive, the second, first one dead",
        .setup =
            [&, parties] {
              Reset(parties);
              LeaveOneDead();
            },
        .operation = find,
        .check =
            [&](const KillPoint& point) {
              if (point.finished() || point.recovery_finished()) {
                EXPECT_TRUE(barrier().broken());
              }
              EXPECT_EQ(Result(barrier().arrive_and_wait()), kDied);
              CheckUsable();
            }};
    // What it does is the same for both, but a longer way.
    if (parties == 2) scenario.recover = find;
    Run(scenario);
  }
}

}  // namespace
}  // namespace cohort
