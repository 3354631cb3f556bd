// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/barrier.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::KilledBy;
using cohort_testing::Shared;
using std::chrono::milliseconds;

static_assert(std::is_trivially_destructible_v<Barrier>);
static_assert(std::is_standard_layout_v<Barrier>);
static_assert(!std::is_copy_constructible_v<Barrier>);
static_assert(!std::is_copy_assignable_v<Barrier>);
static_assert(Barrier::max() == 32);

// What an arrival came to, as an exit status: the index, or one of these.
constexpr int kAborted = 50;
constexpr int kDied = 51;
constexpr int kTimedOut = 52;  // By another party.
constexpr int kReset = 53;
constexpr int kThrew = 54;
constexpr int kMyTimeIsOver = 60;

int Result(const absl::StatusOr<int>& index) {
  if (index.ok()) return *index;
  const std::string message(index.status().message());
  auto says = [&](const char* what) {
    return message.find(what) != std::string::npos;
  };
  if (index.status().code() == absl::StatusCode::kDeadlineExceeded) {
    return kMyTimeIsOver;
  }
  EXPECT_EQ(index.status().code(), absl::StatusCode::kAborted) << message;
  if (says("abort()")) return kAborted;
  if (says("died")) return kDied;
  if (says("time-out")) return kTimedOut;
  if (says("reset during")) return kReset;
  if (says("threw")) return kThrew;
  ADD_FAILURE() << message;
  return 99;
}

// A party that arrives in a process of its own; every wake-up must be real.
Child Party(Barrier& barrier) {
  return Child::Fork([&] {
    os::Slices::TurnOff();
    return Result(barrier.arrive_and_wait());
  });
}

// Likewise, and sleeps already.
Child SleepingParty(Barrier& barrier) {
  Child party = Party(barrier);
  EXPECT_TRUE(party.AwaitAsleepInFutex());
  return party;
}

std::atomic<uint64_t>& StateOf(Barrier& barrier) {
  return *reinterpret_cast<std::atomic<uint64_t>*>(&barrier);
}

TEST(BarrierTest, IsAConstant) {
  static constinit Barrier barrier(3);
  EXPECT_EQ(barrier.parties(), 3);
  EXPECT_EQ(barrier.waiting(), 0);
  EXPECT_FALSE(barrier.broken());
}

TEST(BarrierTest, OnePartyNeverWaits) {
  Shared<Barrier> barrier(std::in_place, 1);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Result(barrier->arrive_and_wait()), 0);
    EXPECT_EQ(Result(barrier->arrive_and_wait_for(milliseconds(-1))), 0);
  }
}

TEST(BarrierTest, GoesOnWhenTheLastHasArrived) {
  Shared<Barrier> barrier(std::in_place, 3);
  Child first = SleepingParty(*barrier);
  EXPECT_EQ(barrier->waiting(), 1);
  Child second = SleepingParty(*barrier);
  EXPECT_EQ(barrier->waiting(), 2);
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 2);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(1));
  EXPECT_EQ(barrier->waiting(), 0);
}

// In each round each number once, and what was written before is seen after.
TEST(BarrierTest, RoundAfterRound) {
  constexpr int kParties = 3;
  constexpr int kRounds = 3'000;
  struct Arena {
    Barrier barrier{kParties};
    int64_t written[kParties];
    std::atomic<int> seen[kRounds];
  };
  Shared<Arena> arena(std::in_place);
  auto work = [&](int self) {
    for (int round = 0; round < kRounds; ++round) {
      arena->written[self] = round;
      const absl::StatusOr<int> index = arena->barrier.arrive_and_wait();
      if (!index.ok()) return 1;
      arena->seen[round] += 1 << *index;
      for (int64_t written : arena->written) {
        if (written != round) return 2;
      }
      if (!arena->barrier.arrive_and_wait().ok()) return 3;
    }
    return 0;
  };
  Child first = Child::Fork([&] { return work(1); });
  Child second = Child::Fork([&] { return work(2); });
  EXPECT_EQ(work(0), 0);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
  for (const std::atomic<int>& seen : arena->seen) ASSERT_EQ(seen, 7);
}

TEST(BarrierTest, WorksBetweenThreads) {
  constexpr int kRounds = 500;
  Barrier barrier(4);
  int64_t written[4] = {};
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int self = 0; self < 4; ++self) {
    threads.emplace_back([&, self] {
      for (int round = 0; round < kRounds; ++round) {
        written[self] = round;
        wrong += barrier.arrive_and_wait().ok() ? 0 : 1;
        for (int64_t value : written) wrong += value == round ? 0 : 1;
        wrong += barrier.arrive_and_wait().ok() ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// As many as the type allows, more of them than processors.
TEST(BarrierTest, HoldsAsManyAsPromised) {
  Shared<BasicBarrier<8>> barrier(std::in_place, 8);
  Shared<std::atomic<int>> seen;
  std::vector<Child> parties;
  for (int i = 0; i < 8; ++i) {
    parties.push_back(Child::Fork([&] {
      for (int round = 0; round < 50; ++round) {
        const absl::StatusOr<int> index = barrier->arrive_and_wait();
        if (!index.ok()) return 1;
        *seen += 1 << *index;
      }
      return 0;
    }));
  }
  for (Child& party : parties) EXPECT_EQ(party.Wait(), Exited(0));
  EXPECT_EQ(*seen, 50 * 255);
}

TEST(BarrierTest, MoreThreadsThanParties) {
  constexpr int kThreads = 7;
  Barrier barrier(2);
  std::atomic<int> index_sum = 0;
  std::atomic<int> through = 0;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (;;) {
        const absl::StatusOr<int> index = barrier.arrive_and_wait();
        if (!index.ok()) {
          wrong += Result(index) == kAborted ? 0 : 1;
          return;
        }
        index_sum += *index;
        if (++through == 4'000) barrier.abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(through, 4'000);
  EXPECT_EQ(2 * index_sum, through);
}

TEST(BarrierTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Barrier> barrier(std::in_place, 2);
  // The same page a second time.
  void* twin = mremap(barrier.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  Child other = SleepingParty(*static_cast<Barrier*>(twin));
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 1);
  EXPECT_EQ(other.Wait(), Exited(0));
  munmap(twin, 4096);
}

// The number of the round goes round, in the state and in the slots.
TEST(BarrierTest, RoundsBeyondTheirNumbers) {
  for (uint64_t round : {0x0fffffffu, 0x7fffffffu}) {
    Shared<Barrier> barrier(std::in_place, 2);
    StateOf(*barrier) = round;
    for (int i = 0; i < 3; ++i) {
      Child other = SleepingParty(*barrier);
      ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
      ASSERT_EQ(other.Wait(), Exited(0));
    }
    Child other = SleepingParty(*barrier);
    barrier->abort();
    EXPECT_EQ(other.Wait(), Exited(kAborted));
    EXPECT_EQ(barrier->parties(), 2);
  }
}

// A stale one could mark a foreign object that is mapped here later.
TEST(BarrierTest, LeavesNothingPending) {
  struct robust_list_head* head = nullptr;
  size_t size = 0;
  ASSERT_EQ(syscall(SYS_get_robust_list, 0, &head, &size), 0);
  Shared<Barrier> barrier(std::in_place, 2);
  auto nothing = [&] {
    return head->list_op_pending == nullptr && head->list.next == &head->list;
  };
  Child first = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 1);
  EXPECT_TRUE(nothing());
  first = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait([] {})), 1);
  EXPECT_TRUE(nothing());
  first = Child::Fork([&] { return Result(barrier->arrive_and_wait()); });
  EXPECT_TRUE(barrier->arrive_and_wait().ok());
  EXPECT_TRUE(nothing());
  EXPECT_EQ(Result(barrier->arrive_and_wait_for(milliseconds(1))),
            kMyTimeIsOver);
  EXPECT_TRUE(nothing());
  EXPECT_EQ(Result(barrier->arrive_and_wait()), kTimedOut);
  EXPECT_TRUE(nothing());
}

// Time limits.

TEST(BarrierTest, ATimeOutBreaksItForAll) {
  Shared<Barrier> barrier(std::in_place, 3);
  Child other = SleepingParty(*barrier);
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_EQ(Result(barrier->arrive_and_wait_until(deadline)), kMyTimeIsOver);
  EXPECT_TRUE(deadline.Passed());
  EXPECT_EQ(other.Wait(), Exited(kTimedOut));
  EXPECT_TRUE(barrier->broken());
  EXPECT_EQ(barrier->waiting(), 0);
  EXPECT_EQ(Result(barrier->arrive_and_wait()), kTimedOut);
  EXPECT_EQ(Result(barrier->arrive_and_wait_for(absl::Hours(1))), kTimedOut);
  barrier->reset();
  EXPECT_FALSE(barrier->broken());
  EXPECT_EQ(Result(barrier->arrive_and_wait_for(absl::Milliseconds(1))),
            kMyTimeIsOver);
}

TEST(BarrierTest, NoTimeIsEnoughForTheLast) {
  Shared<Barrier> barrier(std::in_place, 2);
  for (int i = 0; i < 4; ++i) {
    Child other = SleepingParty(*barrier);
    const absl::StatusOr<int> index =
        i == 0   ? barrier->arrive_and_wait_for(milliseconds(0))
        : i == 1 ? barrier->arrive_and_wait_for(-absl::InfiniteDuration())
        : i == 2 ? barrier->arrive_and_wait_until(Deadline::Now())
                 : barrier->arrive_and_wait_for(absl::ZeroDuration(), [] {});
    EXPECT_EQ(Result(index), 1);
    EXPECT_EQ(other.Wait(), Exited(0));
  }
  EXPECT_EQ(Result(barrier->arrive_and_wait_for(milliseconds(0))),
            kMyTimeIsOver);
  EXPECT_TRUE(barrier->broken());
}

TEST(BarrierTest, AWaitWithATimeLimitIsWoken) {
  Shared<Barrier> barrier(std::in_place, 2);
  Child other = Child::Fork([&] {
    os::Slices::TurnOff();
    return Result(barrier->arrive_and_wait_for(std::chrono::hours(1)));
  });
  ASSERT_TRUE(other.AwaitAsleepInFutex());
  EXPECT_EQ(Result(barrier->arrive_and_wait_for(absl::InfiniteDuration())), 1);
  EXPECT_EQ(other.Wait(), Exited(0));
}

TEST(BarrierTest, AHandlerDoesNotEndTheWait) {
  Shared<Barrier> barrier(std::in_place, 2);
  Shared<std::atomic<int>> handled;
  Shared<Gate> ready;
  static std::atomic<int>* count;
  count = handled.get();
  Child waiter = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++*count; };
    sigaction(SIGUSR1, &action, nullptr);
    ready->Open();
    return Result(barrier->arrive_and_wait());
  });
  ready->Pass();
  for (int signals = 1; signals <= 3; ++signals) {
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    waiter.Kill(SIGUSR1);
    while (*handled < signals) sched_yield();
  }
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 1);
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

// Broken, and whole again.

TEST(BarrierTest, AbortBreaksItForAll) {
  Shared<Barrier> barrier(std::in_place, 3);
  Child first = SleepingParty(*barrier);
  Child second = SleepingParty(*barrier);
  barrier->abort();
  EXPECT_EQ(first.Wait(), Exited(kAborted));
  EXPECT_EQ(second.Wait(), Exited(kAborted));
  EXPECT_TRUE(barrier->broken());
  EXPECT_EQ(Result(barrier->arrive_and_wait()), kAborted);
  EXPECT_EQ(Result(barrier->arrive_and_wait([] { std::abort(); })), kAborted);
  barrier->abort();  // Broken already.
  EXPECT_TRUE(barrier->broken());
}

TEST(BarrierTest, AnEmptyOneCanBeAborted) {
  Shared<Barrier> barrier(std::in_place, 2);
  barrier->abort();
  EXPECT_TRUE(barrier->broken());
  EXPECT_EQ(Result(barrier->arrive_and_wait()), kAborted);
  barrier->reset();
  Child other = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 1);
  EXPECT_EQ(other.Wait(), Exited(0));
}

TEST(BarrierTest, ResetTellsThoseWhoWait) {
  Shared<Barrier> barrier(std::in_place, 3);
  Child first = SleepingParty(*barrier);
  Child second = SleepingParty(*barrier);
  barrier->reset();
  EXPECT_EQ(first.Wait(), Exited(kReset));
  EXPECT_EQ(second.Wait(), Exited(kReset));
  EXPECT_FALSE(barrier->broken());
  EXPECT_EQ(barrier->waiting(), 0);
  barrier->reset();  // Nobody is there.
  first = SleepingParty(*barrier);
  second = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 2);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(1));
}

// One that is stopped in its sleep and comes back many rounds later learns how
// its own round ended, not how the last one did.
TEST(BarrierTest, WhoIsLateLearnsOfItsOwnRound) {
  for (const bool broken : {false, true}) {
    for (int breaks = 0; breaks < 4; ++breaks) {
      Shared<Barrier> barrier(std::in_place, 2);
      Child late = SleepingParty(*barrier);
      late.Stop();
      if (broken) {
        barrier->abort();
        barrier->reset();
      } else {
        ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
      }
      for (int i = 0; i <= breaks; ++i) {
        for (int round = 0; round < 3; ++round) {
          Child other = SleepingParty(*barrier);
          ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
          ASSERT_EQ(other.Wait(), Exited(0));
        }
        if (i == breaks) break;
        Child other = SleepingParty(*barrier);
        barrier->reset();
        ASSERT_EQ(other.Wait(), Exited(kReset));
      }
      EXPECT_TRUE(late.Running());
      late.Continue();
      EXPECT_EQ(late.Wait(), Exited(broken ? kAborted : 0)) << breaks;
    }
  }
}

// The state counts the rounds without a break, and at some time no further.
TEST(BarrierTest, WhoIsLateByVeryManyRoundsToo) {
  Shared<Barrier> barrier(std::in_place, 2);
  Child late = SleepingParty(*barrier);
  late.Stop();
  ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
  StateOf(*barrier) |= ~uint64_t{0} << 46;
  for (int round = 0; round < 3; ++round) {
    Child other = SleepingParty(*barrier);
    ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
    ASSERT_EQ(other.Wait(), Exited(0));
  }
  late.Continue();
  EXPECT_EQ(late.Wait(), Exited(0));
}

// The action.

TEST(BarrierTest, TheActionRunsOnceBeforeAnybodyGoesOn) {
  constexpr int kRounds = 1'000;
  struct Arena {
    Barrier barrier{3};
    Mutex mu;  // The action may lock what it likes.
    std::atomic<int> actions;
  };
  Shared<Arena> arena(std::in_place);
  auto work = [&] {
    for (int round = 1; round <= kRounds; ++round) {
      bool ran = false;
      const absl::StatusOr<int> index = arena->barrier.arrive_and_wait([&] {
        MutexLock lock(arena->mu);
        ran = true;
        ++arena->actions;
      });
      if (!index.ok()) return 1;
      if (ran != (*index == 2)) return 2;
      if (arena->actions != round) return 3;
      if (!arena->barrier.arrive_and_wait().ok()) return 4;
    }
    return 0;
  };
  Child first = Child::Fork(work);
  Child second = Child::Fork(work);
  EXPECT_EQ(work(), 0);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(arena->actions, kRounds);
}

TEST(BarrierTest, AnActionThatThrowsBreaksIt) {
  Shared<Barrier> barrier(std::in_place, 2);
  Child other = SleepingParty(*barrier);
  auto arrive = [&] {
    (void)barrier->arrive_and_wait([] { throw std::runtime_error("no"); });
  };
  EXPECT_THROW(arrive(), std::runtime_error);
  EXPECT_EQ(other.Wait(), Exited(kThrew));
  EXPECT_TRUE(barrier->broken());
  barrier->reset();
  other = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait([] {})), 1);
  EXPECT_EQ(other.Wait(), Exited(0));
}

TEST(BarrierTest, ATimeOutDoesNotWaitForTheAction) {
  Shared<Barrier> barrier(std::in_place, 2);
  Shared<Gate> in_action;
  Shared<Gate> gate;
  Child other = Child::Fork(
      [&] { return Result(barrier->arrive_and_wait_for(milliseconds(100))); });
  ASSERT_TRUE(other.AwaitAsleepInFutex());
  Child runner = Child::Fork([&] {
    return Result(barrier->arrive_and_wait([&] {
      in_action->Open();
      gate->Pass();
    }));
  });
  in_action->Pass();
  EXPECT_EQ(other.Wait(), Exited(kMyTimeIsOver));
  EXPECT_TRUE(barrier->broken());
  // The next round is filled while that action still runs, and its own action
  // waits for the end of it.
  barrier->reset();
  Shared<std::atomic<bool>> ran;
  other = SleepingParty(*barrier);
  Child next = Child::Fork(
      [&] { return Result(barrier->arrive_and_wait([&] { *ran = true; })); });
  ASSERT_TRUE(next.AwaitAsleepInFutex());
  EXPECT_FALSE(*ran);
  gate->Open();
  EXPECT_EQ(runner.Wait(), Exited(kTimedOut));
  EXPECT_EQ(next.Wait(), Exited(1));
  EXPECT_EQ(other.Wait(), Exited(0));
  EXPECT_TRUE(*ran);
}

// So long that the state has forgotten.
TEST(BarrierTest, AnActionOfAnOldRoundLearnsOfItsOwn) {
  Shared<Barrier> barrier(std::in_place, 1);
  EXPECT_EQ(Result(barrier->arrive_and_wait([&] {
              barrier->abort();
              barrier->reset();
              for (int i = 0; i < 3; ++i) {
                Child::Fork([&] {
                  return Result(barrier->arrive_and_wait_for(milliseconds(1)));
                }).Wait();
                barrier->abort();
                barrier->reset();
              }
            })),
            kAborted);
}

TEST(BarrierTest, OneTooManyWaitsForTheNextRound) {
  Shared<Barrier> barrier(std::in_place, 1);
  Shared<Gate> in_action;
  Shared<Gate> gate;
  Child runner = Child::Fork([&] {
    return Result(barrier->arrive_and_wait([&] {
      in_action->Open();
      gate->Pass();
    }));
  });
  in_action->Pass();
  EXPECT_EQ(barrier->waiting(), 1);
  // Its time-out is no matter of those who have all arrived.
  EXPECT_EQ(Result(barrier->arrive_and_wait_for(milliseconds(5))),
            kMyTimeIsOver);
  EXPECT_FALSE(barrier->broken());
  Child next = SleepingParty(*barrier);
  gate->Open();
  EXPECT_EQ(runner.Wait(), Exited(0));
  EXPECT_EQ(next.Wait(), Exited(0));
}

// Death, and stops.

TEST(BarrierCrashTest, WhoWaitsLearnsOfADeath) {
  Shared<Barrier> barrier(std::in_place, 3);
  Child victim = SleepingParty(*barrier);
  Child survivor =
      Child::Fork([&] { return Result(barrier->arrive_and_wait()); });
  ASSERT_TRUE(survivor.AwaitAsleepInFutex());
  victim.Kill(SIGKILL);
  EXPECT_EQ(survivor.Wait(), Exited(kDied));
  EXPECT_TRUE(barrier->broken());
  EXPECT_EQ(Result(barrier->arrive_and_wait()), kDied);
  barrier->reset();
  std::vector<Child> parties;
  for (int i = 0; i < 2; ++i) parties.push_back(SleepingParty(*barrier));
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 2);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(parties[i].Wait(), Exited(i));
}

TEST(BarrierCrashTest, SoDoesTheLastToArrive) {
  Shared<Barrier> barrier(std::in_place, 2);
  for (const bool with_action : {false, true}) {
    Child victim = SleepingParty(*barrier);
    victim.Kill(SIGKILL);
    ASSERT_EQ(victim.Wait(), KilledBy(SIGKILL));
    EXPECT_EQ(
        Result(with_action ? barrier->arrive_and_wait([] { std::abort(); })
                           : barrier->arrive_and_wait()),
        kDied);
    barrier->reset();
  }
}

TEST(BarrierCrashTest, ADeathAfterTheRoundIsNoMatter) {
  Shared<Barrier> barrier(std::in_place, 2);
  Child late = SleepingParty(*barrier);
  late.Stop();
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 1);
  late.Kill(SIGKILL);
  ASSERT_EQ(late.Wait(), KilledBy(SIGKILL));
  for (int round = 0; round < 3; ++round) {
    Child other = SleepingParty(*barrier);
    ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
    ASSERT_EQ(other.Wait(), Exited(0));
  }
}

TEST(BarrierCrashTest, ManyDeadLeaveRoom) {
  Shared<Barrier> barrier(std::in_place, 2);
  for (int i = 0; i < 40; ++i) {
    Child victim = SleepingParty(*barrier);
    victim.Stop();
    const bool through = i % 2 == 0;
    if (through) {
      ASSERT_EQ(Result(barrier->arrive_and_wait()), 1);
    }
    victim.Kill(SIGKILL);
    ASSERT_EQ(victim.Wait(), KilledBy(SIGKILL));
    if (!through) {
      ASSERT_EQ(Result(barrier->arrive_and_wait()), kDied);
    }
    barrier->reset();
  }
}

TEST(BarrierCrashTest, TheRunnerOfTheActionDies) {
  Shared<Barrier> barrier(std::in_place, 2);
  Shared<Mutex> mu;
  Child survivor =
      Child::Fork([&] { return Result(barrier->arrive_and_wait()); });
  ASSERT_TRUE(survivor.AwaitAsleepInFutex());
  Child runner = Child::Fork([&] {
    return Result(barrier->arrive_and_wait([&] {
      MutexLock lock(*mu);
      raise(SIGKILL);
    }));
  });
  ASSERT_EQ(runner.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(survivor.Wait(), Exited(kDied));
  {
    MutexLock lock(*mu);
    EXPECT_TRUE(lock.poisoned());
  }
  barrier->reset();
  Child other = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait([] {})), 1);
  EXPECT_EQ(other.Wait(), Exited(0));
}

// Nobody waits for it: whoever comes next finds it.
TEST(BarrierCrashTest, TheOnlyPartyDiesInItsAction) {
  Shared<Barrier> barrier(std::in_place, 1);
  Child runner = Child::Fork(
      [&] { return Result(barrier->arrive_and_wait([] { raise(SIGKILL); })); });
  ASSERT_EQ(runner.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(Result(barrier->arrive_and_wait()), kDied);
}

TEST(BarrierCrashTest, AnEndingThreadCountsAsDead) {
  Shared<Barrier> barrier(std::in_place, 2);
  Child survivor =
      Child::Fork([&] { return Result(barrier->arrive_and_wait()); });
  ASSERT_TRUE(survivor.AwaitAsleepInFutex());
  Child runner = Child::Fork([&] {
    std::thread([&] {
      // By the system call: pthread_exit() would unwind, as an exception does.
      (void)barrier->arrive_and_wait([] { syscall(SYS_exit, 0); });
    }).detach();
    pause();
  });
  EXPECT_EQ(survivor.Wait(), Exited(kDied));
}

TEST(BarrierCrashTest, AStoppedPartyCanBeGivenUp) {
  Shared<Barrier> barrier(std::in_place, 3);
  Child stopped = SleepingParty(*barrier);
  stopped.Stop();
  Child impatient = Child::Fork(
      [&] { return Result(barrier->arrive_and_wait_for(milliseconds(20))); });
  EXPECT_EQ(impatient.Wait(), Exited(kMyTimeIsOver));
  barrier->reset();
  std::vector<Child> parties;
  for (int i = 0; i < 2; ++i) parties.push_back(SleepingParty(*barrier));
  EXPECT_EQ(Result(barrier->arrive_and_wait()), 2);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(parties[i].Wait(), Exited(i));
  stopped.Continue();
  EXPECT_EQ(stopped.Wait(), Exited(kTimedOut));
}

TEST(BarrierCrashTest, AForkedChildIsNoParty) {
  Shared<Barrier> barrier(std::in_place, 2);
  // Its death inside the action of its parent is no death of the parent.
  Child other = SleepingParty(*barrier);
  EXPECT_EQ(Result(barrier->arrive_and_wait([] {
              EXPECT_EQ(Child::Fork([] { return raise(SIGKILL); }).Wait(),
                        KilledBy(SIGKILL));
            })),
            1);
  EXPECT_EQ(other.Wait(), Exited(0));
}

// Misuse.

TEST(BarrierDeathTest, ANumberThatCannotBeIsFatal) {
  EXPECT_DEATH(Barrier(0), "^cohort: Barrier: made for no party");
  EXPECT_DEATH(Barrier(-1), "^cohort: Barrier: made for no party");
  EXPECT_DEATH(Barrier(33), "^cohort: Barrier: .*more than its type allows");
}

TEST(BarrierDeathTest, AllZeroBytesAreFatalToUse) {
  Shared<Barrier> barrier;
  EXPECT_EQ(barrier->parties(), 0);
  EXPECT_DEATH((void)barrier->arrive_and_wait(),
               "^cohort: Barrier: these bytes were never made one");
  EXPECT_DEATH((void)barrier->arrive_and_wait([] {}),
               "^cohort: Barrier: these bytes were never made one");
  EXPECT_DEATH(barrier->abort(),
               "^cohort: Barrier: these bytes were never made one");
  EXPECT_DEATH(barrier->reset(),
               "^cohort: Barrier: these bytes were never made one");
}

TEST(BarrierDeathTest, AnActionThatArrivesItselfIsFatal) {
  Shared<Barrier> barrier(std::in_place, 1);
  auto misuse = [&] {
    (void)barrier->arrive_and_wait([&] { (void)barrier->arrive_and_wait(); });
  };
  EXPECT_DEATH(misuse(), "^cohort: Barrier: its action arrives at the barrier");
}

}  // namespace
}  // namespace cohort
