// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/latch.h"

#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
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

static_assert(std::is_trivially_destructible_v<Latch>);
static_assert(std::is_standard_layout_v<Latch>);
static_assert(!std::is_copy_constructible_v<Latch>);
static_assert(!std::is_copy_assignable_v<Latch>);

TEST(LatchTest, AllZeroBytesAreOpen) {
  Shared<Latch> latch;
  EXPECT_TRUE(latch->try_wait());
  latch->wait();
  EXPECT_TRUE(latch->wait_for(milliseconds(0)));
}

TEST(LatchTest, IsAConstant) {
  static constinit Latch latch(2);
  EXPECT_FALSE(latch.try_wait());
  latch.count_down(2);
  EXPECT_TRUE(latch.try_wait());
}

TEST(LatchTest, OpensAtZero) {
  Shared<Latch> latch(std::in_place, 3);
  latch->count_down();
  EXPECT_FALSE(latch->try_wait());
  latch->count_down(0);
  EXPECT_FALSE(latch->try_wait());
  latch->count_down(2);
  EXPECT_TRUE(latch->try_wait());
  latch->count_down(0);
  EXPECT_TRUE(latch->try_wait());
}

TEST(LatchTest, CountsAsFarAsPromised) {
  Shared<Latch> latch(std::in_place, Latch::max());
  latch->count_down();
  EXPECT_FALSE(latch->try_wait());
  latch->count_down(Latch::max() - 1);
  EXPECT_TRUE(latch->try_wait());
}

TEST(LatchTest, CountsAreOfAllProcesses) {
  constexpr int kCounts = 300'000;
  Shared<Latch> latch(std::in_place, 2 * kCounts + 1);
  Shared<Latch> both(std::in_place, 2);
  auto count = [&] {
    both->arrive_and_wait();  // Else one is done before the other begins.
    for (int i = 0; i < kCounts; ++i) latch->count_down();
  };
  Child child = Child::Fork(count);
  count();
  ASSERT_EQ(child.Wait(), Exited(0));
  EXPECT_FALSE(latch->try_wait());
  latch->count_down();
  EXPECT_TRUE(latch->try_wait());
}

// The sleepers do without slices: the wake-up has to be a real one.
TEST(LatchTest, WakesAllSleepers) {
  Shared<Latch> latch(std::in_place, 2);
  std::vector<Child> sleepers;
  for (int i = 0; i < 4; ++i) {
    sleepers.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      if (i % 2 == 0) {
        latch->wait();
        return 0;
      }
      return latch->wait_for(std::chrono::hours(1)) ? 0 : 1;
    }));
    ASSERT_TRUE(sleepers.back().AwaitAsleepInFutex());
  }
  // The first count changes the word and may not lose the sleepers' mark.
  latch->count_down();
  for (Child& sleeper : sleepers) ASSERT_TRUE(sleeper.Running());
  latch->count_down();
  for (Child& sleeper : sleepers) EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(LatchTest, WhoArrivesWaitsForTheOthers) {
  struct Arena {
    Latch latch{3};
    int written[3];
  };
  Shared<Arena> arena(std::in_place);
  auto arrive = [&](int self) {
    arena->written[self] = 1;
    arena->latch.arrive_and_wait();
    return 3 - arena->written[0] - arena->written[1] - arena->written[2];
  };
  Child first = Child::Fork([&] { return arrive(0); });
  Child second = Child::Fork([&] { return arrive(1); });
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  EXPECT_EQ(arrive(2), 0);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
}

TEST(LatchTest, WorksBetweenThreads) {
  Latch latch(4);
  int64_t written[4] = {};
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int self = 0; self < 4; ++self) {
    threads.emplace_back([&, self] {
      written[self] = 1;
      latch.arrive_and_wait();
      for (int64_t value : written) wrong += value == 1 ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(LatchTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Latch> latch(std::in_place, 1);
  // The same page a second time.
  void* twin = mremap(latch.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  auto* alias = static_cast<Latch*>(twin);
  Child sleeper = Child::Fork([&] {
    os::Slices::TurnOff();
    alias->wait();
  });
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  latch->count_down();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
  munmap(twin, 4096);
}

TEST(LatchTest, TimesOut) {
  Shared<Latch> latch(std::in_place, 1);
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(latch->wait_until(deadline));
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(latch->wait_for(absl::Milliseconds(1)));
  EXPECT_FALSE(latch->wait_for(absl::ZeroDuration()));
  EXPECT_FALSE(latch->wait_for(-absl::InfiniteDuration()));
  EXPECT_FALSE(latch->wait_for(milliseconds(-1)));
  // Who gave up has changed nothing.
  latch->count_down();
  EXPECT_TRUE(latch->wait_for(absl::ZeroDuration()));
  EXPECT_TRUE(latch->wait_until(Deadline::Now()));
}

TEST(LatchTest, AHandlerDoesNotEndTheWait) {
  Shared<Latch> latch(std::in_place, 1);
  Shared<std::atomic<int>> handled;
  Shared<Gate> ready;
  static std::atomic<int>* count;
  count = handled.get();
  Child waiter = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++*count; };
    sigaction(SIGUSR1, &action, nullptr);
    ready->Open();
    latch->wait();
    return *handled == 3 ? 0 : 1;
  });
  ready->Pass();
  for (int signals = 1; signals <= 3; ++signals) {
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    waiter.Kill(SIGUSR1);
    while (*handled < signals) sched_yield();
  }
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  latch->count_down();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

// A process that is stopped in its wait is in nobody's way.
TEST(LatchTest, AStoppedWaiterDelaysNobody) {
  Shared<Latch> latch(std::in_place, 1);
  auto wait = [&] {
    os::Slices::TurnOff();
    latch->wait();
  };
  Child stopped = Child::Fork(wait);
  Child other = Child::Fork(wait);
  ASSERT_TRUE(stopped.AwaitAsleepInFutex());
  ASSERT_TRUE(other.AwaitAsleepInFutex());
  stopped.Stop();
  latch->count_down();
  EXPECT_EQ(other.Wait(), Exited(0));
  EXPECT_TRUE(stopped.Running());
  stopped.Continue();
  EXPECT_EQ(stopped.Wait(), Exited(0));
}

// Death.

TEST(LatchCrashTest, WhatTheDeadHaveCountedStays) {
  Shared<Latch> latch(std::in_place, 2);
  Child counter = Child::Fork([&] {
    latch->count_down();
    return raise(SIGKILL);
  });
  ASSERT_EQ(counter.Wait(), KilledBy(SIGKILL));
  latch->count_down();
  EXPECT_TRUE(latch->try_wait());
}

TEST(LatchCrashTest, WhoDiesBeforeItCountsIsMissed) {
  Shared<Latch> latch(std::in_place, 1);
  ASSERT_EQ(Child::Fork([] { return raise(SIGKILL); }).Wait(),
            KilledBy(SIGKILL));
  EXPECT_FALSE(latch->wait_for(milliseconds(5)));
  latch->count_down();  // Anybody may count in its place.
  EXPECT_TRUE(latch->try_wait());
}

// Misuse.

TEST(LatchDeathTest, CountingBelowZeroIsFatalAndChangesNothing) {
  Shared<Latch> latch(std::in_place, 2);
  EXPECT_DEATH(latch->count_down(3),
               "^cohort: Latch: counted down by more than was left");
  EXPECT_DEATH(latch->arrive_and_wait(Latch::max() + 1),
               "^cohort: Latch: counted down by more than was left");
  EXPECT_DEATH(latch->count_down(-1),
               "^cohort: Latch: counted down by a negative number");
  latch->count_down(2);
  EXPECT_DEATH(latch->count_down(),
               "^cohort: Latch: counted down by more than was left");
  EXPECT_TRUE(latch->try_wait());
}

TEST(LatchDeathTest, ACountThatCannotBeIsFatal) {
  EXPECT_DEATH(Latch(-1), "^cohort: Latch: made with a count");
  EXPECT_DEATH(Latch(Latch::max() + 1), "^cohort: Latch: made with a count");
}

}  // namespace
}  // namespace cohort
