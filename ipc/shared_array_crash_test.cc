// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of what a SharedArray does with its
// elements. The survivors must never be given half-written elements as whole
// ones, and get at them again by a repair or a Store() of all.

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/ipc/shared_array.h"
#include "cohort/os/robust.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KilledBy;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;

// Wider than any word; whole if its halves are equal.
struct Pair {
  int64_t left = 1;
  int64_t right = 1;
  friend bool operator==(const Pair&, const Pair&) = default;
};

constexpr size_t kSize = 4;

void Add(absl::Span<Pair> all, int64_t number) {
  for (Pair& pair : all) {
    *static_cast<volatile int64_t*>(&pair.left) = pair.left + number;
    *static_cast<volatile int64_t*>(&pair.right) = pair.right + number;
  }
}

void Mend(absl::Span<Pair> all) {
  for (Pair& pair : all) pair = all.back() = {all[0].left, all[0].left};
}

class SharedArrayCrashTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(array_, SharedArray<Pair>::Create(kSize));
  }

  void Reset() {
    new (&array_.mutex()) Mutex;
    for (Pair& pair : array_.raw()) pair = Pair();
  }

  // A process dies in the middle of a change.
  void Damage() {
    ASSERT_EQ(Child::Fork([&] {
                (void)array_.With([](absl::Span<Pair> all) {
                  all[1].left = 7;
                  raise(SIGKILL);
                });
              }).Wait(),
              KilledBy(SIGKILL));
  }

  // Whether it is whole; mends it if not. No element may be torn in a whole
  // one; with `alike`, no two may differ either.
  bool Look(bool alike) {
    absl::StatusOr<std::vector<Pair>> seen = array_.Load();
    if (seen.ok()) {
      for (const Pair& pair : *seen) {
        EXPECT_EQ(pair.left, pair.right) << "torn, and nobody was told";
        EXPECT_TRUE(!alike || pair == seen->front()) << "half done";
      }
      return true;
    }
    EXPECT_EQ(seen.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(array_.Load(0).status().code(), absl::StatusCode::kDataLoss);
    EXPECT_OK(array_.With([](absl::Span<Pair>) {}, Mend));
    return false;
  }

  void CheckUsable() {
    for (int round = 0; round < 2; ++round) {
      ASSERT_OK_AND_ASSIGN(const Pair before, array_.Load(3));
      EXPECT_OK(array_.With([](absl::Span<Pair> all) { Add(all, 1); }));
      ASSERT_OK_AND_ASSIGN(const Pair after, array_.Load(3));
      EXPECT_EQ(after.left, before.left + 1);
      EXPECT_EQ(after.right, after.left);
    }
  }

  void Run(KillScenario scenario, int64_t least, KillOptions options = {}) {
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    // So that a victim's first lock is not its thread's first.
    scenario.prepare = [] { (void)os::RobustThread::Self(); };
    options.first_kills = 3;  // A recoverer's first lock has 500 instructions.
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, least) << report;
  }

  SharedArray<Pair> array_;
};

TEST_F(SharedArrayCrashTest, With) {
  Run({.name = "shared_array/With",
       .operation =
           [&] {
             (void)array_.With([](absl::Span<Pair> all) { Add(all, 1); });
           },
       .recover =
           [&] {
             (void)array_.With([](absl::Span<Pair> all) { Add(all, 1); }, Mend);
           },
       .check =
           [&](const KillPoint& point) {
             const bool whole = Look(/*alike=*/true);
             if ((point.finished() && point.recovery_instruction() < 0) ||
                 point.recovery_finished()) {
               EXPECT_TRUE(whole);
             }
             CheckUsable();
           }},
      40);
}

TEST_F(SharedArrayCrashTest, StoreOfAll) {
  const std::vector<Pair> twos(kSize, Pair{.left = 2, .right = 2});
  Run({.name = "shared_array/Store, all",
       .operation = [&] { array_.Store(twos); },
       .recover = [&] { array_.Store(twos); },
       .check =
           [&](const KillPoint& point) {
             const bool whole = Look(/*alike=*/true);
             if ((point.finished() && point.recovery_instruction() < 0) ||
                 point.recovery_finished()) {
               EXPECT_TRUE(whole);
               EXPECT_EQ(array_.raw()[3].right, 2);
             }
             CheckUsable();
           }},
      40);
}

TEST_F(SharedArrayCrashTest, StoreAndLoadOfOne) {
  Run({.name = "shared_array/Store, Load of one",
       .operation =
           [&] {
             if (!array_.Store(1, {.left = 2, .right = 2}).ok()) raise(SIGABRT);
             if (!array_.Load(1).ok()) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint& point) {
             const bool whole = Look(/*alike=*/false);
             if (point.finished()) {
               EXPECT_TRUE(whole);
               EXPECT_EQ(array_.raw()[1].right, 2);
             }
             CheckUsable();
           }},
      60);
}

TEST_F(SharedArrayCrashTest, Repair) {
  Run({.name = "shared_array/With and a repair; damaged",
       .setup =
           [&] {
             Reset();
             Damage();
           },
       .operation =
           [&] {
             (void)array_.With([](absl::Span<Pair> all) { Add(all, 1); }, Mend);
           },
       .recover =
           [&] {
             (void)array_.With([](absl::Span<Pair> all) { Add(all, 1); }, Mend);
           },
       .check =
           [&](const KillPoint& point) {
             const bool whole = Look(/*alike=*/true);
             if (point.finished() && point.recovery_instruction() < 0) {
               EXPECT_TRUE(whole);
             }
             CheckUsable();
           }},
      60);
}

TEST_F(SharedArrayCrashTest, CreateAndAttach) {
  Run({.name = "shared_array/create, attach",
       .operation =
           [&] {
             absl::StatusOr<SharedArray<Pair>> made =
                 SharedArray<Pair>::Create(100);
             absl::StatusOr<Frame> frame = Encode(array_);
             if (!made.ok() || !frame.ok()) raise(SIGABRT);
             absl::StatusOr<SharedArray<Pair>> attached =
                 Decode<SharedArray<Pair>>(*std::move(frame));
             if (!attached.ok()) raise(SIGABRT);
             array_ = *std::move(attached);
           },
       .check =
           [&](const KillPoint&) {
             EXPECT_TRUE(Look(/*alike=*/true));
             CheckUsable();
           }},
      100, {.stride = 13});
}

}  // namespace
}  // namespace cohort
