// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iostream>
#include <utility>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/counting_semaphore.h"
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

constexpr int kGivers = 3;
constexpr int kTakers = 3;
constexpr int kWorkers = kGivers + kTakers;

// What a worker has set out to do and what it has seen done, in permits. Where
// it dies in between, nobody knows which it was.
struct Account {
  std::atomic<int64_t> begun;
  std::atomic<int64_t> done;
  std::atomic<int64_t> doubtful;

  // What a worker that took over from a dead one does first.
  void Inherit() {
    const int64_t torn = begun - done;
    done = begun.load();  // First: a death here makes less doubtful, not more.
    doubtful += torn;
  }
};

struct Arena {
  CountingSemaphore semaphore;
  std::array<Account, kWorkers> accounts;
};

// Signals from givers to takers. Each permit is taken once at most, and at the
// end there are as many as were not taken, but for those in the hands of the
// dead.
TEST(CountingSemaphoreStressTest, KillsLoseNoPermit) {
  Shared<Arena> arena;
  CountingSemaphore& semaphore = arena->semaphore;
  std::vector<std::function<void(const Worker&)>> workers;
  for (int i = 0; i < kGivers; ++i) {
    workers.push_back([&](const Worker& self) {
      Account& account = arena->accounts[self.index()];
      account.Inherit();
      while (!self.Stopping()) {
        const int64_t n = 1 + self.index() % 2;
        account.begun += n;
        semaphore.release(n);
        account.done += n;
        while (semaphore.value() > 100 && !self.Stopping()) sched_yield();
      }
    });
  }
  for (int i = 0; i < kTakers; ++i) {
    workers.push_back([&](const Worker& self) {
      Account& account = arena->accounts[self.index()];
      account.Inherit();
      while (!self.Stopping()) {
        ++account.begun;
        if (semaphore.try_acquire_for(microseconds(500))) {
          ++account.done;
        } else {
          --account.begun;
        }
      }
    });
  }
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  int64_t given = 0, taken = 0, doubtful = 0;
  for (int i = 0; i < kWorkers; ++i) {
    Account& account = arena->accounts[i];
    account.Inherit();
    (i < kGivers ? given : taken) += account.done;
    doubtful += account.doubtful;
  }
  EXPECT_GE(semaphore.value(), given - taken - doubtful);
  EXPECT_LE(semaphore.value(), given - taken + doubtful);
  EXPECT_GT(report.kills, 0);
  EXPECT_GT(taken, 0);
  EXPECT_LE(doubtful, 2 * report.kills);
  std::cout << taken << " permits taken, " << report.kills << " kills, "
            << doubtful << " permits in the hands of the dead\n";
}

// While nobody is killed no sleeper is ever forgotten: without slices it would
// sleep for ever.
TEST(CountingSemaphoreStressTest, WithoutKillsNobodyIsForgotten) {
  constexpr ptrdiff_t kPermits = 2;
  struct Crowd {
    CountingSemaphore semaphore{kPermits};
    std::atomic<bool> stop = false;
    std::atomic<int> inside = 0;
    std::atomic<int64_t> rounds = 0;
  };
  Shared<Crowd> crowd(std::in_place);
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      for (int64_t round = 1; !crowd->stop; ++round) {
        if (i % 3 == 2) {
          if (!crowd->semaphore.try_acquire_for(microseconds(50))) continue;
        } else {
          crowd->semaphore.acquire();
        }
        if (++crowd->inside > kPermits) return 1;
        // Now and then the others have to go to sleep.
        if (round % 32 == 0) sched_yield();
        ++crowd->rounds;
        --crowd->inside;
        crowd->semaphore.release();
      }
      return 0;
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  crowd->stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(crowd->semaphore.value(), kPermits);
  std::cout << crowd->rounds << " rounds\n";
}

// Several permits in one release, and takers that come and go by the clock.
TEST(CountingSemaphoreStressTest, WithoutKillsEveryPermitIsTaken) {
  struct Stream {
    CountingSemaphore semaphore;
    CountingSemaphore taken;
  };
  Shared<Stream> stream;
  std::vector<Child> takers;
  Shared<std::atomic<bool>> over;
  for (int i = 0; i < kTakers; ++i) {
    takers.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      for (;;) {
        if (i == 0) {
          if (!stream->semaphore.try_acquire_for(microseconds(50))) {
            if (*over) return 0;
            continue;
          }
        } else {
          stream->semaphore.acquire();
        }
        if (*over) return 0;
        stream->taken.release();
      }
    }));
  }
  Child giver = Child::Fork([&] {
    os::Slices::TurnOff();
    const Deadline end = Deadline::After(StressSeconds() / 2);
    for (int round = 0; !end.Passed(); ++round) {
      const int n = 1 + round % 5;
      stream->semaphore.release(n);
      for (int i = 0; i < n; ++i) stream->taken.acquire();
    }
    *over = true;
    stream->semaphore.release(kTakers);
  });
  EXPECT_EQ(giver.Wait(), Exited(0));
  for (Child& taker : takers) EXPECT_EQ(taker.Wait(), Exited(0));
}

}  // namespace
}  // namespace cohort
