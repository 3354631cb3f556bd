// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <utility>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/bounded_semaphore.h"
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

constexpr int kWorkers = 6;
constexpr int kPermits = 2;

struct Arena {
  BoundedSemaphore semaphore{kPermits};
  std::atomic<int64_t> rounds = 0;
};

// One round, with a release too many now and then.
void Visit(Arena& arena, int64_t round) {
  if (round % 4 == 0 && arena.semaphore.release().ok()) std::abort();
  if (!arena.semaphore.try_acquire_for(microseconds(2000))) return;
  if (arena.semaphore.value() >= kPermits) std::abort();
  if (!arena.semaphore.release().ok()) std::abort();
  ++arena.rounds;
}

TEST(BoundedSemaphoreStressTest, KillsLoseNoPermitAndAddNone) {
  Shared<Arena> arena(std::in_place);
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        for (int64_t round = 0; !self.Stopping(); ++round) {
          Visit(*arena, round);
        }
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  (void)arena->semaphore.reclaim();
  EXPECT_EQ(arena->semaphore.value(), kPermits);
  EXPECT_GT(arena->rounds, 0);
  std::cout << arena->rounds << " rounds, " << report.kills << " kills\n";
}

// While nobody is killed no sleeper is ever forgotten: without slices it would
// sleep for ever.
TEST(BoundedSemaphoreStressTest, WithoutKillsNobodyIsForgotten) {
  Shared<Arena> arena(std::in_place);
  Shared<std::atomic<bool>> stop;
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      for (int64_t round = 0; !*stop; ++round) {
        if (i == 0) {
          Visit(*arena, round);
          continue;
        }
        arena->semaphore.acquire();
        ++arena->rounds;
        if (!arena->semaphore.release().ok()) return 1;
      }
      return 0;
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(arena->semaphore.value(), kPermits);
}

}  // namespace
}  // namespace cohort
