// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/file.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/read_only_region.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::StatusIs;
using testing::AnyOf;
using testing::HasSubstr;

constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

class RegionTest : public testing::Test {
 private:
  cohort_testing::LeakGuard guard_;
};

// A second handle by way of the descriptor, as another process would get it.
absl::StatusOr<Region> AttachTo(const Region& region) {
  absl::StatusOr<os::Descriptor> twin = region.descriptor().Duplicate();
  if (!twin.ok()) return twin.status();
  return Region::Attach(*std::move(twin));
}

// The file behind a region as a hostile peer has it: mapped, header included.
os::Mapping WholeFile(const Region& region) {
  const absl::StatusOr<size_t> size = os::CheckSealedMemfd(region.descriptor());
  EXPECT_OK(size);
  absl::StatusOr<os::Mapping> mapping =
      os::Mapping::Map(region.descriptor(), *size);
  EXPECT_OK(mapping);
  return *std::move(mapping);
}

// Where its header lies: docs/formats/region_header.md.
constexpr size_t kHeaderSize = 256;
std::byte* HeaderOf(const os::Mapping& file) {
  return file.data() + file.size() - kHeaderSize;
}

TEST_F(RegionTest, IsZeroAlignedAndOfTheSizeAskedFor) {
  for (const size_t size :
       {size_t{1}, size_t{4095}, size_t{4096}, size_t{4097}, size_t{3} << 20}) {
    ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(size));
    ASSERT_EQ(region.size(), size);
    EXPECT_EQ(
        reinterpret_cast<uintptr_t>(region.bytes().data()) % os::PageSize(),
        0u);
    EXPECT_TRUE(std::all_of(region.bytes().begin(), region.bytes().end(),
                            [](std::byte b) { return b == std::byte(0); }));
    std::fill(region.bytes().begin(), region.bytes().end(), std::byte(0xa5));
  }
}

TEST_F(RegionTest, RefusesImpossibleSizes) {
  EXPECT_THAT(Region::Create(0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("size")));
  for (const size_t size : {SIZE_MAX, SIZE_MAX / 2, size_t{INT64_MAX}}) {
    EXPECT_THAT(Region::Create(size),
                StatusIs(AnyOf(absl::StatusCode::kInvalidArgument,
                               absl::StatusCode::kResourceExhausted)))
        << size;
  }
}

TEST_F(RegionTest, EmptyHandleHasNothing) {
  const Region region;
  EXPECT_TRUE(region.empty());
  EXPECT_EQ(region.size(), 0u);
  EXPECT_EQ(region.type_tag(), 0u);
  EXPECT_FALSE(region.descriptor().valid());
  EXPECT_THAT(Region::Attach(os::Descriptor()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(RegionTest, MappingLivesAsLongAsAnyHandle) {
  Region last;
  {
    ASSERT_OK_AND_ASSIGN(Region first, Region::Create(100));
    first.bytes()[99] = std::byte(7);
    const Region copy = first;
    EXPECT_EQ(copy.bytes().data(), first.bytes().data());
    last = copy;
  }
  EXPECT_EQ(last.bytes()[99], std::byte(7));
}

TEST_F(RegionTest, AttachedHandleSeesTheSameBytes) {
  ASSERT_OK_AND_ASSIGN(
      const Region made,
      Region::Create({.size = 5000, .label = "seen", .type_tag = 42}));
  ASSERT_OK_AND_ASSIGN(const Region got, AttachTo(made));
  EXPECT_EQ(got.size(), 5000u);
  EXPECT_EQ(got.type_tag(), 42u);
  EXPECT_NE(got.bytes().data(), made.bytes().data());
  made.bytes()[4999] = std::byte(9);
  EXPECT_EQ(got.bytes()[4999], std::byte(9));
}

TEST_F(RegionTest, IsSharedWithAForkedChild) {
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  EXPECT_EQ(Child::Fork([&] { region.bytes()[0] = std::byte(3); }).Wait(),
            Exited(0));
  EXPECT_EQ(region.bytes()[0], std::byte(3));
}

TEST_F(RegionTest, TravelsInAFrame) {
  ASSERT_OK_AND_ASSIGN(const Region made, Region::Create(64));
  made.bytes()[5] = std::byte(5);
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(made));
  EXPECT_EQ(frame.descriptors().size(), 1u);
  ASSERT_OK_AND_ASSIGN(const Region got, Decode<Region>(std::move(frame)));
  EXPECT_EQ(got.bytes()[5], std::byte(5));

  ASSERT_OK_AND_ASSIGN(Frame none, Encode(Region()));
  ASSERT_OK_AND_ASSIGN(const Region empty, Decode<Region>(std::move(none)));
  EXPECT_TRUE(empty.empty());
}

TEST_F(RegionTest, RefusesWhatIsNoRegion) {
  EXPECT_THAT(Region::Attach(os::Descriptor(open("/dev/null", O_RDWR))),
              StatusIs(kRefused));
  EXPECT_THAT(Region::Attach(os::Descriptor(open("/proc/self/exe", O_RDONLY))),
              StatusIs(kRefused));
  // A file that its owner could still shrink would be a SIGBUS later.
  os::Descriptor unsealed(memfd_create("unsealed", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(unsealed.get(), 1 << 20), 0);
  EXPECT_THAT(Region::Attach(std::move(unsealed)),
              StatusIs(kRefused, HasSubstr("sealed")));
  for (const size_t size : {1, 4095, 4096, 4097, 8192, 12288, 1 << 20}) {
    ASSERT_OK_AND_ASSIGN(os::Descriptor zeroes,
                         os::CreateSealedMemfd("zeroes", size));
    EXPECT_THAT(Region::Attach(std::move(zeroes)), StatusIs(kRefused)) << size;
  }
}

// Each field of the header, with its neighbours right, decides for itself.
TEST_F(RegionTest, ChecksEachFieldOfTheHeader) {
  struct Field {
    const char* name;
    size_t offset;
    size_t size;
  };
  constexpr Field kFields[] = {
      {"magic", 0, 8},      {"abi_version", 8, 4},   {"byte_order", 12, 4},
      {"word_size", 16, 4}, {"futex_offset", 20, 4}, {"pid_namespace", 24, 8},
      {"name", 56, 200},
  };
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(100));
  const os::Mapping file = WholeFile(region);
  for (const Field& field : kFields) {
    for (size_t i = 0; i < field.size; ++i) {
      std::byte& byte = HeaderOf(file)[field.offset + i];
      byte ^= std::byte(0x10);
      EXPECT_THAT(AttachTo(region), StatusIs(kRefused)) << field.name;
      byte ^= std::byte(0x10);
      ASSERT_OK(AttachTo(region)) << field.name;
    }
  }
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{3841}, uint64_t{4096}, UINT64_MAX,
        UINT64_MAX - 4095, uint64_t{1} << 63}) {
    std::memcpy(HeaderOf(file) + 32, &size, sizeof(size));
    EXPECT_THAT(AttachTo(region), StatusIs(kRefused)) << size;
  }
  const uint64_t largest = 4096 - kHeaderSize;
  std::memcpy(HeaderOf(file) + 32, &largest, sizeof(largest));
  ASSERT_OK_AND_ASSIGN(const Region got, AttachTo(region));
  EXPECT_EQ(got.size(), largest);
}

TEST_F(RegionTest, SurvivesAnyHeader) {
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(10000));
  const os::Mapping file = WholeFile(region);
  std::byte* const header = HeaderOf(file);
  const std::vector<std::byte> good(header, header + kHeaderSize);
  std::mt19937_64 random(1);
  for (int round = 0; round < 5000; ++round) {
    for (uint64_t n = random() % 4 + 1; n > 0; --n) {
      header[random() % 64] = std::byte(random());
    }
    const absl::StatusOr<Region> got = AttachTo(region);
    if (got.ok()) {  // Whatever it says it has, it has.
      got->bytes().front() = std::byte(1);
      got->bytes().back() = std::byte(1);
    } else {
      EXPECT_THAT(got, StatusIs(kRefused));
    }
    std::copy(good.begin(), good.end(), header);
  }
}

TEST_F(RegionTest, NobodyCanChangeItsSize) {
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1 << 20));
  EXPECT_EQ(ftruncate(region.descriptor().get(), 0), -1);
  EXPECT_EQ(ftruncate(region.descriptor().get(), 1 << 22), -1);
  region.bytes().back() = std::byte(1);
}

TEST_F(RegionTest, RefusesADescriptorThatCannotBeWritten) {
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  const std::string path =
      "/proc/self/fd/" + std::to_string(region.descriptor().get());
  EXPECT_THAT(Region::Attach(os::Descriptor(open(path.c_str(), O_RDONLY))),
              StatusIs(testing::Ne(absl::StatusCode::kOk)));
}

// Whether every page of it is in memory.
bool IsResident(std::span<std::byte> bytes) {
  const size_t page = os::PageSize();
  std::vector<unsigned char> pages((bytes.size() + page - 1) / page);
  return mincore(bytes.data(), bytes.size(), pages.data()) == 0 &&
         std::all_of(pages.begin(), pages.end(),
                     [](unsigned char here) { return (here & 1) != 0; });
}

TEST_F(RegionTest, PrefaultTakesAllPagesAtOnce) {
  constexpr size_t kSize = 1 << 20;
  ASSERT_OK_AND_ASSIGN(const Region lazy, Region::Create(kSize));
  EXPECT_FALSE(IsResident(lazy.bytes()));
  ASSERT_OK_AND_ASSIGN(const Region eager,
                       Region::Create({.size = kSize, .prefault = true}));
  EXPECT_TRUE(IsResident(eager.bytes()));
  EXPECT_OK(AttachTo(eager));
}

TEST_F(RegionTest, AdvisedHugePagesNeverFail) {
  for (const bool prefault : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const Region region,
                         Region::Create({.size = 5 << 20,
                                         .prefault = prefault,
                                         .huge_pages = HugePages::kAdvise}));
    std::memset(region.bytes().data(), 1, region.size());
  }
}

TEST_F(RegionTest, ReservedHugePagesAreThereOrAStatusSaysWhatToSet) {
  const RegionOptions options = {.size = 3 << 20,
                                 .huge_pages = HugePages::kReserve};
  const absl::StatusOr<Region> region = Region::Create(options);
  if (!region.ok()) {
    EXPECT_THAT(region, StatusIs(absl::StatusCode::kResourceExhausted,
                                 HasSubstr("vm.nr_hugepages")));
    GTEST_SKIP() << region.status();
  }
  EXPECT_EQ(region->size(), options.size);
  std::memset(region->bytes().data(), 1, region->size());
  ASSERT_OK_AND_ASSIGN(const Region got, AttachTo(*region));
  EXPECT_EQ(got.bytes().back(), std::byte(1));
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion reader, region->ReadOnly());
  EXPECT_EQ(reader.bytes().back(), std::byte(1));
}

// A peer may send huge pages that were never taken.
TEST_F(RegionTest, HugePagesReceivedAreTakenOrRefused) {
  absl::StatusOr<os::Descriptor> memory =
      os::CreateMemfd("huge", /*huge_pages=*/true);
  if (!memory.ok()) GTEST_SKIP() << memory.status();
  ASSERT_OK_AND_ASSIGN(const size_t page, os::PageSizeOf(*memory));
  ASSERT_OK(os::Resize(*memory, page * 100'000));
  ASSERT_OK(os::SealSize(*memory));
  EXPECT_FALSE(Region::Attach(*std::move(memory)).ok());
}

TEST_F(RegionTest, TheKernelKeepsAReaderFromWriting) {
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::Create({.size = 5000, .type_tag = 3}));
  region.bytes()[0] = std::byte(1);
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion reader, region.ReadOnly());
  EXPECT_EQ(reader.size(), 5000u);
  EXPECT_EQ(reader.type_tag(), 3u);
  EXPECT_EQ(reader.bytes()[0], std::byte(1));
  region.bytes()[0] = std::byte(2);
  EXPECT_EQ(reader.bytes()[0], std::byte(2));

  const int fd = reader.descriptor().get();
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
            MAP_FAILED);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(mprotect(const_cast<std::byte*>(reader.bytes().data()), 4096,
                     PROT_READ | PROT_WRITE),
            -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
  EXPECT_EQ(ftruncate(fd, 0), -1);
  ASSERT_OK_AND_ASSIGN(os::Descriptor twin, reader.descriptor().Duplicate());
  EXPECT_THAT(Region::Attach(std::move(twin)),
              StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(RegionTest, AReaderTravelsInAFrame) {
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(64));
  region.bytes()[5] = std::byte(5);
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion reader, region.ReadOnly());
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(reader));
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion got,
                       Decode<ReadOnlyRegion>(std::move(frame)));
  EXPECT_EQ(got.bytes()[5], std::byte(5));

  // A sender that gives more than was asked for: it is not kept.
  ASSERT_OK_AND_ASSIGN(Frame writable, Encode(region));
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion narrowed,
                       Decode<ReadOnlyRegion>(std::move(writable)));
  EXPECT_FALSE(os::IsWritable(narrowed.descriptor()));

  ASSERT_OK_AND_ASSIGN(Frame none, Encode(ReadOnlyRegion()));
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion empty,
                       Decode<ReadOnlyRegion>(std::move(none)));
  EXPECT_TRUE(empty.empty());
  ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion of_nothing, Region().ReadOnly());
  EXPECT_TRUE(of_nothing.empty());
}

// A lock word names its holder by a number that means another thread there.
TEST_F(RegionTest, AttachFromAnotherPidNamespaceIsRefused) {
  const absl::StatusOr<Region> region = Region::Create(100);
  ASSERT_OK(region);
  const cohort_testing::End end =
      Child::ForkIntoPidNamespace([&] {
        EXPECT_THAT(AttachTo(*region),
                    StatusIs(kRefused, HasSubstr("another PID namespace")));
        EXPECT_OK(Region::Create(100));  // What it makes itself is its own.
        return 0;
      }).Wait();
  if (end == Exited(cohort_testing::kNoNamespace)) GTEST_SKIP() << end;
  EXPECT_EQ(end, Exited(0));
}

}  // namespace
}  // namespace cohort
