// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of what a BoundedSemaphore has of its
// own: the release that may fail. Its ledger is that of a Semaphore, which
// semaphore_crash_test.cc kills in every situation.

#include <csignal>
#include <cstddef>
#include <functional>
#include <new>
#include <utility>

#include "cohort/sync/bounded_semaphore.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;

class BoundedSemaphoreCrashTest : public testing::Test {
 protected:
  // The victim holds 2 of 3 permits and does `operation`, after which it holds
  // `held`. It is killed at every `stride`-th instruction.
  void Run(const char* name, const std::function<void()>& operation,
           ptrdiff_t held, int stride = 1) {
    const KillReport report = KillAtEveryInstruction(
        {
            .name = name,
            .setup = [&] { new (semaphore_.get()) BoundedSemaphore(3); },
            .prepare =
                [&] {
                  semaphore_->acquire();
                  semaphore_->acquire();
                },
            .operation = operation,
            .check =
                [&](const KillPoint& point) {
                  const ptrdiff_t home = semaphore_->reclaim();
                  EXPECT_TRUE(home == held || (home == 2 && !point.finished()))
                      << home;
                  EXPECT_EQ(semaphore_->value(), 3);
                  EXPECT_FALSE(semaphore_->release().ok());
                  EXPECT_TRUE(semaphore_->try_acquire());
                  EXPECT_TRUE(semaphore_->release().ok());
                  EXPECT_EQ(semaphore_->value(), 3);
                },
        },
        {.stride = stride});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  Shared<BoundedSemaphore> semaphore_{std::in_place, 3};
};

TEST_F(BoundedSemaphoreCrashTest, Release) {
  Run(
      "bounded_semaphore/release",
      [&] {
        if (!semaphore_->release().ok()) raise(SIGABRT);
      },
      1);
}

TEST_F(BoundedSemaphoreCrashTest, ReleaseOfTooMuch) {
  Run(
      "bounded_semaphore/release of too much",
      [&] {
        if (semaphore_->release(3).ok()) raise(SIGABRT);
      },
      // Most of it makes the message of the status.
      2, 7);
}

TEST_F(BoundedSemaphoreCrashTest, Acquire) {
  Run(
      "bounded_semaphore/acquire", [&] { semaphore_->acquire(); }, 3);
}

}  // namespace
}  // namespace cohort
