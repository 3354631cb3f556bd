// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/stress.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <string>

#include "cohort/testing/shared.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(StressTest, TakesItsTimeFromTheEnvironment) {
  const char* const before = getenv("COHORT_STRESS_SECONDS");
  const std::string saved = before == nullptr ? "" : before;
  unsetenv("COHORT_STRESS_SECONDS");
  EXPECT_EQ(StressSeconds(), milliseconds(2000));
  setenv("COHORT_STRESS_SECONDS", "0.25", 1);
  EXPECT_EQ(StressSeconds(), milliseconds(250));
  setenv("COHORT_STRESS_SECONDS", "many", 1);
  EXPECT_EQ(StressSeconds(), milliseconds(2000));
  if (before == nullptr) {
    unsetenv("COHORT_STRESS_SECONDS");
  } else {
    setenv("COHORT_STRESS_SECONDS", saved.c_str(), 1);
  }
}

struct Counts {
  std::atomic<int64_t> begun[2];
  std::atomic<int64_t> ended;
  std::atomic<int64_t> latest_incarnation;
};

TEST(StressTest, KillsAndReplacesWorkersUntilTimeIsOver) {
  Shared<Counts> counts;
  const auto body = [&](const Worker& self) {
    ++counts->begun[self.index()];
    if (self.incarnation() > counts->latest_incarnation) {
      counts->latest_incarnation = self.incarnation();
    }
    while (!self.Stopping()) poll(nullptr, 0, 1);
    ++counts->ended;
  };
  const ChaosReport report = KillAtRandom(
      {body, body},
      {.duration = milliseconds(200), .rhythm = microseconds(500)});
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  EXPECT_GT(counts->latest_incarnation, 0);
  EXPECT_EQ(counts->ended, 2);
  // A worker may be killed before its first instruction.
  EXPECT_LE(counts->begun[0] + counts->begun[1], report.kills + 2);
}

TEST(StressTest, StopsWorkersForAMoment) {
  Shared<std::atomic<int64_t>> begun;
  const ChaosReport report =
      KillAtRandom({[&](const Worker& self) {
                     ++*begun;
                     while (!self.Stopping()) {
                     }
                   }},
                   {.duration = milliseconds(50), .signal = SIGSTOP});
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  EXPECT_EQ(*begun, 1);
}

TEST(StressTest, ReportsAWorkerThatFails) {
  const ChaosReport report =
      KillAtRandom({[](const Worker& self) {
                     while (!self.Stopping()) poll(nullptr, 0, 1);
                     abort();
                   }},
                   {.duration = milliseconds(1), .rhythm = microseconds(1)});
  EXPECT_EQ(report.failures, 1);
  EXPECT_THAT(report.messages, ElementsAre(HasSubstr("KilledBy(SIGABRT)")));
}

TEST(StressTest, ReportsAWorkerThatEndsEarlyOrNever) {
  EXPECT_GE(KillAtRandom({[](const Worker&) {}},
                         {.duration = std::chrono::hours(1), .max_failures = 3})
                .failures,
            3);
  const ChaosReport report =
      KillAtRandom({[](const Worker&) {
                     for (;;) poll(nullptr, 0, -1);
                   }},
                   {.duration = milliseconds(1), .patience = milliseconds(1)});
  EXPECT_EQ(report.failures, 1);
  EXPECT_THAT(report.messages, ElementsAre(HasSubstr("does not return")));
}

TEST(StressTest, PrintsItsSeed) {
  ::testing::internal::CaptureStdout();
  const ChaosReport report =
      KillAtRandom({[](const Worker& self) {
                     while (!self.Stopping()) {
                     }
                   }},
                   {.duration = milliseconds(1), .seed = 42});
  EXPECT_EQ(report.seed, 42u);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("seed=42"));
}

}  // namespace
}  // namespace cohort_testing
