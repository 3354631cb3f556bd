// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <utility>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/process_identity.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/semaphore.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/stress.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::ChaosReport;
using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::KillAtRandom;
using cohort_testing::Shared;
using cohort_testing::StressSeconds;
using cohort_testing::Worker;
using std::chrono::microseconds;

constexpr int kWorkers = 8;
constexpr int kPermits = 4;

template <typename AnySemaphore>
struct Arena {
  AnySemaphore semaphore{kPermits};
  // Two bits for each worker: one for each permit that it has in use.
  std::atomic<uint32_t> inside = 0;
  // Who each worker is; 0 as long as the bits of its predecessor may be set.
  std::array<std::atomic<uint64_t>, kWorkers> who = {};
  std::atomic<int64_t> rounds = 0;
};

int InUse(uint32_t inside, const std::array<uint64_t, kWorkers>& who) {
  if (__builtin_popcount(inside) <= kPermits) return 0;
  for (int i = 0; i < kWorkers; ++i) {
    if (os::ProcessIdentity::FromBits(who[i]).CheckLiveness() !=
        os::Liveness::kAlive) {
      inside &= ~(3u << (2 * i));
    }
  }
  return __builtin_popcount(inside);
}

template <typename AnySemaphore>
class SemaphoreStressTest : public testing::Test {};

// With 2 slots for 4 permits, the table is what many wait for.
using Semaphores = testing::Types<Semaphore, BasicSemaphore<2>>;
TYPED_TEST_SUITE(SemaphoreStressTest, Semaphores);

// Workers acquire and release, and are killed. No more permits are ever in use
// than there are, and when all have ended, all permits are free.
TYPED_TEST(SemaphoreStressTest, KillsLoseNoPermitAndAddNone) {
  using Book = Arena<TypeParam>;
  Shared<Book> arena(std::in_place);
  TypeParam& semaphore = arena->semaphore;
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        const int me = self.index();
        arena->who[me] = 0;
        arena->inside.fetch_and(~(3u << (2 * me)));
        arena->who[me] = os::ProcessIdentity::Self().bits();
        if (semaphore.held() != 0) std::abort();  // Not from its predecessor.
        for (int64_t round = 0; !self.Stopping(); ++round) {
          int held = 0;
          const int wanted = 1 + static_cast<int>(round % 2);
          while (held < wanted) {
            // Who wants a second one gives up soon: all could wait for it.
            const microseconds patience(held == 0 && me % 2 == 0 ? 5000 : 50);
            if (!semaphore.try_acquire_for(patience)) break;
            // The bits of one moment, and who set them: a bit is true if its
            // process was there before and is alive after.
            std::array<uint64_t, kWorkers> who;
            for (int i = 0; i < kWorkers; ++i) who[i] = arena->who[i];
            const uint32_t mine = 1u << (2 * me + held);
            const uint32_t inside = arena->inside.fetch_or(mine) | mine;
            if (InUse(inside, who) > kPermits) std::abort();
            ++held;
          }
          if (semaphore.held() != held) std::abort();
          if (round % 16 == 0) sched_yield();
          if (held == 0) continue;
          arena->inside.fetch_and(~(3u << (2 * me)));
          semaphore.release(held);
          ++arena->rounds;
        }
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  (void)semaphore.reclaim();
  EXPECT_EQ(semaphore.value(), kPermits);
  EXPECT_EQ(semaphore.reclaim(), 0);
  std::cout << arena->rounds << " rounds, " << report.kills << " kills\n";
}

// While nobody is killed no sleeper is ever forgotten: without slices it would
// sleep for ever.
TYPED_TEST(SemaphoreStressTest, WithoutKillsNobodyIsForgotten) {
  Shared<Arena<TypeParam>> arena(std::in_place);
  Shared<std::atomic<bool>> stop;
  Shared<std::atomic<int>> inside;
  TypeParam& semaphore = arena->semaphore;
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      for (int64_t round = 1; !*stop; ++round) {
        if (i % 3 == 2) {
          if (!semaphore.try_acquire_for(microseconds(50))) continue;
        } else {
          semaphore.acquire();
        }
        if (++*inside > kPermits) return 1;
        // Now and then the others have to go to sleep.
        if (round % 16 == 0) sched_yield();
        ++arena->rounds;
        --*inside;
        semaphore.release();
      }
      return sync_internal::Rescues() == 0 ? 0 : 2;
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(semaphore.value(), kPermits);
  EXPECT_EQ(semaphore.reclaim(), 0);
  std::cout << arena->rounds << " rounds\n";
}

// A crowd on few processors: each gets its turns, and sleeps meanwhile.
TEST(SemaphoreCrowdTest, SixtyFourProcesses) {
  constexpr int kCrowd = 64;
  struct Crowd {
    Semaphore semaphore{kPermits};
    std::atomic<bool> stop = false;
    std::array<std::atomic<int64_t>, kCrowd> rounds = {};
    std::array<std::atomic<int64_t>, kCrowd> longest = {};
  };
  Shared<Crowd> crowd(std::in_place);
  std::vector<Child> children;
  for (int i = 0; i < kCrowd; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      while (!crowd->stop) {
        const int64_t begin = os::NowNanoseconds();
        SemaphoreLock lock(crowd->semaphore);
        const int64_t waited = os::NowNanoseconds() - begin;
        crowd->longest[i] = std::max(crowd->longest[i].load(), waited);
        ++crowd->rounds[i];
        sched_yield();
      }
    }));
  }
  const Deadline end = Deadline::After(StressSeconds());
  while (!end.Passed()) sched_yield();
  crowd->stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(crowd->semaphore.value(), kPermits);
  int64_t rounds = 0, longest = 0, fewest = INT64_MAX;
  for (int i = 0; i < kCrowd; ++i) {
    rounds += crowd->rounds[i];
    fewest = std::min(fewest, crowd->rounds[i].load());
    longest = std::max(longest, crowd->longest[i].load());
  }
  std::cout << kCrowd << " processes: " << rounds
            << " rounds, the least of one " << fewest << ", longest wait "
            << longest / 1'000'000 << " ms\n";
  EXPECT_GT(fewest, 0);
}

}  // namespace
}  // namespace cohort
