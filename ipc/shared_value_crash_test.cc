// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a SharedValue does. The
// survivors must never be given a half-written value as a whole one, must get
// at it again by a repair or a Store(), and are woken without the help of a
// slice.

#include <array>
#include <csignal>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/ipc/shared_value.h"
#include "cohort/os/futex.h"
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

// Wider than any word; whole if all are equal.
using Wide = std::array<int64_t, 8>;

Wide All(int64_t number) {
  Wide wide;
  wide.fill(number);
  return wide;
}

// One element after another, which no compiler may melt into one store.
void Add(Wide& wide, int64_t number) {
  for (int64_t& element : wide) {
    *static_cast<volatile int64_t*>(&element) = element + number;
  }
}

void Mend(Wide& wide) { wide.fill(wide.back()); }

class SharedValueCrashTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(value_, SharedValue<Wide>::Create(All(1)));
  }

  void Reset() {
    new (&value_.mutex()) Mutex;
    value_.raw() = All(1);
  }

  // So that a victim's first lock is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  // A process dies in the middle of a change.
  void Damage() {
    ASSERT_EQ(Child::Fork([&] {
                (void)value_.With([](Wide& wide) {
                  wide.front() = 7;
                  raise(SIGKILL);
                });
              }).Wait(),
              KilledBy(SIGKILL));
  }

  // Returns the value; 0 where it is damaged, and mends that.
  int64_t Look() {
    absl::StatusOr<Wide> seen = value_.Load();
    if (seen.ok()) {
      EXPECT_EQ(*seen, All(seen->front())) << "torn, and nobody was told";
      return seen->front();
    }
    EXPECT_EQ(seen.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(value_.With([](Wide&) {}).code(), absl::StatusCode::kDataLoss)
        << "the damage was forgotten";
    EXPECT_OK(value_.With([](Wide&) {}, Mend));
    return 0;
  }

  // It works, and works twice.
  void CheckUsable() {
    for (int round = 0; round < 2; ++round) {
      ASSERT_OK_AND_ASSIGN(const Wide before, value_.Load());
      EXPECT_EQ(before, All(before.front()));
      EXPECT_OK(value_.With([](Wide& wide) { Add(wide, 1); }));
      ASSERT_OK_AND_ASSIGN(const Wide after, value_.Load());
      EXPECT_EQ(after, All(before.front() + 1));
    }
  }

  void Run(KillScenario scenario, int64_t least, KillOptions options = {}) {
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    scenario.prepare = Warm;
    options.first_kills = 3;  // A recoverer's first lock has 500 instructions.
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, least) << report;
  }

  SharedValue<Wide> value_;
};

TEST_F(SharedValueCrashTest, With) {
  Run({.name = "shared_value/With",
       .operation =
           [&] { (void)value_.With([](Wide& wide) { Add(wide, 1); }); },
       .recover =
           [&] { (void)value_.With([](Wide& wide) { Add(wide, 1); }, Mend); },
       .check =
           [&](const KillPoint& point) {
             const int64_t seen = Look();
             if (point.recovery_instruction() < 0) {
               if (point.finished()) {
                 EXPECT_EQ(seen, 2);
               }
             } else if (point.recovery_finished()) {
               EXPECT_NE(seen, 0);
             }
             CheckUsable();
           }},
      40);
}

TEST_F(SharedValueCrashTest, StoreOfAWideValue) {
  Run({.name = "shared_value/Store",
       .operation = [&] { value_.Store(All(2)); },
       .recover = [&] { value_.Store(All(3)); },
       .check =
           [&](const KillPoint& point) {
             const int64_t seen = Look();
             if (point.recovery_instruction() < 0) {
               if (point.finished()) {
                 EXPECT_EQ(seen, 2);
               }
             } else if (point.recovery_finished()) {
               EXPECT_EQ(seen, 3);
             }
             CheckUsable();
           }},
      40);
}

// A reader that dies may leave doubt, but no change.
TEST_F(SharedValueCrashTest, Load) {
  Run({.name = "shared_value/Load",
       .operation =
           [&] {
             if (!value_.Load().ok()) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint& point) {
             const int64_t seen = Look();
             if (point.finished()) {
               EXPECT_EQ(seen, 1);
             }
             EXPECT_EQ(value_.raw(), All(1));
             CheckUsable();
           }},
      40);
}

// Who is told of damage and dies leaves it to the next.
TEST_F(SharedValueCrashTest, WhoIsToldOfADeath) {
  Run({.name = "shared_value/Load, With; damaged",
       .setup =
           [&] {
             Reset();
             Damage();
           },
       .operation =
           [&] {
             if (value_.Load().ok()) raise(SIGABRT);
             if (value_.With([](Wide&) { raise(SIGABRT); }).ok()) {
               raise(SIGABRT);
             }
           },
       .check =
           [&](const KillPoint&) {
             EXPECT_EQ(Look(), 0) << "the damage was forgotten";
             CheckUsable();
           }},
      100, {.stride = 23});  // Most of them make the message of the status.
}

TEST_F(SharedValueCrashTest, Repair) {
  Run({.name = "shared_value/With and a repair; damaged",
       .setup =
           [&] {
             Reset();
             Damage();
           },
       .operation =
           [&] { (void)value_.With([](Wide& wide) { Add(wide, 4); }, Mend); },
       .recover =
           [&] { (void)value_.With([](Wide& wide) { Add(wide, 1); }, Mend); },
       .check =
           [&](const KillPoint& point) {
             const int64_t seen = Look();
             if (point.finished() && point.recovery_instruction() < 0) {
               EXPECT_EQ(seen, 5);
             }
             CheckUsable();
           }},
      60);
}

TEST_F(SharedValueCrashTest, StoreThatRepairs) {
  Run({.name = "shared_value/Store; damaged",
       .setup =
           [&] {
             Reset();
             Damage();
           },
       .operation = [&] { value_.Store(All(5)); },
       .check =
           [&](const KillPoint& point) {
             const int64_t seen = Look();
             EXPECT_TRUE(seen == 0 || seen == 5) << seen;
             if (point.finished()) {
               EXPECT_EQ(seen, 5);
             }
             CheckUsable();
           }},
      60);
}

// The victim is killed on its way to sleep, asleep, and after it was woken;
// another one sleeps behind it, without slices.
TEST_F(SharedValueCrashTest, WokenWaiter) {
  Run({.name = "shared_value/With, woken, one behind",
       .setup =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
             Reset();
             value_.mutex().lock();
           },
       .operation =
           [&] { (void)value_.With([](Wide& wide) { Add(wide, 1); }); },
       .while_blocked =
           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { value_.mutex().unlock(); },
       .sleepers_behind = {[&] {
         os::Slices::TurnOff();
         (void)value_.With([](Wide& wide) { Add(wide, 1); }, Mend);
       }},
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             Look();
             CheckUsable();
           }},
      60, {.stride = 17});  // sync/mutex_crash_test.cc takes each.
}

TEST_F(SharedValueCrashTest, CreateAndAttach) {
  Run({.name = "shared_value/create, attach",
       .operation =
           [&] {
             absl::StatusOr<SharedValue<Wide>> made =
                 SharedValue<Wide>::Create(All(3));
             absl::StatusOr<Frame> frame = Encode(value_);
             if (!made.ok() || !frame.ok()) raise(SIGABRT);
             absl::StatusOr<SharedValue<Wide>> attached =
                 Decode<SharedValue<Wide>>(*std::move(frame));
             if (!attached.ok()) raise(SIGABRT);
             value_ = *std::move(attached);
           },
       .check =
           [&](const KillPoint&) {
             EXPECT_EQ(Look(), 1);
             CheckUsable();
           }},
      100, {.stride = 13});
}

}  // namespace
}  // namespace cohort
