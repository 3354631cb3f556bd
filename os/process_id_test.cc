// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/process_id.h"

#include <sys/stat.h>
#include <unistd.h>

#include <latch>
#include <thread>

#include "cohort/os/deadline.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/spawn.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;

TEST(ProcessIdTest, CountsThreads) {
  const int before = ThreadCount();
  std::latch end(1);
  std::thread other([&] { end.wait(); });
  EXPECT_EQ(ThreadCount(), before + 1);
  EXPECT_FALSE(IsSingleThreaded());
  end.count_down();
  other.join();
}

TEST(ProcessIdTest, AChildOfForkHasOneThreadAndTheSameNamespace) {
  const absl::StatusOr<uint64_t> here = PidNamespace();
  ASSERT_THAT(here, IsOk());
  const Creator creator;
  EXPECT_TRUE(creator.IsMe());
  absl::StatusOr<Child> child = Fork();
  ASSERT_THAT(child, IsOk());
  if (child->pid == 0) {
    const absl::StatusOr<uint64_t> there = PidNamespace();
    _exit(IsSingleThreaded() && there.ok() && *there == *here && !creator.IsMe()
              ? 0
              : 1);
  }
  ASSERT_THAT(WaitPidfd(child->pidfd, Deadline::Infinite()),
              IsOkAndHolds(true));
  EXPECT_EQ(ReapPidfd(child->pidfd)->code, 0);
}

}  // namespace
}  // namespace cohort::os
