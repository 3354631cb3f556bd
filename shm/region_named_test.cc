// SPDX-License-Identifier: Apache-2.0
//
// Regions with a name: who gets one, what is refused, and what takes it away.

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <new>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/read_only_region.h"
#include "cohort/shm/region.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/own_shm.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::KilledBy;
using cohort_testing::Shared;
using cohort_testing::StatusIs;
using testing::HasSubstr;

constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;
constexpr absl::StatusCode kTaken = absl::StatusCode::kAlreadyExists;
constexpr absl::StatusCode kNone = absl::StatusCode::kNotFound;

class RegionNamedTest : public testing::Test {
 protected:
  // In a /dev/shm of one's own, where that is allowed: nobody else sweeps.
  static void SetUpTestSuite() { (void)cohort_testing::MountOwnShm(); }

  // A name of this test's own, which its leak ledger watches.
  std::string Name(const std::string& suffix = "") const {
    return prefix_ + suffix;
  }
  static bool Exists(const std::string& name) {
    struct stat facts;
    return lstat(("/dev/shm/" + name).c_str(), &facts) == 0;
  }
  // A process that dies as the owner of a region with that name.
  static void LeaveDead(const std::string& name) {
    ASSERT_EQ(Child::Fork([&] {
                const absl::StatusOr<Region> region =
                    Region::CreateNamed(name, {.size = 100});
                EXPECT_OK(region);
                return raise(SIGKILL);
              }).Wait(),
              KilledBy(SIGKILL));
    ASSERT_TRUE(Exists(name));
  }

 private:
  const std::string prefix_ =
      "region_named_test." + std::to_string(std::random_device()());
  cohort_testing::LeakGuard guard_{{.shm_name_part = prefix_}};
};

TEST_F(RegionNamedTest, IsFoundByItsNameUntilTheLastOneIsOut) {
  ASSERT_OK_AND_ASSIGN(
      Region made, Region::CreateNamed(Name(), {.size = 5000, .type_tag = 7},
                                       [](std::span<std::byte> bytes) {
                                         bytes[4999] = std::byte(9);
                                       }));
  EXPECT_EQ(made.name(), Name());
  ASSERT_OK_AND_ASSIGN(Region got, Region::Open(Name()));
  EXPECT_EQ(got.name(), Name());
  EXPECT_EQ(got.size(), 5000u);
  EXPECT_EQ(got.type_tag(), 7u);
  EXPECT_EQ(got.bytes()[4999], std::byte(9));
  made.bytes()[0] = std::byte(1);
  EXPECT_EQ(got.bytes()[0], std::byte(1));
  made = Region();
  EXPECT_TRUE(Exists(Name()));
  got = Region();
  EXPECT_FALSE(Exists(Name()));
  EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
}

TEST_F(RegionNamedTest, IsNotMadeTwiceWhileAnOwnerLives) {
  ASSERT_OK_AND_ASSIGN(const Region made,
                       Region::CreateNamed(Name(), {.size = 1}));
  EXPECT_THAT(Region::CreateNamed(Name(), {.size = 1}),
              StatusIs(kTaken, HasSubstr("open it")));
}

TEST_F(RegionNamedTest, OneWhoseOwnersAllDiedIsAsNone) {
  LeaveDead(Name());
  EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
  EXPECT_FALSE(Exists(Name()));
  LeaveDead(Name());
  EXPECT_OK(Region::CreateNamed(Name(), {.size = 1}));
  LeaveDead(Name());
  EXPECT_OK(Region::OpenOrCreate(Name(), {.size = 1}));
  LeaveDead(Name());
  EXPECT_OK(Region::Unlink(Name()));
  EXPECT_THAT(Region::Unlink(Name()), StatusIs(kNone));
}

TEST_F(RegionNamedTest, SweepTakesTheDeadOnly) {
  ASSERT_OK_AND_ASSIGN(const Region made,
                       Region::CreateNamed(Name(), {.size = 1}));
  ASSERT_OK(Region::Sweep());
  LeaveDead(Name(".1"));
  LeaveDead(Name(".2"));
  ASSERT_OK_AND_ASSIGN(const int swept, Region::Sweep());
  EXPECT_GE(swept, 2);
  EXPECT_FALSE(Exists(Name(".1")));
  EXPECT_FALSE(Exists(Name(".2")));
  EXPECT_TRUE(Exists(Name()));
}

TEST_F(RegionNamedTest, UnlinkLeavesTheMemoryToItsOwners) {
  ASSERT_OK_AND_ASSIGN(Region old, Region::CreateNamed(Name(), {.size = 1}));
  ASSERT_OK(Region::Unlink(Name()));
  EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
  old.bytes()[0] = std::byte(1);
  ASSERT_OK_AND_ASSIGN(const Region young,
                       Region::CreateNamed(Name(), {.size = 1}));
  EXPECT_EQ(young.bytes()[0], std::byte(0));
  // Who leaves takes his own name away only.
  old = Region();
  EXPECT_OK(Region::Open(Name()));
}

TEST_F(RegionNamedTest, OpenOrCreateDoesEither) {
  int filled = 0;
  const auto fill = [&](std::span<std::byte> bytes) {
    ++filled;
    bytes[0] = std::byte(5);
  };
  ASSERT_OK_AND_ASSIGN(
      const Region first,
      Region::OpenOrCreate(Name(), {.size = 10, .type_tag = 1}, fill));
  ASSERT_OK_AND_ASSIGN(
      const Region second,
      Region::OpenOrCreate(Name(), {.size = 10, .type_tag = 1}, fill));
  EXPECT_EQ(filled, 1);
  EXPECT_EQ(second.bytes()[0], std::byte(5));
  EXPECT_THAT(Region::OpenOrCreate(Name(), {.size = 11, .type_tag = 1}),
              StatusIs(kRefused, HasSubstr("10 bytes")));
  EXPECT_THAT(Region::OpenOrCreate(Name(), {.size = 10, .type_tag = 2}),
              StatusIs(kRefused, HasSubstr("type tag")));
}

TEST_F(RegionNamedTest, AForkedChildIsAnOwner) {
  ASSERT_OK_AND_ASSIGN(Region region, Region::CreateNamed(Name(), {.size = 1}));
  Shared<Gate> gate;
  Child child = Child::Fork([&] {
    gate->Pass();
    region = Region();
  });
  region = Region();
  EXPECT_OK(Region::Open(Name()));
  EXPECT_TRUE(Exists(Name()));
  gate->Open();
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_FALSE(Exists(Name()));
}

TEST_F(RegionNamedTest, TravelsInAFrameAndItsReceiverIsAnOwner) {
  ASSERT_OK_AND_ASSIGN(Region made, Region::CreateNamed(Name(), {.size = 64}));
  made.bytes()[5] = std::byte(5);
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(made));
  ASSERT_OK_AND_ASSIGN(Region got, Decode<Region>(std::move(frame)));
  EXPECT_EQ(got.name(), Name());
  made = Region();
  EXPECT_TRUE(Exists(Name()));
  EXPECT_EQ(got.bytes()[5], std::byte(5));
  ASSERT_OK(Region::Unlink(Name()));
  ASSERT_OK_AND_ASSIGN(Frame again, Encode(got));
  EXPECT_OK(Decode<Region>(std::move(again)));
}

TEST_F(RegionNamedTest, AReaderIsAnOwner) {
  ASSERT_OK_AND_ASSIGN(Region made, Region::CreateNamed(Name(), {.size = 64}));
  ASSERT_OK_AND_ASSIGN(ReadOnlyRegion reader, made.ReadOnly());
  EXPECT_EQ(reader.name(), Name());
  made = Region();
  EXPECT_OK(Region::Open(Name()));
  EXPECT_OK(Region::Sweep());
  EXPECT_TRUE(Exists(Name()));
  reader = ReadOnlyRegion();
  EXPECT_FALSE(Exists(Name()));
}

// Its descriptor is exchanged for one that cannot write; in between, too,
// somebody owns the region.
TEST_F(RegionNamedTest, AReaderThatWasSentTheOnlyHandleKeepsTheName) {
  Shared<std::atomic<bool>> stop;
  Child sweeper = Child::Fork([&] {
    while (!*stop) EXPECT_OK(Region::Sweep());
  });
  for (int round = 0; round < 3000; ++round) {
    ASSERT_OK_AND_ASSIGN(Region made, Region::CreateNamed(Name(), {.size = 1}));
    ASSERT_OK_AND_ASSIGN(os::Descriptor sent, made.descriptor().Duplicate());
    made = Region();
    ASSERT_OK_AND_ASSIGN(const ReadOnlyRegion reader,
                         ReadOnlyRegion::Attach(std::move(sent)));
    ASSERT_TRUE(Exists(Name())) << round;
  }
  *stop = true;
  EXPECT_EQ(sweeper.Wait(), Exited(0));
}

TEST_F(RegionNamedTest, TheLastOneOutIsTheLastHandleNotTheLastCopy) {
  ASSERT_OK_AND_ASSIGN(Region made, Region::CreateNamed(Name(), {.size = 1}));
  Region copy = made;
  made = Region();
  EXPECT_TRUE(Exists(Name()));
  copy = Region();
  EXPECT_FALSE(Exists(Name()));
}

// Four processes at a time, none of them first.
TEST_F(RegionNamedTest, OfManyWhoOpenOrCreateOneCreates) {
  struct Meeting {
    Gate start;
    Gate end;
    std::atomic<int> arrived;
  };
  for (int round = 0; round < 20; ++round) {
    Shared<Meeting> meeting;
    std::vector<Child> children;
    for (int i = 0; i < 4; ++i) {
      children.push_back(Child::Fork([&] {
        meeting->start.Pass();
        const absl::StatusOr<Region> region =
            Region::OpenOrCreate(Name(), {.size = sizeof(std::atomic<int>)});
        ASSERT_OK(region);
        auto& visitors =
            *reinterpret_cast<std::atomic<int>*>(region->bytes().data());
        ++visitors;
        if (++meeting->arrived == 4) meeting->end.Open();
        meeting->end.Pass();
        EXPECT_EQ(visitors, 4);
      }));
    }
    meeting->start.Open();
    for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
    EXPECT_FALSE(Exists(Name()));
  }
}

TEST_F(RegionNamedTest, AppearsFilledAndOwned) {
  bool early = false;
  ASSERT_OK(Region::CreateNamed(Name(), {.size = 1}, [&](std::span<std::byte>) {
    early = Exists(Name());
  }));
  EXPECT_FALSE(early);
}

TEST_F(RegionNamedTest, AFillThatThrowsLeavesNothing) {
  EXPECT_THROW((void)Region::CreateNamed(
                   Name(), {.size = 1},
                   [](std::span<std::byte>) { throw std::bad_alloc(); }),
               std::bad_alloc);
  EXPECT_FALSE(Exists(Name()));
}

}  // namespace
}  // namespace cohort
