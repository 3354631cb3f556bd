// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/condition_variable.h"
#include "cohort/sync/mutex.h"
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

constexpr int kProducers = 3;
constexpr int kConsumers = 3;
constexpr uint64_t kRoom = 2;

// Items are handed over, each announced to one. Who puts and takes is counted
// by one store each, so a kill tears nothing.
struct Shop {
  Mutex mu;
  ConditionVariable filled;
  ConditionVariable freed;
  std::array<std::atomic<uint64_t>, kProducers> put;
  std::array<std::atomic<uint64_t>, kConsumers> taken;
  std::atomic<bool> closed;
  // Has changed something and perhaps not notified: the successor of a dead one
  // does. No other successor notifies anybody.
  std::array<std::atomic<bool>, kProducers> owes_filled;
  std::array<std::atomic<bool>, kConsumers> owes_freed;
  std::atomic<uint64_t> rescues;

  uint64_t items() const {
    uint64_t count = 0;
    for (const auto& one : put) count += one;
    for (const auto& one : taken) count -= one;
    return count;
  }

  template <typename Condition>
  void Await(ConditionVariable& variable, MutexLock& lock, bool impatient,
             Condition met) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    while (!met() && !closed) {
      if (lock.poisoned()) mu.clear_poison();
      if (impatient) {
        (void)variable.wait_for(lock, std::chrono::microseconds(50));
      } else {
        variable.wait(lock);
      }
    }
  }

  void Put(int me, bool impatient) {
    {
      MutexLock lock(mu);
      Await(freed, lock, impatient, [&] { return items() < kRoom; });
      if (closed) return;
      owes_filled[me] = true;
      ++put[me];
      if (me == 0) filled.notify_one();
    }
    if (me != 0) filled.notify_one();
    owes_filled[me] = false;
  }

  void Take(int me, bool impatient) {
    {
      MutexLock lock(mu);
      Await(filled, lock, impatient, [&] { return items() > 0; });
      if (closed) return;
      owes_freed[me] = true;
      ++taken[me];
    }
    freed.notify_one();
    owes_freed[me] = false;
  }

  void Close() {
    {
      MutexLock lock(mu);
      closed = true;
    }
    filled.notify_all();
    freed.notify_all();
  }
};

TEST(ConditionVariableStressTest, KillsLoseNoNotification) {
  Shared<Shop> shop;
  std::vector<std::function<void(const Worker&)>> workers;
  for (int me = 0; me < kProducers; ++me) {
    workers.push_back([&, me](const Worker& self) {
      if (shop->owes_filled[me]) shop->filled.notify_one();
      while (!self.Stopping() && !shop->closed) shop->Put(me, me == 2);
      shop->rescues += ConditionVariable::Rescues();
    });
  }
  for (int me = 0; me < kConsumers; ++me) {
    workers.push_back([&, me](const Worker& self) {
      if (shop->owes_freed[me]) shop->freed.notify_one();
      while (!self.Stopping() && !shop->closed) shop->Take(me, me == 2);
      shop->rescues += ConditionVariable::Rescues();
    });
  }
  workers.push_back([&](const Worker& self) {
    while (!self.Stopping()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    shop->Close();
  });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  EXPECT_LE(shop->items(), kRoom);
  uint64_t put = 0;
  for (const auto& one : shop->put) put += one;
  EXPECT_GT(put, 0u);
  std::cout << put << " items, " << report.kills << " kills, " << shop->rescues
            << " or more notifications taken over\n";
}

// Without slices: one notification that is lost is a hang.
TEST(ConditionVariableStressTest, WithoutKillsNobodyIsOverlooked) {
  Shared<Shop> shop;
  std::vector<Child> workers;
  const auto work = [&](const std::function<void()>& once) {
    os::Slices::TurnOff();
    for (int i = 0; !shop->closed; ++i) {
      once();
      // Now and then the others have to go to sleep.
      if (i % 64 == 0) sched_yield();
    }
    return ConditionVariable::Rescues() == 0 ? 0 : 1;
  };
  for (int me = 0; me < kProducers; ++me) {
    workers.push_back(
        Child::Fork([&, me] { return work([&] { shop->Put(me, me == 2); }); }));
  }
  for (int me = 0; me < kConsumers; ++me) {
    workers.push_back(Child::Fork(
        [&, me] { return work([&] { shop->Take(me, me == 2); }); }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  shop->Close();
  for (Child& worker : workers) EXPECT_EQ(worker.Wait(), Exited(0));
  EXPECT_LE(shop->items(), kRoom);
  uint64_t put = 0;
  for (const auto& one : shop->put) put += one;
  std::cout << put << " items\n";
}

// All take part in each round, and the last one to come wakes the others; in
// between single ones are notified for nothing.
TEST(ConditionVariableStressTest, WithoutKillsEveryRoundIsComplete) {
  struct Ring {
    Mutex mu;
    ConditionVariable changed;
    int came;
    uint64_t round;
    bool stop;
  };
  constexpr int kMembers = 5;
  Shared<Ring> ring;
  std::vector<Child> members;
  for (int me = 0; me < kMembers; ++me) {
    members.push_back(Child::Fork([&, me] {
      os::Slices::TurnOff();
      MutexLock lock(ring->mu);
      while (!ring->stop) {
        const uint64_t round = ring->round;
        if (++ring->came == kMembers) {
          ring->came = 0;
          ++ring->round;
          ring->changed.notify_all();
        } else {
          if (me == 0) ring->changed.notify_one();
          if (me == 1) ring->changed.notify(2);
          while (ring->round == round && !ring->stop) ring->changed.wait(lock);
        }
      }
      return ConditionVariable::Rescues() == 0 ? 0 : 1;
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 4);
  while (!end.Passed()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  {
    MutexLock lock(ring->mu);
    ring->stop = true;
    ring->changed.notify_all();
  }
  for (Child& member : members) EXPECT_EQ(member.Wait(), Exited(0));
  EXPECT_GT(ring->round, 0u);
  std::cout << ring->round << " rounds\n";
}

}  // namespace
}  // namespace cohort
