// SPDX-License-Identifier: Apache-2.0
//
// A program that forgot cohort::Init: its main is GoogleTest's own.

#include "cohort/process/process.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

int Return(int code) { return code; }

TEST(WithoutInitTest, SpawnIsRefusedInOneSentence) {
  cohort_testing::LeakGuard guard;
  for (StartMethod method : {StartMethod::kDefault, StartMethod::kSpawn}) {
    EXPECT_THAT(
        Process::Start({.start_method = method}, Return, 1),
        cohort_testing::StatusIs(
            absl::StatusCode::kFailedPrecondition,
            ::testing::HasSubstr(
                "cohort::Init(argc, argv) must be the first line of main")));
  }
}

TEST(WithoutInitTest, ForkNeedsNone) {
  cohort_testing::LeakGuard guard;
  ASSERT_OK_AND_ASSIGN(
      Process process,
      Process::Start({.start_method = StartMethod::kFork}, Return, 5));
  absl::StatusOr<ExitStatus> end = process.Join();
  ASSERT_OK(end);
  EXPECT_EQ(end->code, 5);
}

// A forked child of such a program is no better off than its parent.
TEST(WithoutInitTest, ForkedChildCannotSpawnEither) {
  cohort_testing::LeakGuard guard;
  ASSERT_OK_AND_ASSIGN(
      Process process, Process::Start({.start_method = StartMethod::kFork}, [] {
        return absl::IsFailedPrecondition(
                   Process::Start({.start_method = StartMethod::kSpawn}, Return,
                                  1)
                       .status())
                   ? 0
                   : 1;
      }));
  absl::StatusOr<ExitStatus> end = process.Join();
  ASSERT_OK(end);
  EXPECT_EQ(end->code, 0);
}

}  // namespace
}  // namespace cohort
