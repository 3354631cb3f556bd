// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/once.h"
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

constexpr int kWorkers = 5;

// One thing to be made once. Half of it is made at the beginning of the
// function, half at its end.
struct Thing {
  Once once;
  std::atomic<int> inside;
  std::atomic<int> begun;
  std::atomic<int> left;
  std::atomic<int> right;

  void Make(bool again) {
    // A runner that died is inside for ever, so after a death all is new.
    if (again) inside = 0;
    if (inside.fetch_add(1) != 0) std::abort();  // Two at a time.
    // Told without need it may be: some die before they have done anything.
    if (begun != 0 && !again) std::abort();
    if (right != 0 && !again) std::abort();  // It had come to its end.
    begun = 1;
    left = 1;
    for (int i = 0; i < 8; ++i) sched_yield();
    right = 1;
    inside = 0;
  }

  bool Whole() const { return left == 1 && right == 1; }
};

struct Arena {
  static constexpr int kThings = 200'000;
  std::atomic<int> told;
  std::array<Thing, kThings> things;
};

// Workers go through a long row of things and make whichever is not yet made.
// Whatever any of them returns from is whole.
TEST(OnceStressTest, KillsLeaveNothingHalfMade) {
  Shared<Arena> arena;
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        for (Thing& thing : arena->things) {
          if (self.Stopping()) return;
          thing.once.call([&](bool again) {
            if (again) ++arena->told;
            thing.Make(again);
          });
          if (!thing.Whole()) std::abort();
        }
        while (!self.Stopping()) sched_yield();
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  EXPECT_GT(arena->told, 0) << "no kill hit a runner";
  int made = 0;
  for (Thing& thing : arena->things) {
    if (!thing.once.done()) break;
    ASSERT_TRUE(thing.Whole());
    ++made;
  }
  std::cout << made << " made, " << report.kills << " kills, " << arena->told
            << " times made again\n";
}

// A waiter that is forgotten would never return.
TEST(OnceStressTest, WithoutKillsNobodyIsForgotten) {
  Shared<Arena> arena;
  Shared<std::atomic<bool>> stop;
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      for (Thing& thing : arena->things) {
        if (*stop) break;
        thing.once.call([&](bool again) {
          if (again) std::abort();
          thing.Make(again);
        });
        if (!thing.Whole()) std::abort();
      }
      return sync_internal::Rescues() == 0 ? 0 : 1;
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_TRUE(arena->things[0].once.done());
}

}  // namespace
}  // namespace cohort
