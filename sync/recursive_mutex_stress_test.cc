// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/recursive_mutex.h"
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

constexpr int kWorkers = 6;

// Pairs of numbers, one pair per worker, and their sum. Outside of the lock the
// two of each pair are equal and the sum is theirs.
struct Arena {
  RecursiveMutex mu;
  std::array<std::atomic<uint64_t>, kWorkers> left;
  std::array<std::atomic<uint64_t>, kWorkers> right;
  std::atomic<uint64_t> sum;
  std::atomic<int> inside;
  std::atomic<uint64_t> repairs;
  // How many changes each worker knows to have made.
  std::array<std::atomic<uint64_t>, kWorkers> known;

  void Repair() {
    uint64_t total = 0;
    for (int i = 0; i < kWorkers; ++i) {
      right[i] = left[i].load();
      total += left[i];
    }
    sum = total;
    inside = 0;
    ++repairs;
  }

  // To `depth` more levels of nesting; the innermost makes the change.
  void Add(int worker, int depth) {
    RecursiveMutexLock lock(mu);
    if (depth > 0) return Add(worker, depth - 1);
    if (inside.fetch_add(1) != 0) std::abort();  // Another is in here too.
    left[worker] = left[worker] + 1;
    sum = sum + 1;  // Not one step: a second holder would lose it.
    right[worker] = right[worker] + 1;
    inside.fetch_sub(1);
  }
};

// One change by `worker`, if it gets the lock in time. In the middle of each
// fourth one it lets go of all levels, as a wait does.
bool Change(Arena& arena, int worker,
            Deadline wait) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (!arena.mu.try_lock_until(wait)) return false;
  auto repair = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (arena.mu.depth() != 1) std::abort();
    if (!arena.mu.poisoned()) return;
    arena.Repair();
    arena.mu.clear_poison();
  };
  repair();
  const uint64_t made = arena.left[worker];
  if (made != arena.known[worker] && made != arena.known[worker] + 1) {
    std::abort();
  }
  arena.known[worker] = made;
  if (made % 4 == 0) {
    arena.mu.lock_all(arena.mu.unlock_all());
    repair();
  }
  arena.Add(worker, static_cast<int>(made % 3));
  arena.known[worker] = made + 1;
  arena.mu.unlock();
  return true;
}

Deadline WaitOf(int worker) {  // Every other worker is impatient.
  return worker % 2 == 0 ? Deadline::Infinite()
                         : Deadline::After(std::chrono::microseconds(50));
}

void CheckSums(const Arena& arena) {
  uint64_t total = 0;
  for (int i = 0; i < kWorkers; ++i) {
    EXPECT_EQ(arena.left[i], arena.known[i]) << "worker " << i;
    EXPECT_EQ(arena.left[i], arena.right[i]) << "worker " << i;
    total += arena.left[i];
  }
  EXPECT_EQ(arena.sum, total);
}

TEST(RecursiveMutexStressTest, KillsLoseNoChange) {
  Shared<Arena> arena;
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        Change(*arena, self.index(), Deadline::Infinite());
        while (!self.Stopping()) {
          Change(*arena, self.index(), WaitOf(self.index()));
        }
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  {
    RecursiveMutexLock lock(arena->mu);
    EXPECT_FALSE(arena->mu.poisoned());
  }
  CheckSums(*arena);
  EXPECT_GT(report.kills, 0);
  EXPECT_GT(arena->repairs, 0u) << "no kill hit a holder";
  std::cout << arena->sum << " changes, " << report.kills << " kills, "
            << arena->repairs << " of them of a holder\n";
}

// Nobody is killed, and no sleep is cut: a wake-up that is lost is a hang.
TEST(RecursiveMutexStressTest, WithoutKillsNobodyIsForgotten) {
  Shared<Arena> arena;
  Shared<std::atomic<bool>> stop;
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      while (!*stop) {
        Change(*arena, i, WaitOf(i));
        // Now and then the others have to go to sleep.
        if (arena->known[i] % 64 == 0) {
          RecursiveMutexLock lock(arena->mu);
          sched_yield();
        }
      }
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  CheckSums(*arena);
  EXPECT_EQ(arena->repairs, 0u);
}

}  // namespace
}  // namespace cohort
