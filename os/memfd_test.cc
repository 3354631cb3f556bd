// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/memfd.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cohort/os/mapping.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;

TEST(MemfdTest, IsZeroFilledPrivateToTheUserAndOfFixedSize) {
  const mode_t before = umask(0);
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("memfd_test", 10'000);
  umask(before);
  ASSERT_THAT(memfd, IsOk());
  EXPECT_THAT(CheckSealedMemfd(*memfd), IsOkAndHolds(10'000));
  struct stat facts;
  ASSERT_EQ(fstat(memfd->get(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777, 0600);
  EXPECT_EQ(fcntl(memfd->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  EXPECT_EQ(ftruncate(memfd->get(), 1), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(memfd->get(), 20'000), -1);
  absl::StatusOr<Mapping> map = Mapping::Map(*memfd, 10'000);
  ASSERT_THAT(map, IsOk());
  EXPECT_EQ(map->data()[9'999], std::byte{0});
}

TEST(MemfdTest, TwoMappingsShareTheirBytes) {
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("memfd_test", 4096);
  ASSERT_THAT(memfd, IsOk());
  absl::StatusOr<Mapping> one = Mapping::Map(*memfd, 4096);
  absl::StatusOr<Mapping> two = Mapping::Map(*memfd, 4096, /*writable=*/false);
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(two, IsOk());
  ASSERT_NE(one->data(), two->data());
  one->data()[7] = std::byte{42};
  EXPECT_EQ(two->data()[7], std::byte{42});
}

TEST(MemfdTest, RefusesSizesThatNoFileHas) {
  EXPECT_THAT(CreateSealedMemfd("memfd_test", 0),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CreateSealedMemfd("memfd_test", ~size_t{0}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(MemfdTest, TheFileSizeLimitIsAStatusAndNoSignal) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::StatusOr<Descriptor> memfd =
      CreateSealedMemfd("memfd_test", 1 << 20);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(memfd, StatusIs(absl::StatusCode::kResourceExhausted,
                              HasSubstr("ulimit -f")));
}

TEST(MemfdTest, ALongNameIsCutAndNotRefused) {
  EXPECT_THAT(CreateSealedMemfd(std::string(5'000, 'n'), 1), IsOk());
}

TEST(MemfdTest, WhatCouldShrinkUnderAReaderIsRefused) {
  const Descriptor plain(open("/dev/zero", O_RDWR | O_CLOEXEC));
  EXPECT_THAT(CheckSealedMemfd(plain),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(CheckSealedMemfd(Descriptor()),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace cohort::os
