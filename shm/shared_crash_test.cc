// SPDX-License-Identifier: Apache-2.0
//
// Kills a process all along OpenOrCreate(), its constructor included. Whoever
// comes next must get a complete object: that of the living, or a new one.

#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/shm/shared.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/own_shm.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::StatusIs;

// Whole if all are equal; constructed by one store after another.
class Row {
 public:
  explicit Row(int64_t number) {
    for (int64_t& cell : cells_)
      *static_cast<volatile int64_t*>(&cell) = number;
  }
  // The number; -1 if there are several.
  int64_t number() const {
    for (const int64_t cell : cells_) {
      if (cell != cells_[0]) return -1;
    }
    return cells_[0];
  }

 private:
  int64_t cells_[8];
};

class SharedCrashTest : public testing::Test {
 protected:
  // The first creation of a process sweeps: over no names but this test's.
  static void SetUpTestSuite() { (void)cohort_testing::MountOwnShm(); }

  SharedCrashTest() : name_(absl::StrCat("cohort-crash-", getpid())) {
    EXPECT_OK(Shared<Row>::OpenOrCreate(name_, 1));
    EXPECT_OK(Shared<Row>::OpenOrCreate(name_, 1));
  }
  ~SharedCrashTest() override { Forget(); }

  void Forget() {
    living_ = Shared<Row>();
    (void)Shared<Row>::Unlink(name_);
  }

  void Run(KillScenario scenario, int64_t stride) {
    const KillReport report =
        KillAtEveryInstruction(scenario, {.stride = stride});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 50) << report;
  }

  const std::string name_;
  Shared<Row> living_;
};

TEST_F(SharedCrashTest, OpenOrCreateWhereThereIsNone) {
  Run({.name = "shared/OpenOrCreate, none",
       .setup = [&] { Forget(); },
       .operation =
           [&] {
             if (!Shared<Row>::OpenOrCreate(name_, 2).ok()) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint&) {
             {
               ASSERT_OK_AND_ASSIGN(const auto row,
                                    Shared<Row>::OpenOrCreate(name_, 3));
               EXPECT_EQ(row->number(), 3) << "that of the dead, or torn";
               ASSERT_OK_AND_ASSIGN(const auto same, Shared<Row>::Open(name_));
               EXPECT_EQ(same->number(), 3);
             }
             EXPECT_THAT(Shared<Row>::Open(name_),
                         StatusIs(absl::StatusCode::kNotFound));
           }},
      11);
}

TEST_F(SharedCrashTest, OpenOrCreateOfWhatOthersHave) {
  Run({.name = "shared/OpenOrCreate, owned",
       .setup =
           [&] {
             Forget();
             ASSERT_OK_AND_ASSIGN(living_, Shared<Row>::OpenOrCreate(name_, 1));
           },
       .operation =
           [&] {
             if (!Shared<Row>::OpenOrCreate(name_, 2).ok()) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint&) {
             EXPECT_EQ(living_->number(), 1);
             ASSERT_OK_AND_ASSIGN(const auto row,
                                  Shared<Row>::OpenOrCreate(name_, 3));
             EXPECT_EQ(row->number(), 1);
           }},
      11);
}

}  // namespace
}  // namespace cohort
