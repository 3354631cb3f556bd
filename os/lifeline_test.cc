// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/lifeline.h"

#include <unistd.h>

#include <csignal>
#include <utility>

#include "cohort/os/deadline.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/spawn.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;

// A child that has armed `line` and waits for its end. The caller keeps the
// write end.
Child Tied(Lifeline& line) {
  absl::StatusOr<Child> child = Fork();
  if (child.ok() && child->pid == 0) {
    line.write_end.Reset();
    if (!ArmLifeline(line.read_end).ok()) _exit(3);
    for (;;) pause();
  }
  EXPECT_THAT(child, IsOk());
  return *std::move(child);
}

int SignalThatEnded(const Child& child) {
  EXPECT_THAT(WaitPidfd(child.pidfd, Deadline::Infinite()), IsOkAndHolds(true));
  const absl::StatusOr<ExitFacts> facts = ReapPidfd(child.pidfd);
  EXPECT_THAT(facts, IsOk());
  return facts->signal;
}

TEST(LifelineTest, TheEndOfTheHolderIsTheEndOfTheTied) {
  absl::StatusOr<Lifeline> line = CreateLifeline();
  ASSERT_THAT(line, IsOk());
  const Child tied = Tied(*line);
  EXPECT_THAT(WaitPidfd(tied.pidfd, Deadline::AtNanoseconds(0)),
              IsOkAndHolds(false));
  line->write_end.Reset();
  EXPECT_EQ(SignalThatEnded(tied), SIGKILL);
}

TEST(LifelineTest, AHolderThatIsKilledTakesTheTiedAlong) {
  absl::StatusOr<Lifeline> line = CreateLifeline();
  ASSERT_THAT(line, IsOk());
  absl::StatusOr<Child> holder = Fork();
  ASSERT_THAT(holder, IsOk());
  if (holder->pid == 0) {
    for (;;) pause();
  }
  const Child tied = Tied(*line);
  line->write_end.Reset();
  ASSERT_THAT(SignalPidfd(holder->pidfd, SIGKILL), IsOk());
  EXPECT_EQ(SignalThatEnded(tied), SIGKILL);
  EXPECT_EQ(SignalThatEnded(*holder), SIGKILL);
}

TEST(LifelineTest, ArmingALineThatIsDeadAlreadyIsDeath) {
  absl::StatusOr<Lifeline> line = CreateLifeline();
  ASSERT_THAT(line, IsOk());
  line->write_end.Reset();
  EXPECT_EQ(SignalThatEnded(Tied(*line)), SIGKILL);
}

}  // namespace
}  // namespace cohort::os
