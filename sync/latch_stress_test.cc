// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <new>
#include <utility>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/latch.h"
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

constexpr int kCounters = 3;
constexpr int kWaiters = 3;

// Workers count and wait, and are killed. A count that a worker knows of is
// off; of those that it died in the middle of, one for each death may be.
TEST(LatchStressTest, KillsLoseNoCount) {
  struct Arena {
    Latch latch{Latch::max()};
    alignas(64) std::array<std::atomic<int64_t>, kCounters> known;
  };
  Shared<Arena> arena(std::in_place);
  std::vector<std::function<void(const Worker&)>> workers(
      kCounters, [&](const Worker& self) {
        while (!self.Stopping()) {
          arena->latch.count_down();
          ++arena->known[self.index()];
          sched_yield();  // Else an hour would bring it to zero.
        }
      });
  workers.resize(kCounters + kWaiters, [&](const Worker& self) {
    while (!self.Stopping()) {
      if (arena->latch.wait_for(std::chrono::microseconds(100))) std::abort();
    }
  });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  int64_t known = 0;
  for (const std::atomic<int64_t>& count : arena->known) known += count;
  const int64_t left =
      *reinterpret_cast<std::atomic<uint32_t>*>(&arena->latch) & 0x7fffffff;
  EXPECT_LE(left, Latch::max() - known);
  EXPECT_GE(left, Latch::max() - known - report.kills);
  EXPECT_FALSE(arena->latch.try_wait());
  arena->latch.count_down(left);
  EXPECT_TRUE(arena->latch.try_wait());
  std::cout << known << " counts, " << report.kills << " kills\n";
}

// Without slices, a wake-up that is lost is a hang.
TEST(LatchStressTest, WithoutKillsNobodyNeedsARescue) {
  constexpr int kParties = 4;
  constexpr int kLatches = 4;
  struct Arena {
    std::array<Latch, kLatches> latch = {Latch(0), Latch(0), Latch(0),
                                         Latch(0)};
    alignas(64) std::array<std::atomic<int64_t>, kParties> round;
    alignas(64) std::atomic<bool> stop;
    std::array<std::atomic<bool>, kLatches> last;
  };
  Shared<Arena> arena(std::in_place);
  arena->latch[0].~Latch();
  new (&arena->latch[0]) Latch(kParties);
  std::vector<Child> children;
  for (int self = 0; self < kParties; ++self) {
    children.push_back(Child::Fork([&, self] {
      os::Slices::TurnOff();
      for (int64_t round = 0;; ++round) {
        Latch& latch = arena->latch[round % kLatches];
        std::atomic<bool>& last = arena->last[round % kLatches];
        arena->round[self] = round;
        if (self == 0) {
          // Nobody is at the next one, or can come there before this round is
          // over.
          last = arena->stop.load();
          new (&arena->latch[(round + 1) % kLatches]) Latch(kParties);
        }
        // Some come late: then the others have to sleep.
        if (round % 64 == self) sched_yield();
        if (round % 3 == 0) {
          latch.count_down();
          if (!latch.wait_for(std::chrono::hours(1))) return 1;
        } else {
          latch.arrive_and_wait();
        }
        for (const std::atomic<int64_t>& other : arena->round) {
          if (other < round || other > round + 1) return 2;
        }
        if (last) return 0;
      }
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  arena->stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  std::cout << arena->round[0] << " rounds\n";
  EXPECT_GT(arena->round[0], 100);
}

}  // namespace
}  // namespace cohort
