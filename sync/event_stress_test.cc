// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/event.h"
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
constexpr int kConsumers = 2;

// Producers hand in tickets and set an event; consumers take what is there and
// wait for the event when nothing is. Then a producer waits until its tickets
// are taken, so each step needs a set() that is not lost.
struct Desk {
  Event handed_in;
  Event taken;
  std::array<std::atomic<uint64_t>, kProducers> tickets;
  std::array<std::atomic<uint64_t>, kProducers> used;

  void Take() {
    bool any = false;
    for (int i = 0; i < kProducers; ++i) {
      uint64_t until = tickets[i];
      uint64_t from = used[i];
      while (from < until && !used[i].compare_exchange_weak(from, until)) {
      }
      any = any || from < until;
    }
    if (any) taken.set();
  }

  bool AllTaken() const {
    for (int i = 0; i < kProducers; ++i) {
      if (used[i] != tickets[i]) return false;
    }
    return true;
  }
};

void Produce(Desk& desk, int index, const std::function<bool()>& stopping) {
  // Its predecessor may have died before its set().
  desk.handed_in.set();
  while (!stopping()) {
    const uint64_t ticket = ++desk.tickets[index];
    desk.handed_in.set();
    while (desk.used[index] < ticket) {
      desk.taken.wait();
      desk.taken.clear();
      // Who clears what others wait for passes it on.
      if (desk.used[index] >= ticket) break;
      desk.taken.set();
      sched_yield();
    }
    desk.taken.set();
  }
}

void Consume(Desk& desk, const std::function<bool()>& stopping) {
  while (!stopping() || !desk.AllTaken()) {
    desk.Take();
    desk.handed_in.wait();
    desk.handed_in.clear();
    // Cleared before it looks: what comes after the look is set again.
    desk.Take();
    // The other one may sleep, and time be over.
    if (stopping()) {
      desk.handed_in.set();
      sched_yield();
    }
  }
}

TEST(EventStressTest, KillsLoseNoSet) {
  Shared<Desk> desk;
  std::vector<std::function<void(const Worker&)>> workers;
  for (int i = 0; i < kProducers; ++i) {
    workers.push_back([&, i](const Worker& self) {
      Produce(*desk, i, [&] { return self.Stopping(); });
      desk->handed_in.set();
    });
  }
  for (int i = 0; i < kConsumers; ++i) {
    workers.push_back([&](const Worker& self) {
      // What its predecessor cleared and did not look at.
      desk->handed_in.set();
      Consume(*desk, [&] { return self.Stopping(); });
    });
  }
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_TRUE(desk->AllTaken());
  EXPECT_GT(report.kills, 0);
  uint64_t tickets = 0;
  for (const auto& one : desk->tickets) tickets += one;
  std::cout << tickets << " tickets, " << report.kills << " kills\n";
}

// Many wait for each set(), and none has slices: one that is overlooked hangs.
// The event is cleared while those who were woken late may still be on their
// way out of wait().
TEST(EventStressTest, WithoutKillsNobodyIsOverlooked) {
  constexpr int kWaiters = 4;
  struct Arena {
    std::array<Event, 2> go;  // For rounds of even and of odd number.
    Event all_seen;
    std::atomic<int> seen;
    std::atomic<bool> stop;
    uint64_t rounds;
  };
  Shared<Arena> arena;
  std::vector<Child> children;
  for (int i = 0; i < kWaiters; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      for (uint64_t round = 1;; ++round) {
        // Some sleep, some only spin.
        if (i % 2 == 0) sched_yield();
        arena->go[round % 2].wait();
        if (arena->stop) return;
        if (++arena->seen == kWaiters) arena->all_seen.set();
      }
    }));
  }
  Child leader = Child::Fork([&] {
    os::Slices::TurnOff();
    const Deadline end = Deadline::After(StressSeconds() / 2);
    uint64_t round = 1;
    for (; !end.Passed(); ++round) {
      arena->seen = 0;
      arena->go[round % 2].set();
      if (round % 4 == 0) arena->go[round % 2].set();
      arena->all_seen.wait();
      arena->all_seen.clear();
      arena->go[round % 2].clear();
    }
    arena->rounds = round;
    arena->stop = true;
    arena->go[round % 2].set();
  });
  EXPECT_EQ(leader.Wait(), Exited(0));
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  std::cout << arena->rounds << " rounds\n";
}

}  // namespace
}  // namespace cohort
