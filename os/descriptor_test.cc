// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <utility>

#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::StatusIs;

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

Descriptor OpenNull() { return Descriptor(open("/dev/null", O_CLOEXEC)); }

TEST(DescriptorTest, ClosesAtTheEndOfItsLife) {
  int number;
  {
    const Descriptor null = OpenNull();
    number = null.get();
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(DescriptorTest, MovingLeavesNothingBehindAndClosesWhatWasThere) {
  Descriptor first = OpenNull();
  Descriptor second = OpenNull();
  const int kept = first.get();
  const int closed = second.get();
  second = std::move(first);
  EXPECT_EQ(second.get(), kept);
  EXPECT_FALSE(first.valid());  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(IsOpen(kept));
  EXPECT_FALSE(IsOpen(closed));
}

TEST(DescriptorTest, ReleaseGivesTheNumberAway) {
  Descriptor null = OpenNull();
  const int number = null.Release();
  EXPECT_FALSE(null.valid());
  null.Reset();
  EXPECT_TRUE(IsOpen(number));
  close(number);
}

TEST(DescriptorTest, DuplicatesAreCloseOnExec) {
  const Descriptor null = OpenNull();
  absl::StatusOr<Descriptor> twin = null.Duplicate();
  ASSERT_THAT(twin, IsOk());
  EXPECT_NE(twin->get(), null.get());
  EXPECT_EQ(fcntl(twin->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(DescriptorTest, AFullTableIsAStatusThatSaysWhatToDo) {
  const Descriptor null = OpenNull();
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {static_cast<rlim_t>(null.get()), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::StatusOr<Descriptor> twin = null.Duplicate();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(twin, StatusIs(absl::StatusCode::kResourceExhausted,
                             ::testing::HasSubstr("ulimit -n")));
}

}  // namespace
}  // namespace cohort::os
