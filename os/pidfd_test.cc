// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/pidfd.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "cohort/os/deadline.h"
#include "cohort/os/spawn.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::cohort_testing::StatusIs;

// A child that waits for its end.
Child Sleeper() {
  absl::StatusOr<Child> child = Fork();
  if (child.ok() && child->pid == 0) {
    for (;;) pause();
  }
  EXPECT_THAT(child, IsOk());
  return *std::move(child);
}

TEST(PidfdTest, TellsARunningProcessFromAnEndedOne) {
  const Child child = Sleeper();
  const Deadline at_once = Deadline::AtNanoseconds(0);
  EXPECT_THAT(WaitPidfd(child.pidfd, at_once), IsOkAndHolds(false));
  EXPECT_THAT(ReapPidfd(child.pidfd),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(SignalPidfd(child.pidfd, SIGTERM), IsOk());
  EXPECT_THAT(WaitPidfd(child.pidfd, Deadline::Infinite()), IsOkAndHolds(true));
  const absl::StatusOr<ExitFacts> facts = ReapPidfd(child.pidfd);
  ASSERT_THAT(facts, IsOk());
  EXPECT_EQ(facts->signal, SIGTERM);
  EXPECT_EQ(facts->code, 0);
}

TEST(PidfdTest, ReportsTheExitCode) {
  absl::StatusOr<Child> child = Fork();
  if (child.ok() && child->pid == 0) _exit(44);
  ASSERT_THAT(child, IsOk());
  ASSERT_THAT(WaitPidfd(child->pidfd, Deadline::Infinite()),
              IsOkAndHolds(true));
  const absl::StatusOr<ExitFacts> facts = ReapPidfd(child->pidfd);
  ASSERT_THAT(facts, IsOk());
  EXPECT_EQ(facts->code, 44);
  EXPECT_EQ(facts->signal, 0);
}

TEST(PidfdTest, ASignalToAnEndedProcessHitsNobody) {
  const Child child = Sleeper();
  ASSERT_THAT(SignalPidfd(child.pidfd, SIGKILL), IsOk());
  ASSERT_THAT(WaitPidfd(child.pidfd, Deadline::Infinite()), IsOkAndHolds(true));
  EXPECT_THAT(SignalPidfd(child.pidfd, SIGKILL), IsOk());
  ASSERT_THAT(ReapPidfd(child.pidfd), IsOk());
  EXPECT_THAT(SignalPidfd(child.pidfd, SIGKILL), IsOk());
}

TEST(PidfdTest, AStatusThatSomebodyElseCollectedIsUnknown) {
  const Child child = Sleeper();
  ASSERT_THAT(SignalPidfd(child.pidfd, SIGKILL), IsOk());
  ASSERT_EQ(waitpid(child.pid, nullptr, 0), child.pid);
  EXPECT_THAT(ReapPidfd(child.pidfd),
              StatusIs(absl::StatusCode::kNotFound,
                       ::testing::HasSubstr("exit status unknown")));
}

TEST(PidfdTest, NoSuchProcess) {
  const Child child = Sleeper();
  ASSERT_THAT(SignalPidfd(child.pidfd, SIGKILL), IsOk());
  ASSERT_THAT(WaitPidfd(child.pidfd, Deadline::Infinite()), IsOkAndHolds(true));
  ASSERT_THAT(ReapPidfd(child.pidfd), IsOk());
  EXPECT_THAT(OpenPidfd(child.pid), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace cohort::os
