// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/barrier.h"
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

constexpr int kParties = 4;
constexpr int kWorkers = 6;
constexpr uint64_t kRounds = 1 << 16;

// What survivors say of a round, in one word: its number, which of the indices
// were given, whether somebody got an error, and whether the action ran. A round
// that went through says so of itself by the index; one that broke has none.
//
// The barrier does not tell which round one was in. The test reads it from the
// state (sync/barrier.cc), before the arrival and after it: where exactly one
// round has ended meanwhile, that is the one.
class Ledger final {
 public:
  static constexpr uint64_t kError = uint64_t{1} << kParties;
  static constexpr uint64_t kAction = uint64_t{1} << (kParties + 1);

  // Ends the program where that contradicts what others have said.
  void Say(uint64_t round, uint64_t what) {
    std::atomic<uint64_t>& entry = entries_[round % kRounds];
    uint64_t seen = entry;
    uint64_t next;
    do {
      uint64_t said = seen >> 32 == round ? seen & 0xffffffff : 0;
      if (seen >> 32 > round) return;  // An echo of long ago.
      if ((said & what) != 0 && what != kError) std::abort();  // Twice.
      said |= what;
      const bool through = (said & (kError - 1)) != 0;
      if (through && (said & kError) != 0) std::abort();
      next = round << 32 | said;
    } while (!entry.compare_exchange_weak(seen, next));
  }

  uint64_t Of(uint64_t round) const {
    const uint64_t entry = entries_[round % kRounds];
    return entry >> 32 == round ? entry & 0xffffffff : 0;
  }

 private:
  std::array<std::atomic<uint64_t>, kRounds> entries_;
};

// The round, and whether the barrier is broken.
struct Moment {
  explicit Moment(Barrier& barrier) {
    const uint64_t state = *reinterpret_cast<std::atomic<uint64_t>*>(&barrier);
    round = state & 0x7fffffff;
    broken = (state >> 45 & 1) != 0;
  }
  uint64_t round;
  bool broken;
};

bool Says(const std::string& message, const char* what) {
  return message.find(what) != std::string::npos;
}

struct Arena {
  Barrier barrier{kParties};
  Ledger ledger;
  std::atomic<int64_t> through;
  std::atomic<int64_t> died;
  std::atomic<int64_t> errors;
  std::atomic<int64_t> known;
};

// More workers than parties arrive and are killed. A round ends alike for all
// that live to tell: no index is given twice, none where somebody else had an
// error, and no action runs twice.
TEST(BarrierStressTest, SurvivorsAgreeOnEachRound) {
  Shared<Arena> arena(std::in_place);
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        while (!self.Stopping()) {
          const Moment before(arena->barrier);
          bool ran = false;
          // Half of them are patient; but those that are left alone at the end
          // have no one to wait for.
          const Deadline wait = Deadline::After(
              std::chrono::milliseconds(self.index() % 2 == 0 ? 500 : 5));
          const absl::StatusOr<int> index =
              self.incarnation() % 2 == 0
                  ? arena->barrier.arrive_and_wait_until(wait,
                                                         [&] { ran = true; })
                  : arena->barrier.arrive_and_wait_until(wait);
          // It was not broken before: so if it was found broken since, that is
          // the end of this very round.
          const bool known = !before.broken &&
                             Moment(arena->barrier).round == before.round + 1;
          Ledger& ledger = arena->ledger;
          if (index.ok()) {
            ++arena->through;
            if (*index < 0 || *index >= kParties) std::abort();
            if (known) ledger.Say(before.round, uint64_t{1} << *index);
          } else {
            ++arena->errors;
            const std::string why(index.status().message());
            if (Says(why, "died")) ++arena->died;
            // One too many learns of no round's end.
            if (known && !Says(why, "the round before")) {
              ledger.Say(before.round, Ledger::kError);
            }
            // Who was told of a reset has nothing to mend.
            if (arena->barrier.broken()) arena->barrier.reset();
          }
          if (known && ran) ledger.Say(before.round, Ledger::kAction);
          arena->known += known ? 1 : 0;
        }
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  EXPECT_GT(arena->through, 0);
  EXPECT_GT(arena->died, 0) << "no death was noticed";
  EXPECT_GT(arena->known, 0);
  std::cout << arena->known << " arrivals in a known round, " << arena->through
            << " through, " << arena->errors << " errors, " << arena->died
            << " for a death, " << report.kills << " kills\n";
  // As good as new.
  arena->barrier.reset();
  std::vector<Child> others;
  for (int i = 1; i < kParties; ++i) {
    others.push_back(Child::Fork(
        [&] { return arena->barrier.arrive_and_wait().ok() ? 0 : 1; }));
  }
  EXPECT_TRUE(arena->barrier.arrive_and_wait().ok());
  for (Child& other : others) EXPECT_EQ(other.Wait(), Exited(0));
}

// Without slices, a wake-up that is lost is a hang. In each round each index is
// given once and the action runs once.
TEST(BarrierStressTest, WithoutKillsNobodyNeedsARescue) {
  struct Rounds {
    Barrier barrier{kParties};
    std::atomic<uint64_t> indices[2];  // Of this round and the next.
    std::atomic<int64_t> actions;
    std::atomic<bool> stop;
    bool last;  // Written by the action.
  };
  Shared<Rounds> rounds(std::in_place);
  std::vector<Child> children;
  for (int self = 0; self < kParties; ++self) {
    children.push_back(Child::Fork([&, self] {
      os::Slices::TurnOff();
      for (int64_t round = 0;; ++round) {
        // Some come late: then the others have to sleep.
        if (round % 64 == self) sched_yield();
        std::atomic<uint64_t>& indices = rounds->indices[round % 2];
        const auto action = [&] {
          ++rounds->actions;
          rounds->last = rounds->stop;
          // All have given the indices of the round before.
          const uint64_t all = rounds->indices[(round + 1) % 2].exchange(0);
          if (all != (round == 0 ? 0 : 0x1111)) std::abort();
        };
        const absl::StatusOr<int> index =
            round % 3 == 0 ? rounds->barrier.arrive_and_wait_for(
                                 std::chrono::hours(1), action)
                           : rounds->barrier.arrive_and_wait(action);
        if (!index.ok()) return 1;
        if (rounds->actions != round + 1) return 2;
        indices += uint64_t{1} << (4 * *index);
        if (rounds->last) return 0;
        // Without an action too.
        if (!rounds->barrier.arrive_and_wait().ok()) return 3;
      }
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  rounds->stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  std::cout << 2 * rounds->actions << " rounds\n";
  EXPECT_GT(rounds->actions, 100);
}

// More threads than parties, no kills and no slices: whoever is there fills the
// round.
TEST(BarrierStressTest, MoreThreadsThanParties) {
  Shared<Barrier> barrier(std::in_place, 2);
  Shared<std::atomic<int64_t>> through;
  std::vector<Child> children;
  for (int self = 0; self < 5; ++self) {
    children.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      while (barrier->arrive_and_wait().ok()) {
        if (++*through % 64 == 0) sched_yield();
      }
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  barrier->abort();
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  std::cout << *through / 2 << " rounds\n";
  EXPECT_EQ(*through % 2, 0);
  EXPECT_GT(*through, 100);
}

}  // namespace
}  // namespace cohort
