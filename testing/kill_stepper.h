// SPDX-License-Identifier: Apache-2.0
//
// The kill stepper answers one question about a type in shared memory: whatever
// instruction a process was killed at, do the survivors go on? It runs an
// operation in a victim, kills the victim before its N-th instruction, for
// every N, each time in fresh state, and lets a checker look at what is left.
//
//   struct Pair { std::atomic<int> a, b; };            // invariant: a == b
//   cohort_testing::Shared<Pair> pair;
//   KillReport report = KillAtEveryInstruction({
//       .name = "pair/increment",
//       .setup = [&] { pair->a = pair->b = 0; },
//       .operation = [&] { ++pair->a; ++pair->b; },
//       .check = [&](const KillPoint&) { EXPECT_EQ(pair->a, pair->b); }});
//   EXPECT_EQ(report.violations, 0) << report;         // finds the torn pair
//
// An operation that blocks has `while_blocked`, the event that wakes it; a
// survivor that must be woken is a `sleeper`; who repairs after a death and may
// itself be killed is `recover`. The checker is a process of its own with a
// time limit: a deadlock is a violation with a message and never a hang.
//
// What it cannot see: kills inside a system call, and orders of memory accesses
// that the processor hides; testing/stress.h and a model checker are for those.
//
// Building. x86-64 only. Tag such tests "crash", "exclusive", "no_asan" and
// "no_tsan": instrumented code has a hundred times as many instructions, none
// of them of interest. Set `linkstatic = True`: first calls through a lazily
// bound symbol cost a thousand instructions of the dynamic linker. No pthread_*
// or sem_t object belongs into the memory under test.

#ifndef COHORT_TESTING_KILL_STEPPER_H_
#define COHORT_TESTING_KILL_STEPPER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "cohort/os/deadline.h"

namespace cohort_testing {

// Where the victim died, as the checker is told.
class KillPoint final {
 public:
  // The victim was killed after this many instructions of the operation.
  int64_t instruction() const { return instruction_; }
  // Whether the operation had returned: the last point, where the victim dies
  // with nothing left to do.
  bool finished() const { return finished_; }

  // With `while_blocked`: whether the victim was killed in its sleep, and
  // whether instruction() counts from its wake-up.
  bool asleep() const { return asleep_; }
  bool woken() const { return woken_; }

  // With `recover`: how far the recoverer came. -1 where there was none.
  int64_t recovery_instruction() const { return recovery_instruction_; }
  bool recovery_finished() const { return recovery_finished_; }

  // Whether the sleeper with this index (those behind count on after those
  // before) has returned from its body. The second blocks until it has; false
  // when `until` passes first.
  bool SleeperReturned(std::size_t sleeper) const;
  bool AwaitSleeper(std::size_t sleeper,
                    cohort::Deadline until = cohort::Deadline::After(
                        std::chrono::milliseconds(2000))) const;

  friend std::ostream& operator<<(std::ostream& out, const KillPoint& point);

 private:
  friend class KillStepper;
  int64_t instruction_ = 0;
  bool finished_ = false;
  bool asleep_ = false;
  bool woken_ = false;
  int64_t recovery_instruction_ = -1;
  bool recovery_finished_ = false;
  void* control_ = nullptr;
};

// One operation in one situation. What the functions share must lie in shared
// memory (testing/shared.h): all but `setup` run in processes of their own.
struct KillScenario {
  // "queue/put, consumer asleep". Printed; tools/crash adds up by it.
  std::string name = {};

  // Brings the shared memory into the state before the operation. Runs in the
  // test's own process before every single kill.
  std::function<void()> setup = {};

  // Optional: what the victim does first, unwatched, such as taking the lock
  // whose release is the operation.
  std::function<void()> prepare = {};

  // The operation. Only its instructions count.
  std::function<void()> operation = {};

  // Optional: survivors that block on the object. Each must be asleep in a
  // system call before the victim begins. What they leave in shared memory, and
  // whether they returned, is for the checker to judge; one that is killed by a
  // signal, throws or fails an expectation is a violation by itself.
  std::vector<std::function<void()>> sleepers = {};

  // Optional, for an operation that blocks: ends its wait. Runs in the test's
  // own process, as `setup` does, so it can release what that took. The victim
  // is killed at each instruction on its way to sleep, asleep, and at each one
  // from the wake-up on; where it dies before the event, the event comes then.
  // Its sleep is interrupted once, as by a stop and its continuation.
  std::function<void()> while_blocked = {};

  // Optional, with `while_blocked`: as `sleepers`, but they go to sleep after
  // the victim, so that they stand behind it.
  std::vector<std::function<void()>> sleepers_behind = {};

  // Optional: the first thing a survivor does after the death, such as locking
  // and repairing. Besides the kills of the victim alone, the recoverer too is
  // killed at each of its instructions, after a number of first kills
  // (KillOptions::first_kills).
  std::function<void()> recover = {};

  // Judges what is left, by EXPECT_ and ASSERT_; a failure is recorded with its
  // message. Ends by itself, else it is taken for deadlocked.
  std::function<void(const KillPoint&)> check = {};
};

enum class StepMode {
  // Records the path once by single steps, then runs each victim to a hardware
  // breakpoint. Falls back to kTrapFlag where ptrace(2) is refused.
  kBreakpoint,
  // The victim steps itself by the processor's trap flag. Needs no permission.
  // An operation that blocks is always done so. The operation must not block
  // signals, nor fork.
  kTrapFlag,
};

struct KillOptions {
  StepMode mode = StepMode::kBreakpoint;
  // A checker that runs longer is taken for deadlocked.
  std::chrono::milliseconds check_limit = std::chrono::milliseconds(3000);
  // A victim, a recoverer or `while_blocked` that takes longer is a violation.
  std::chrono::milliseconds victim_limit = std::chrono::milliseconds(5000);
  // The number of first kills, evenly spread, after each of which the recoverer
  // is killed at each of its instructions. The last is the finished operation.
  int first_kills = 30;
  // Kill at every `stride`-th instruction only; 1 is every one. A prime comes by
  // all parts of a loop. With COHORT_CRASH_FULL in the environment it is 1, and
  // every kill is a first kill.
  int64_t stride = 1;
  // Gives up after so many checkers, victims or sleepers have hung, each of
  // which costs its limit, or after so many points with a violation.
  int max_hangs = 8;
  int64_t max_violations = 100;
};

struct KillViolation {
  std::string message;
  int64_t count = 0;
  // First and last point at which it was seen, with the code there:
  // "17 (Queue::Put+0x42)".
  std::string first;
  std::string last;
};

struct KillReport {
  std::string name;
  // Kills, each at another instruction: of the operation, and of the recoverer
  // after each first kill.
  int64_t points = 0;
  // Scenarios.
  int64_t variants = 0;
  // Points at which the checker, a sleeper or a time limit complained; also
  // whatever kept the stepper itself from working. Grouped by message below.
  int64_t violations = 0;
  // Victims that took another way than the recorded one, by a clock or a
  // rival. They were killed and checked somewhere else and are no points.
  int64_t diverged = 0;
  // Of `points`, those where the recoverer was killed.
  int64_t second_order = 0;
  double seconds = 0;
  std::vector<KillViolation> details;

  KillReport& operator+=(const KillReport& other);
  friend std::ostream& operator<<(std::ostream& out, const KillReport& report);
};

// Runs one scenario, or several into one report. Prints one line for each,
// which tools/crash adds up.
KillReport KillAtEveryInstruction(const KillScenario& scenario,
                                  const KillOptions& options = {});
KillReport KillAtEveryInstruction(std::span<const KillScenario> scenarios,
                                  const KillOptions& options = {});

}  // namespace cohort_testing

#endif  // COHORT_TESTING_KILL_STEPPER_H_
