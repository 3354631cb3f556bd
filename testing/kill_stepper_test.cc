// SPDX-License-Identifier: Apache-2.0
//
// The types under test here are small and their faults planted: what the
// stepper finds in them is known beforehand.

#include "cohort/testing/kill_stepper.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

template <typename T>
std::string Print(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

void Wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, nullptr, nullptr, 0);
}
void Wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0);
}

// Two fields that must be equal, which no two stores can promise.
struct Pair {
  std::atomic<int> a;
  std::atomic<int> b;
};

// Exactly seven instructions: one, the first store, three, the second, one. The
// stepper also sees the few that call the function and return from it.
void TearablePut(Pair* pair) {
  asm volatile(
      "nop\n"
      "movl $1, (%0)\n"
      "nop\n"
      "nop\n"
      "nop\n"
      "movl $1, (%1)\n"
      "nop\n" ::"r"(&pair->a),
      "r"(&pair->b)
      : "memory");
}

class StepperTest : public ::testing::TestWithParam<StepMode> {
 protected:
  KillOptions Options() const { return {.mode = GetParam()}; }
};

TEST_P(StepperTest, FindsATornPairAtExactlyTheInstructionsWhereItIsTorn) {
  Shared<Pair> pair;
  const KillReport report =
      KillAtEveryInstruction({.name = "torn pair",
                              .setup = [&] { pair->a = pair->b = 0; },
                              .operation = [&] { TearablePut(pair.get()); },
                              .check =
                                  [&](const KillPoint&) {
                                    EXPECT_EQ(pair->a.load(), pair->b.load());
                                  }},
                             Options());
  // After the first store, and after each of the three that follow it.
  EXPECT_EQ(report.violations, 4) << report;
  ASSERT_EQ(report.details.size(), 1u) << report;
  EXPECT_EQ(report.details[0].count, 4);
  EXPECT_THAT(report.details[0].message,
              AllOf(HasSubstr("kill_stepper_test.cc:"), HasSubstr("pair->a")));
  EXPECT_GT(report.points, 10);
  EXPECT_LT(report.points, 40);
  EXPECT_EQ(report.variants, 1);
  EXPECT_EQ(report.diverged, 0);
  // The place has a name.
  EXPECT_THAT(report.details[0].first, HasSubstr("+0x"));
  EXPECT_THAT(Print(report), HasSubstr("4 x kill_stepper_test.cc"));
}

TEST_P(StepperTest, ASingleStoreSurvives) {
  Shared<std::atomic<uint64_t>> both;
  const KillReport report = KillAtEveryInstruction(
      {.name = "single store",
       .setup = [&] { *both = 0; },
       .operation = [&] { *both = 0x0000'0001'0000'0001; },
       .check =
           [&](const KillPoint& point) {
             const uint64_t value = *both;
             EXPECT_EQ(value >> 32, value & 0xffff'ffff);
             if (point.finished()) {
               EXPECT_NE(value, 0u);
             }
           }},
      Options());
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_THAT(report.details, IsEmpty());
  EXPECT_GT(report.points, 3);
}

TEST_P(StepperTest, VisitsEveryInstructionOnce) {
  constexpr int kRounds = 64;
  Shared<std::atomic<int>> rounds;  // How far the victim came.
  Shared<std::atomic<int>[]> died_in(kRounds + 1);
  const KillReport report = KillAtEveryInstruction(
      {.name = "loop",
       .setup = [&] { *rounds = 0; },
       .operation =
           [&] {
             int left = kRounds;
             asm volatile(
                 "1: incl (%1)\n"
                 "nop\n"
                 "decl %0\n"
                 "jnz 1b\n"
                 : "+r"(left)
                 : "r"(rounds.get())
                 : "memory", "cc");
           },
       .check =
           [&](const KillPoint&) { ++died_in[static_cast<size_t>(*rounds)]; }},
      Options());
  EXPECT_EQ(report.violations, 0) << report;
  for (size_t i = 1; i < kRounds; ++i) EXPECT_EQ(died_in[i], 4) << i;
}

TEST_P(StepperTest, CopiesByRepeatedInstructionsAreStepped) {
  Shared<char[]> target(64);
  static const char kSource[64] = {1};
  const KillReport report = KillAtEveryInstruction(
      {.name = "rep movsb",
       .setup = [&] { target[0] = target[63] = 0; },
       .operation =
           [&] {
             const void* from = kSource;
             void* to = target.data();
             size_t count = 64;
             asm volatile("rep movsb"
                          : "+S"(from), "+D"(to), "+c"(count)::"memory");
           },
       .check = [](const KillPoint&) {}},
      Options());
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_EQ(report.diverged, 0);
  EXPECT_GE(report.points, 5);
}

TEST_P(StepperTest, ADeadlockOfTheCheckerIsReported) {
  // A lock that nobody frees when its holder dies.
  Shared<std::atomic<uint32_t>> lock;
  KillOptions options = Options();
  options.check_limit = milliseconds(300);
  options.max_hangs = 3;
  const KillReport report =
      KillAtEveryInstruction({.name = "dead lock",
                              .setup = [&] { *lock = 0; },
                              .operation =
                                  [&] {
                                    while (lock->exchange(1) != 0)
                                      Wait(*lock, 1);
                                    lock->store(0);
                                  },
                              .check =
                                  [&](const KillPoint&) {
                                    while (lock->exchange(1) != 0)
                                      Wait(*lock, 1);
                                  }},
                             options);
  EXPECT_THAT(report.details,
              Contains(Field(&KillViolation::message,
                             AllOf(HasSubstr("the checker hangs in"),
                                   HasSubstr("syscall")))))
      << report;
}

TEST_P(StepperTest, ManyHangsEndTheRun) {
  KillOptions options = Options();
  options.check_limit = milliseconds(5);
  options.max_hangs = 2;
  Shared<std::atomic<int>> x;
  const KillReport report =
      KillAtEveryInstruction({.name = "hangs always",
                              .operation =
                                  [&] {
                                    for (int i = 0; i < 100; ++i) ++*x;
                                  },
                              .check =
                                  [](const KillPoint&) {
                                    for (;;) poll(nullptr, 0, -1);
                                  }},
                             options);
  EXPECT_EQ(report.points, 2) << report;
  EXPECT_THAT(report.details,
              Contains(Field(&KillViolation::message, HasSubstr("given up"))));
}

TEST_P(StepperTest, ManyViolationsEndTheRun) {
  KillOptions options = Options();
  options.max_violations = 3;
  const KillReport report = KillAtEveryInstruction(
      {.name = "always wrong",
       .operation = [] {},
       .check = [](const KillPoint&) { FAIL() << "as planned"; }},
      options);
  EXPECT_EQ(report.points, 3) << report;
  EXPECT_EQ(report.violations, 4) << report;  // The fourth says so.
}

TEST_P(StepperTest, ACheckerThatCrashesOrThrowsIsReported) {
  Shared<std::atomic<int>> x;
  KillScenario scenario = {.name = "checker crashes",
                           .operation = [&] { *x = 1; },
                           .check = [](const KillPoint&) { raise(SIGKILL); }};
  KillReport report = KillAtEveryInstruction(scenario, Options());
  EXPECT_EQ(report.violations, report.points) << report;
  EXPECT_THAT(Print(report), HasSubstr("KilledBy(SIGKILL)"));
  scenario.check = [](const KillPoint&) {
    throw std::runtime_error("planned");
  };
  report = KillAtEveryInstruction(scenario, Options());
  EXPECT_EQ(report.violations, report.points) << report;
  EXPECT_THAT(Print(report), HasSubstr("the checker threw: planned"));
}

TEST_P(StepperTest, AnOperationThatCrashesIsReported) {
  const KillReport report =
      KillAtEveryInstruction({.name = "operation crashes",
                              .operation = [] { raise(SIGABRT); },
                              .check = [](const KillPoint&) {}},
                             Options());
  EXPECT_GT(report.violations, 0);
  EXPECT_THAT(Print(report), HasSubstr("KilledBy(SIGABRT)"));
}

TEST_P(StepperTest, AnOperationThatBlocksUnexpectedlyIsReported) {
  KillOptions options = Options();
  options.victim_limit = milliseconds(50);
  const KillReport report =
      KillAtEveryInstruction({.name = "operation blocks",
                              .operation = [] { poll(nullptr, 0, -1); },
                              .check = [](const KillPoint&) {}},
                             options);
  EXPECT_GT(report.violations, 0);
}

TEST_P(StepperTest, OnlyTheOperationCounts) {
  Shared<std::atomic<int>> prepared;
  KillScenario scenario = {.name = "prepared",
                           .setup = [&] { *prepared = 0; },
                           .operation = [] { asm volatile("nop"); },
                           .check = [](const KillPoint&) {}};
  const int64_t points = KillAtEveryInstruction(scenario, Options()).points;
  scenario.prepare = [&] {
    for (int i = 0; i < 1000; ++i) ++*prepared;
  };
  scenario.check = [&](const KillPoint&) { EXPECT_EQ(*prepared, 1000); };
  const KillReport report = KillAtEveryInstruction(scenario, Options());
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_EQ(report.points, points);
}

TEST_P(StepperTest, AStrideSkipsInstructionsButNotTheEnd) {
  Shared<std::atomic<int>> ends;
  KillScenario scenario = {
      .name = "stride",
      .operation =
          [] {
            for (int i = 0; i < 50; ++i) asm volatile("nop");
          },
      .check = [&](const KillPoint& point) { *ends += point.finished(); }};
  const int64_t all = KillAtEveryInstruction(scenario, Options()).points;
  EXPECT_EQ(*ends, 1);
  KillOptions options = Options();
  options.stride = 10;
  const KillReport report = KillAtEveryInstruction(scenario, options);
  EXPECT_EQ(*ends, 2);
  EXPECT_GE(report.points, all / 10);
  EXPECT_LE(report.points, all / 10 + 2);
}

// An event whose waiter is woken after the flag was set, and not before: a
// setter that dies between the two leaves the waiter asleep.
struct Event {
  std::atomic<uint32_t> set;
  void Set() {
    set = 1;
    Wake(set, INT32_MAX);
  }
  void Await() {
    while (set == 0) Wait(set, 0);
  }
  // With this it is for the waiter to look again.
  void AwaitInSlices() {
    const timespec slice = {.tv_sec = 0, .tv_nsec = 5'000'000};
    while (set == 0)
      syscall(SYS_futex, &set, FUTEX_WAIT, 0, &slice, nullptr, 0);
  }
};

TEST_P(StepperTest, FindsASleeperThatNobodyWakes) {
  Shared<Event> event;
  milliseconds patience(60);
  KillScenario scenario = {
      .name = "event, lost wake-up",
      .setup = [&] { event->set = 0; },
      .operation = [&] { event->Set(); },
      .sleepers = {[&] { event->Await(); }, [&] { event->Await(); }},
      .check =
          [&](const KillPoint& point) {
            if (event->set == 0) {
              EXPECT_FALSE(point.SleeperReturned(0));
              return;
            }
            const auto until = cohort::Deadline::After(patience);
            EXPECT_TRUE(point.AwaitSleeper(0, until));
            EXPECT_TRUE(point.AwaitSleeper(1, until));
          }};
  const KillReport naive = KillAtEveryInstruction(scenario, Options());
  EXPECT_GT(naive.violations, 0) << naive;
  EXPECT_LT(naive.violations, naive.points) << naive;
  patience = milliseconds(2500);
  scenario.name = "event, slices";
  scenario.sleepers = {[&] { event->AwaitInSlices(); },
                       [&] { event->AwaitInSlices(); }};
  const KillReport report = KillAtEveryInstruction(scenario, Options());
  EXPECT_EQ(report.violations, 0) << report;
}

TEST_P(StepperTest, ASleeperThatDoesNotSleepOrDiesIsReported) {
  KillOptions options = Options();
  options.victim_limit = milliseconds(20);
  options.max_hangs = 1;
  Shared<std::atomic<uint32_t>> word;
  KillScenario scenario = {.name = "sleepless",
                           .setup = [&] { *word = 0; },
                           .operation =
                               [&] {
                                 *word = 1;
                                 Wake(*word, 1);
                               },
                           .sleepers = {[] {
                             for (std::atomic<bool> end = false; !end;) {
                             }
                           }},
                           .check = [](const KillPoint&) {}};
  EXPECT_THAT(Print(KillAtEveryInstruction(scenario, options)),
              HasSubstr("sleeper 0 does not go to sleep"));
  options.victim_limit = std::chrono::seconds(20);
  scenario.sleepers = {[] {}};
  EXPECT_THAT(Print(KillAtEveryInstruction(scenario, options)),
              HasSubstr("but ends: Exited(0)"));
  scenario.name = "sleeper crashes";
  scenario.sleepers = {[&] {
    Wait(*word, 0);
    raise(SIGKILL);
  }};
  scenario.check = [](const KillPoint& point) {
    point.AwaitSleeper(0, cohort::Deadline::After(milliseconds(20)));
  };
  EXPECT_THAT(Print(KillAtEveryInstruction(scenario, Options())),
              HasSubstr("sleeper 0 ends: KilledBy(SIGKILL)"));
}

// A lock whose word is the owner's process id, and that survivors can take from
// a dead owner; it guards a pair that is torn in between.
struct Account {
  std::atomic<int> owner;
  std::atomic<int> a;
  std::atomic<int> b;

  void Lock() {
    const int self = getpid();
    for (;;) {
      int holder = 0;
      if (owner.compare_exchange_strong(holder, self)) return;
      // Here only: the stepper has reaped whoever it has killed.
      if (kill(holder, 0) != 0 && owner.compare_exchange_strong(holder, self)) {
        Repair();
        return;
      }
    }
  }
  void Repair() { b = a.load(); }
  void Unlock() { owner = 0; }
  void Increment() {
    Lock();
    ++a;
    ++b;
    Unlock();
  }
};

TEST_P(StepperTest, TheRecovererIsSteppedToo) {
  Shared<Account> account;
  KillScenario scenario = {
      .name = "account, sound repair",
      .setup = [&] { account->owner = account->a = account->b = 0; },
      .operation = [&] { account->Increment(); },
      .recover = [&] { account->Increment(); },
      .check =
          [&](const KillPoint& point) {
            account->Lock();
            EXPECT_EQ(account->a.load(), account->b.load());
            EXPECT_LE(account->a.load(), 2);
            if (point.finished() && point.recovery_finished()) {
              EXPECT_EQ(account->a.load(), 2);
            }
            account->Unlock();
          }};
  KillOptions options = Options();
  options.first_kills = 8;
  const KillReport report = KillAtEveryInstruction(scenario, options);
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_GT(report.second_order, 8 * 10);
  EXPECT_GT(report.points, report.second_order);
}

TEST_P(StepperTest, FindsARepairThatMustNotBeKilled) {
  // Says that all is well before it is: sound as long as repairers live.
  struct Hasty : Account {
    std::atomic<int> dirty;
    void Put() {
      dirty = 1;
      ++a;
      ++b;
      dirty = 0;
    }
    void Mend() {
      if (dirty.exchange(0) != 0) b = a.load();
    }
  };
  Shared<Hasty> hasty;
  KillScenario scenario = {
      .name = "hasty repair",
      .setup = [&] { hasty->a = hasty->b = hasty->dirty = 0; },
      .operation = [&] { hasty->Put(); },
      .check =
          [&](const KillPoint&) {
            hasty->Mend();
            EXPECT_EQ(hasty->a.load(), hasty->b.load());
          }};
  EXPECT_EQ(KillAtEveryInstruction(scenario, Options()).violations, 0);
  scenario.recover = [&] { hasty->Mend(); };
  const KillReport report = KillAtEveryInstruction(scenario, Options());
  EXPECT_GT(report.violations, 0);
  EXPECT_THAT(report.details[0].first, HasSubstr("recoverer's instruction"));
}

INSTANTIATE_TEST_SUITE_P(Modes, StepperTest,
                         ::testing::Values(StepMode::kBreakpoint,
                                           StepMode::kTrapFlag),
                         [](const auto& test) {
                           return test.param == StepMode::kBreakpoint
                                      ? "Breakpoint"
                                      : "TrapFlag";
                         });

// A token that is handed from one to another: who takes it owns it until he
// gives it back.
struct Token {
  std::atomic<uint32_t> free;
  void Take() {
    for (;;) {
      uint32_t one = 1;
      if (free.compare_exchange_strong(one, 0)) return;
      Wait(free, 0);
    }
  }
  void Give() {
    free = 1;
    Wake(free, 1);
  }
};

TEST(KillStepperTest, AnOperationThatBlocksIsKilledOnBothSidesOfItsSleep) {
  struct State {
    Token token;
    std::atomic<int> before;  // Deaths before the sleep, in it, after it.
    std::atomic<int> asleep;
    std::atomic<int> woken;
    std::atomic<int> returned;
  };
  Shared<State> state;
  const KillReport report = KillAtEveryInstruction(
      {.name = "token, blocked",
       .setup = [&] { state->token.free = 0; },
       .operation = [&] { state->token.Take(); },
       .while_blocked = [&] { state->token.Give(); },
       .check =
           [&](const KillPoint& point) {
             if (point.asleep()) {
               ++state->asleep;
             } else if (point.finished()) {
               ++state->returned;
             } else {
               ++(point.woken() ? state->woken : state->before);
             }
             if (!point.woken()) {
               EXPECT_EQ(state->token.free, 1u);
             }
             if (point.finished()) {
               EXPECT_EQ(state->token.free, 0u);
             }
           }});
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_GT(state->before, 5);
  EXPECT_EQ(state->asleep, 1);
  EXPECT_GT(state->woken, 5);
  EXPECT_EQ(state->returned, 1);
  EXPECT_EQ(report.points,
            state->before + state->asleep + state->woken + state->returned);
}

TEST(KillStepperTest, FindsAWakeUpThatDiesWithTheWoken) {
  // The victim sleeps first and is woken; the one behind it must get the token
  // when the victim dies before it takes it.
  Shared<Token> token;
  const KillReport report = KillAtEveryInstruction(
      {.name = "token, woken and killed",
       .setup = [&] { token->free = 0; },
       .operation = [&] { token->Take(); },
       .while_blocked = [&] { token->Give(); },
       .sleepers_behind = {[&] { token->Take(); }},
       .check =
           [&](const KillPoint& point) {
             if (token->free == 0) return;  // It has been taken.
             EXPECT_TRUE(point.AwaitSleeper(
                 0, cohort::Deadline::After(milliseconds(50))))
                 << "the token is free and its waiter sleeps";
           }});
  EXPECT_GT(report.violations, 0) << report;
  EXPECT_THAT(report.details,
              ElementsAre(Field(&KillViolation::first, HasSubstr("woken"))))
      << report;
}

TEST(KillStepperTest, TheRecovererOfABlockedVictimIsStepped) {
  Shared<Token> token;
  const KillReport report =
      KillAtEveryInstruction({.name = "token, blocked, recovered",
                              .setup = [&] { token->free = 0; },
                              .operation = [&] { token->Take(); },
                              .while_blocked = [&] { token->Give(); },
                              .recover = [&] { token->free = 1; },
                              .check =
                                  [&](const KillPoint& point) {
                                    if (point.recovery_finished()) {
                                      EXPECT_EQ(token->free, 1u);
                                    }
                                  }},
                             {.first_kills = 5});
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_GT(report.second_order, 5 * 3);
}

TEST(KillStepperTest, AnOperationThatShouldBlockAndDoesNotIsReported) {
  Shared<Token> token;
  const KillReport report =
      KillAtEveryInstruction({.name = "does not block",
                              .setup = [&] { token->free = 1; },
                              .operation = [&] { token->Take(); },
                              .while_blocked = [&] { token->Give(); },
                              .check = [](const KillPoint&) {}});
  EXPECT_THAT(Print(report), HasSubstr("does not block, but has"));
}

TEST(KillStepperTest, AnOperationMayForkWhereItIsTraced) {
  Shared<std::atomic<int>> children;
  const KillReport report = KillAtEveryInstruction(
      {.name = "fork",
       .setup = [&] { *children = 0; },
       .operation =
           [&] {
             if (Child::Fork([&] { ++*children; }).Wait() != Exited(0)) abort();
           },
       .check =
           [&](const KillPoint& point) {
             if (point.finished()) {
               EXPECT_EQ(*children, 1);
             }
           }},
      {.stride = 10});
  EXPECT_EQ(report.violations, 0) << report;
  EXPECT_GT(report.points, 10);
}

// As in a container whose seccomp profile does not allow it.
void RefusePtrace() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter = {.len = std::size(program), .filter = program};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

TEST(KillStepperTest, WithoutPtraceTheVictimsStepThemselves) {
  const auto body = [] {
    RefusePtrace();
    Shared<Pair> pair;
    const KillReport torn =
        KillAtEveryInstruction({.name = "torn pair",
                                .setup = [&] { pair->a = pair->b = 0; },
                                .operation = [&] { TearablePut(pair.get()); },
                                .recover = [] {},
                                .check =
                                    [&](const KillPoint& point) {
                                      if (point.recovery_instruction() >= 0)
                                        return;
                                      EXPECT_EQ(pair->a.load(), pair->b.load());
                                    }});
    EXPECT_EQ(torn.violations, 4) << torn;
    EXPECT_GT(torn.second_order, 20);
    Shared<Token> token;
    const KillReport blocked =
        KillAtEveryInstruction({.name = "token, blocked",
                                .setup = [&] { token->free = 0; },
                                .operation = [&] { token->Take(); },
                                .while_blocked = [&] { token->Give(); },
                                .check = [](const KillPoint&) {}});
    EXPECT_EQ(blocked.violations, 0) << blocked;
    EXPECT_GT(blocked.points, 20);
  };
  ::testing::internal::CaptureStdout();
  const End end = Child::Fork(body).Wait();
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(end, Exited(0)) << output;
  EXPECT_THAT(output, HasSubstr("ptrace(2) is refused here: Operation not"));
}

TEST(KillStepperTest, SeveralScenariosMakeOneReport) {
  Shared<Pair> pair;
  const auto scenario = [&](const char* name, std::function<void()> operation) {
    return KillScenario{.name = name,
                        .setup = [&] { pair->a = pair->b = 0; },
                        .operation = std::move(operation),
                        .check =
                            [&](const KillPoint&) {
                              EXPECT_EQ(pair->a.load(), pair->b.load());
                            }};
  };
  const KillScenario scenarios[] = {
      scenario("one", [&] { TearablePut(pair.get()); }),
      scenario("two", [&] { TearablePut(pair.get()); })};
  const KillReport report = KillAtEveryInstruction(scenarios);
  EXPECT_EQ(report.variants, 2);
  EXPECT_EQ(report.violations, 8);
  EXPECT_THAT(report.details[1].message, HasSubstr("two: "));
}

TEST(KillStepperTest, PrintsALineForTheCrashTool) {
  ::testing::internal::CaptureStdout();
  const KillReport report = KillAtEveryInstruction(
      {.name = "a b/c", .operation = [] {}, .check = [](const KillPoint&) {}});
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(output,
              HasSubstr("[crash] points=" + std::to_string(report.points) +
                        " variants=1 violations=0 "));
  EXPECT_THAT(output, HasSubstr(" name=a b/c\n"));
}

}  // namespace
}  // namespace cohort_testing
