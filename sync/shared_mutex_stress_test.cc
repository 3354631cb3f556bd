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
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/shared_mutex.h"
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

// A sum of which every change is entered under the worker that made it. A
// change becomes true by one store, that of `intent`; the rest is redone from
// it by the next writer after a death.
class Ledger final {
 public:
  void Redo() {
    const uint64_t last = intent_;
    if (last != 0) entries_[last % kWorkers] = last / kWorkers;
    uint64_t total = 0;
    for (auto& entry : entries_) total += entry;
    sum_ = total;
    writers_ = 0;
  }

  void Add(int worker) {
    if (writers_.fetch_add(1) != 0) std::abort();  // Another is in here too.
    const uint64_t entry = entries_[worker] + 1;
    intent_ = entry * kWorkers + static_cast<uint64_t>(worker);
    entries_[worker] = entry;
    sum_ = sum_ + 1;  // Not one step: a second writer would lose it.
    writers_.fetch_sub(1);
  }

  // For a reader, who is told where it need not add up.
  void Look() const {
    if (writers_ != 0) std::abort();
    uint64_t total = 0;
    for (const auto& entry : entries_) total += entry;
    if (total != sum_ || writers_ != 0) std::abort();
  }

  uint64_t entries(int worker) const { return entries_[worker]; }
  uint64_t sum() const { return sum_; }

 private:
  std::atomic<uint64_t> intent_;  // kWorkers * entry + worker.
  std::array<std::atomic<uint64_t>, kWorkers> entries_;
  std::atomic<uint64_t> sum_;
  std::atomic<int> writers_;
};

template <int kReaders>
struct Arena {
  BasicSharedMutex<kReaders> mu;
  Ledger ledger;
  std::atomic<uint64_t> repairs;
  std::atomic<uint64_t> warnings;
  std::atomic<uint64_t> looks;
  // How many changes each worker knows to have made.
  std::array<std::atomic<uint64_t>, kWorkers> known;

  bool Write(Deadline wait,
             const std::function<void()>& body) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!mu.try_lock_until(wait)) return false;
    if (mu.poisoned()) {
      ledger.Redo();
      ++repairs;
      mu.clear_poison();
    }
    body();
    mu.unlock();
    return true;
  }

  bool Read(Deadline wait) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!mu.try_lock_shared_until(wait)) return false;
    if (mu.poisoned()) {
      ++warnings;
    } else {
      ledger.Look();
      ++looks;
    }
    mu.unlock_shared();
    return true;
  }
};

// Every other worker is impatient, and tries again.
Deadline PatienceOf(int worker) {
  return worker % 2 == 0 ? Deadline::Infinite()
                         : Deadline::After(std::chrono::microseconds(50));
}

// Workers read, write and are killed. A change that a worker knows of is in the
// ledger, once; one that it died in the middle of is there or is not; readers
// see a whole ledger, or are warned.
template <int kReaders>
void KillsLoseNoChange() {
  Shared<Arena<kReaders>> arena;
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        std::atomic<uint64_t>& known = arena->known[self.index()];
        arena->Write(Deadline::Infinite(), [&] {
          const uint64_t entered = arena->ledger.entries(self.index());
          if (entered != known && entered != known + 1) std::abort();
          known = entered;
        });
        for (int i = 0; !self.Stopping(); ++i) {
          if (i % 4 != 0) {
            arena->Read(PatienceOf(self.index()));
          } else {
            arena->Write(PatienceOf(self.index()), [&] {
              arena->ledger.Add(self.index());
              // A writer that is not running now is more likely to be killed.
              if (i % 64 == 0) sched_yield();
              known = known + 1;
            });
          }
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
  EXPECT_GT(arena->repairs, 0u) << "no kill hit a writer";
  std::cout << total << " changes, " << arena->looks << " looks, "
            << report.kills << " kills, " << arena->repairs
            << " of them of a writer, " << arena->warnings << " warnings\n";
}

TEST(SharedMutexStressTest, KillsLoseNoChange) { KillsLoseNoChange<32>(); }
TEST(SharedMutexStressTest, KillsLoseNoChangeWithFewSlots) {
  KillsLoseNoChange<2>();
}

// Runs `bodies` without slices until half the time of a stress test is over. A
// sleeper that is forgotten then never returns.
void WithoutSlices(const std::vector<std::function<void()>>& bodies) {
  Shared<std::atomic<bool>> stop;
  std::vector<Child> children;
  for (const auto& body : bodies) {
    children.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      while (!*stop) body();
      return sync_internal::Rescues() == 0 ? 0 : 1;
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
}

template <int kReaders>
void NobodyIsForgotten() {
  Shared<Arena<kReaders>> arena;
  std::vector<std::function<void()>> bodies;
  for (int worker = 0; worker < kWorkers; ++worker) {
    bodies.push_back([&, worker, round = 0]() mutable {
      if (++round % 4 != 0) {
        arena->Read(PatienceOf(worker));
        return;
      }
      arena->Write(PatienceOf(worker), [&] {
        arena->ledger.Add(worker);
        ++arena->known[worker];
        // Now and then the others have to go to sleep.
        if (round % 64 == 0) sched_yield();
      });
    });
  }
  WithoutSlices(bodies);
  uint64_t total = 0;
  for (const auto& known : arena->known) total += known;
  EXPECT_EQ(arena->ledger.sum(), total);
  EXPECT_GT(arena->looks, 0u);
  EXPECT_EQ(arena->repairs + arena->warnings, 0u);
}

TEST(SharedMutexStressTest, WithoutKillsNobodyIsForgotten) {
  NobodyIsForgotten<32>();
}
TEST(SharedMutexStressTest, WithoutKillsNobodyIsForgottenWithFewSlots) {
  NobodyIsForgotten<2>();
}

// One of a kind among many of the other, who do nothing but read, or write,
// for a moment each, or for long. It comes in again and again; how long that
// took at most is printed.
struct Crowd {
  int size;
  std::chrono::microseconds section;
};

void Work(std::chrono::microseconds section) {
  const Deadline end = Deadline::After(section);
  while (!end.Passed()) {
  }
}

void OneAmongMany(
    const char* name, Crowd crowd,
    const std::function<void(const std::function<void()>&)>& one,
    const std::function<void(const std::function<void()>&)>& many) {
  struct Waits {
    std::atomic<int64_t> count, sum, longest, others;
  };
  Shared<Waits> waits;
  std::vector<std::function<void()>> bodies;
  bodies.push_back([&] {
    const int64_t asked = os::NowNanoseconds();
    one([&] {
      const int64_t wait = os::NowNanoseconds() - asked;
      ++waits->count;
      waits->sum += wait;
      if (wait > waits->longest) waits->longest = wait;
    });
  });
  for (int i = 0; i < crowd.size; ++i) {
    bodies.push_back([&] {
      many([&] {
        ++waits->others;
        Work(crowd.section);
      });
    });
  }
  WithoutSlices(bodies);
  EXPECT_GT(waits->count, 0);
  EXPECT_GT(waits->others, 0);
  std::cout << name << " " << crowd.size << ", " << crowd.section.count()
            << " us each: came in " << waits->count << " times, they "
            << waits->others << " times; waited " << waits->longest / 1000
            << " us at most, "
            << waits->sum / std::max<int64_t>(waits->count, 1) / 1000
            << " us on average\n";
}

class SharedMutexFairnessTest : public testing::TestWithParam<Crowd> {};

TEST_P(SharedMutexFairnessTest, NeitherKindKeepsTheOtherOut) {
  Shared<SharedMutex> mu;
  auto read = [&](const std::function<void()>& body) {
    SharedMutexReaderLock lock(*mu);
    body();
  };
  auto write = [&](const std::function<void()>& body) {
    SharedMutexLock lock(*mu);
    body();
  };
  OneAmongMany("a writer among readers:", GetParam(), write, read);
  OneAmongMany("a reader among writers:", GetParam(), read, write);
}

INSTANTIATE_TEST_SUITE_P(
    Crowds, SharedMutexFairnessTest,
    testing::Values(Crowd{1, std::chrono::microseconds(300)},
                    Crowd{6, std::chrono::microseconds(0)},
                    Crowd{6, std::chrono::microseconds(300)},
                    Crowd{16, std::chrono::microseconds(0)}),
    [](const auto& info) { return std::to_string(info.index); });

}  // namespace
}  // namespace cohort
