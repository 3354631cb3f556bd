// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <algorithm>
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
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/internal/short_lock.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/stress.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::ChaosReport;
using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::KillAtRandom;
using cohort_testing::Shared;
using cohort_testing::StressSeconds;
using cohort_testing::Worker;
using sync_internal::Acquired;
using sync_internal::ShortLock;

constexpr int kWorkers = 6;

// A sum of which every change is entered under the worker that made it. A
// change becomes true by one store, that of `intent`; the rest is redone from
// it by whoever holds the lock after a death.
class Ledger final {
 public:
  void Redo() {
    const uint64_t last = intent_;
    if (last != 0) entries_[last % kWorkers] = last / kWorkers;
    uint64_t total = 0;
    for (auto& entry : entries_) total += entry;
    sum_ = total;
    inside_ = 0;
  }

  void Add(int worker) {
    if (inside_.fetch_add(1) != 0) std::abort();  // Another is in here too.
    const uint64_t entry = entries_[worker] + 1;
    intent_ = entry * kWorkers + static_cast<uint64_t>(worker);
    entries_[worker] = entry;
    sum_ = sum_ + 1;  // Not one step: a second holder would lose it.
    inside_.fetch_sub(1);
  }

  uint64_t entries(int worker) const { return entries_[worker]; }
  uint64_t sum() const { return sum_; }

 private:
  std::atomic<uint64_t> intent_;  // kWorkers * entry + worker.
  std::array<std::atomic<uint64_t>, kWorkers> entries_;
  std::atomic<uint64_t> sum_;
  std::atomic<int> inside_;
};

struct Arena {
  Mutex mu;
  ShortLock short_lock;
  Ledger ledger;
  std::atomic<uint64_t> repairs;
  // How many changes each worker knows to have made.
  std::array<std::atomic<uint64_t>, kWorkers> known;

  void Repair() {
    ledger.Redo();
    ++repairs;
  }
};

bool WithMutex(Arena& arena, Deadline wait, const std::function<void()>& body)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (!arena.mu.try_lock_until(wait)) return false;
  if (arena.mu.poisoned()) {
    arena.Repair();
    arena.mu.clear_poison();
  }
  body();
  arena.mu.unlock();
  return true;
}

bool WithShortLock(Arena& arena, Deadline wait,
                   const std::function<void()>& body) {
  const Acquired acquired = arena.short_lock.Lock(wait);
  if (acquired == Acquired::kTimedOut) return false;
  if (acquired == Acquired::kOwnerDied) arena.Repair();
  body();
  arena.short_lock.Unlock();
  return true;
}

using With = decltype(&WithMutex);

class MutexStressTest : public testing::TestWithParam<With> {};

// Workers change the sum and are killed. A change that a worker knows of is in
// the ledger, once; one that it died in the middle of is there or is not.
TEST_P(MutexStressTest, KillsLoseNoChange) {
  const With with = GetParam();
  Shared<Arena> arena;
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        std::atomic<uint64_t>& known = arena->known[self.index()];
        with(*arena, Deadline::Infinite(), [&] {
          const uint64_t entered = arena->ledger.entries(self.index());
          if (entered != known && entered != known + 1) std::abort();
          known = entered;
        });
        while (!self.Stopping()) {
          // Every other worker is impatient, and tries again.
          const Deadline wait =
              self.index() % 2 == 0
                  ? Deadline::Infinite()
                  : Deadline::After(std::chrono::microseconds(50));
          with(*arena, wait, [&] {
            arena->ledger.Add(self.index());
            known = known + 1;
          });
        }
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  uint64_t total = 0;
  for (int i = 0; i < kWorkers; ++i) {
    EXPECT_EQ(arena->ledger.entries(i), arena->known[i]) << "worker " << i;
    total += arena->known[i];
  }
  EXPECT_EQ(arena->ledger.sum(), total);
  EXPECT_GT(report.kills, 0);
  EXPECT_GT(arena->repairs, 0u) << "no kill hit a holder";
  std::cout << total << " changes, " << report.kills << " kills, "
            << arena->repairs << " of them of a holder\n";
}

// Nobody is killed, and no sleep is cut: a wake-up that is lost is a hang.
TEST_P(MutexStressTest, WithoutKillsNobodyIsForgotten) {
  const With with = GetParam();
  Shared<Arena> arena;
  Shared<std::atomic<bool>> stop;
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      while (!*stop) {
        const Deadline wait =
            i % 2 == 0 ? Deadline::Infinite()
                       : Deadline::After(std::chrono::microseconds(50));
        with(*arena, wait, [&] {
          arena->ledger.Add(i);
          ++arena->known[i];
          // Now and then the others have to go to sleep.
          if (arena->known[i] % 64 == 0) sched_yield();
        });
      }
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  uint64_t total = 0;
  for (int i = 0; i < kWorkers; ++i) total += arena->known[i];
  EXPECT_EQ(arena->ledger.sum(), total);
  EXPECT_EQ(arena->repairs, 0u);
}

INSTANTIATE_TEST_SUITE_P(Both, MutexStressTest,
                         testing::Values(&WithMutex, &WithShortLock),
                         [](const auto& info) {
                           return info.param == &WithMutex ? "Mutex"
                                                           : "ShortLock";
                         });

// Many more processes than processors: everybody gets his turns. The longest
// wait is printed, not judged; docs/design/mutex.md has figures.
TEST(MutexCrowdTest, ManyProcessesOnFewProcessors) {
  constexpr int kProcesses = 64;
  constexpr int kRounds = 300;
  using Clock = std::chrono::steady_clock;
  struct Crowd {
    Mutex mu;
    Gate start;
    int64_t sections ABSL_GUARDED_BY(mu) = 0;
    std::array<std::atomic<int64_t>, kProcesses> longest_ns;
  };
  Shared<Crowd> crowd;
  std::vector<Child> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(Child::Fork([&, i] {
      Clock::duration longest = {};
      crowd->start.Pass();
      for (int round = 0; round < kRounds; ++round) {
        const Clock::time_point begin = Clock::now();
        MutexLock lock(crowd->mu);
        longest = std::max(longest, Clock::now() - begin);
        ++crowd->sections;
        if (round % 8 == 0) sched_yield();  // Holding it.
      }
      crowd->longest_ns[i] = std::chrono::nanoseconds(longest).count();
    }));
  }
  crowd->start.Open();
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  {
    MutexLock lock(crowd->mu);
    EXPECT_EQ(crowd->sections, int64_t{kProcesses} * kRounds);
  }
  int64_t longest = 0;
  for (auto& wait : crowd->longest_ns) longest = std::max(longest, wait.load());
  std::cout << kProcesses << " processes, longest wait " << longest / 1'000'000
            << " ms\n";
}

}  // namespace
}  // namespace cohort
