// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/testing/child.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::IsOkAndHolds;
using cohort_testing::StatusIs;
using testing::HasSubstr;

Descriptor NewFile() {
  absl::StatusOr<Descriptor> file = CreateMemfd("file_test");
  EXPECT_OK(file);
  return *std::move(file);
}

struct stat FactsOf(const Descriptor& file) {
  struct stat facts = {};
  EXPECT_EQ(fstat(file.get(), &facts), 0);
  return facts;
}

TEST(FileTest, GrowsWithPagesOrWithout) {
  const Descriptor lazy = NewFile();
  ASSERT_OK(Resize(lazy, 100'000));
  EXPECT_EQ(FactsOf(lazy).st_size, 100'000);
  EXPECT_EQ(FactsOf(lazy).st_blocks, 0);
  const Descriptor eager = NewFile();
  ASSERT_OK(Allocate(eager, 100'000));
  EXPECT_EQ(FactsOf(eager).st_size, 100'000);
  EXPECT_GE(FactsOf(eager).st_blocks * 512, 100'000);
}

TEST(FileTest, ReadsWhatWasWrittenAndSaysWhereTheFileEnds) {
  const Descriptor file = NewFile();
  const std::array<std::byte, 3> written = {std::byte(1), std::byte(2),
                                            std::byte(3)};
  ASSERT_OK(WriteAt(file, 10'000, written));
  EXPECT_EQ(FactsOf(file).st_size, 10'003);
  std::array<std::byte, 3> read = {};
  ASSERT_OK(ReadAt(file, 10'000, read));
  EXPECT_EQ(read, written);
  EXPECT_THAT(ReadAt(file, 10'001, read),
              StatusIs(absl::StatusCode::kOutOfRange));
}

TEST(FileTest, ImpossibleSizesAreRefused) {
  const Descriptor file = NewFile();
  EXPECT_THAT(Resize(file, SIZE_MAX),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Allocate(file, SIZE_MAX),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(WriteAt(file, SIZE_MAX - 1, {}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(FileTest, ALimitOnFileSizesIsAStatusAndNoSignal) {
  EXPECT_EQ(Child::Fork([] {
              const rlimit limit = {4096, 4096};
              ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
              const Descriptor file = NewFile();
              const auto told = StatusIs(absl::StatusCode::kResourceExhausted,
                                         HasSubstr("ulimit -f"));
              EXPECT_THAT(Resize(file, 8192), told);
              EXPECT_THAT(Allocate(file, 8192), told);
              const std::byte one{1};
              EXPECT_THAT(WriteAt(file, 8192, std::span(&one, 1)), told);
              EXPECT_OK(Resize(file, 4096));
            }).Wait(),
            Exited(0));
}

TEST(FileTest, AReaderCannotWrite) {
  const Descriptor file = NewFile();
  ASSERT_OK(Resize(file, 4096));
  EXPECT_TRUE(IsWritable(file));
  ASSERT_OK_AND_ASSIGN(const Descriptor reader, ReopenForReading(file));
  EXPECT_FALSE(IsWritable(reader));
  EXPECT_THAT(Mapping::Map(reader, 4096),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_OK(Mapping::Map(reader, 4096, /*writable=*/false));
  EXPECT_FALSE(ReopenForReading(Descriptor()).ok());
  EXPECT_FALSE(IsWritable(Descriptor()));
}

// A terminal would become that of the process, and its end the process's.
TEST(FileTest, WhatIsNoRegularFileIsNotOpenedAnew) {
  const Descriptor terminal(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  const Descriptor device(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const Descriptor* file : {&terminal, &device}) {
    ASSERT_TRUE(file->valid());
    EXPECT_THAT(ReopenForReading(*file),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("no regular file")));
  }
}

// More than is asked of the kernel at once.
TEST(FileTest, AllocatesAllOfALargeFile) {
  const Descriptor file = NewFile();
  constexpr size_t kSize = (size_t{130} << 20) + 1;
  ASSERT_OK(Allocate(file, kSize));
  EXPECT_EQ(FactsOf(file).st_size, static_cast<off_t>(kSize));
  EXPECT_GE(FactsOf(file).st_blocks * 512, static_cast<off_t>(kSize));
  EXPECT_THAT(Allocate(NewFile(), 0),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(FileTest, KnowsItsPages) {
  EXPECT_THAT(PageSizeOf(NewFile()), IsOkAndHolds(PageSize()));
  absl::StatusOr<Descriptor> huge = CreateMemfd("huge", /*huge_pages=*/true);
  if (!huge.ok()) GTEST_SKIP() << huge.status();
  ASSERT_OK_AND_ASSIGN(const size_t page, PageSizeOf(*huge));
  EXPECT_GT(page, PageSize());
}

}  // namespace
}  // namespace cohort::os
