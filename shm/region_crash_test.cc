// SPDX-License-Identifier: Apache-2.0
//
// Kills a process all along everything that it does to a name. Whatever is
// left, survivors find no name or a complete region, what lives keeps its name,
// and Sweep() leaves nothing of the dead; so too where the sweeper is killed.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/named_memory.h"
#include "cohort/shm/read_only_region.h"
#include "cohort/shm/region.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/own_shm.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::StatusIs;

constexpr absl::StatusCode kNone = absl::StatusCode::kNotFound;

RegionOptions Options() { return {.size = 5000, .type_tag = 7}; }

void Fill(std::span<std::byte> bytes) {
  bytes.front() = std::byte(1);
  bytes.back() = std::byte(2);
}

class RegionCrashTest : public testing::Test {
 protected:
  // In a /dev/shm of one's own, where that is allowed: a sweeper looks at every
  // name there is, and its path shall not hang on other programs'.
  static void SetUpTestSuite() { (void)cohort_testing::MountOwnShm(); }

  RegionCrashTest() {
    // The first creation of a process sweeps; that of the victim is not it.
    absl::StatusOr<Region> region =
        Region::CreateNamed(Name(), Options(), Fill);
    EXPECT_OK(region);
    std::ifstream file(Path(Name()), std::ios::binary);
    corpse_.assign(std::istreambuf_iterator<char>(file), {});
    // Nor shall it be the first to call any function of a shared library.
    EXPECT_OK(Region::Open(Name()));
    EXPECT_OK(region->ReadOnly());
    EXPECT_OK(Region::Unlink(Name()));
    EXPECT_OK(Region::Sweep());
    LeaveDead(Name());
    EXPECT_OK(Region::OpenOrCreate(Name(), Options(), Fill));
  }
  ~RegionCrashTest() override { Clear(); }

  static std::string Path(const std::string& name) {
    return "/dev/shm/" + name;
  }
  const std::string& Name() const { return name_; }
  std::string Second() const { return name_ + ".second"; }
  static bool Exists(const std::string& name) {
    struct stat facts;
    return lstat(Path(name).c_str(), &facts) == 0;
  }

  void Clear() {
    held_ = Region();
    unlink(Path(Name()).c_str());
    unlink(Path(Second()).c_str());
  }

  // What is left of a region when its owners have died. The bytes are those of
  // one, under the name that they state.
  void LeaveDead(const std::string& name) {
    std::string bytes = corpse_;
    bytes.replace(bytes.size() - 200, name.size(), name);  // Behind the rest.
    const os::Descriptor file(
        open(Path(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    ASSERT_EQ(write(file.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
    ASSERT_EQ(fchmod(file.get(), 01600), 0);
  }

  // One that the test itself owns, and so its survivors do.
  void Live(const std::string& name) {
    absl::StatusOr<Region> region = Region::CreateNamed(name, Options(), Fill);
    ASSERT_OK(region);
    held_ = *std::move(region);
  }

  static void ExpectWhole(const Region& region) {
    ASSERT_EQ(region.size(), Options().size);
    EXPECT_EQ(region.type_tag(), Options().type_tag);
    EXPECT_EQ(region.bytes().front(), std::byte(1));
    EXPECT_EQ(region.bytes().back(), std::byte(2));
  }

  // The victim died with what it had: nobody can have it, anybody can make it.
  void CheckGone() const {
    struct stat facts;
    if (lstat(Path(Name()).c_str(), &facts) == 0) {
      EXPECT_EQ(facts.st_size, static_cast<off_t>(corpse_.size())) << "torn";
      EXPECT_EQ(facts.st_mode & 07777, 01600u);
    }
    EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
    EXPECT_FALSE(Exists(Name()));
    {
      ASSERT_OK_AND_ASSIGN(const Region made,
                           Region::CreateNamed(Name(), Options(), Fill));
      ASSERT_OK_AND_ASSIGN(const Region again,
                           Region::OpenOrCreate(Name(), Options(), Fill));
      ExpectWhole(again);
    }
    EXPECT_FALSE(Exists(Name()));
  }

  // The test's own region is what the name means, whatever the victim did.
  void CheckLives() const {
    ASSERT_OK_AND_ASSIGN(const os::FileId id, os::IdOf(held_.descriptor()));
    EXPECT_TRUE(os::IsNameOf(Name(), id)) << "its name was taken away";
    EXPECT_OK(Region::Sweep());
    EXPECT_TRUE(os::IsNameOf(Name(), id)) << "its name was swept";
    ASSERT_OK_AND_ASSIGN(const Region got, Region::Open(Name()));
    ExpectWhole(got);
    ExpectWhole(held_);
    EXPECT_THAT(Region::CreateNamed(Name(), Options()),
                StatusIs(absl::StatusCode::kAlreadyExists));
  }

  // The victim's hands: its handles end with it.
  static void Keep(absl::StatusOr<Region> region) {
    EXPECT_TRUE(region.ok()) << region.status();
    static auto* const kept = new Region();
    if (region.ok()) *kept = *std::move(region);
  }

  void Run(KillScenario scenario, int64_t stride = 13) {
    scenario.name = "region/" + scenario.name;
    // Between two system calls, which is where the world sees a difference, lie
    // more instructions than this.
    KillOptions options;
    options.stride = stride;
    options.first_kills = 3;
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 50) << report;
  }

 private:
  const std::string name_ =
      "region_crash_test." + std::to_string(std::random_device()());
  cohort_testing::LeakGuard guard_{{.shm_name_part = name_}};

 protected:
  std::string corpse_;
  Region held_;
};

TEST_F(RegionCrashTest, Create) {
  Run({.name = "create",
       .setup = [&] { Clear(); },
       .operation = [&] { Keep(Region::CreateNamed(Name(), Options(), Fill)); },
       .check =
           [&](const KillPoint& point) {
             EXPECT_TRUE(!point.finished() || Exists(Name()));
             if (point.instruction() % 2 == 0) {
               EXPECT_OK(Region::Sweep());
               EXPECT_FALSE(Exists(Name()));
             }
             CheckGone();
           }});
}

TEST_F(RegionCrashTest, CreateWhereADeadOneIs) {
  Run({.name = "create, a dead one there",
       .setup =
           [&] {
             Clear();
             LeaveDead(Name());
           },
       .operation = [&] { Keep(Region::CreateNamed(Name(), Options(), Fill)); },
       .check = [&](const KillPoint&) { CheckGone(); }});
}

TEST_F(RegionCrashTest, Open) {
  Run({.name = "open",
       .setup =
           [&] {
             Clear();
             Live(Name());
           },
       .operation = [&] { Keep(Region::Open(Name())); },
       .check = [&](const KillPoint&) { CheckLives(); }});
}

TEST_F(RegionCrashTest, OpenADeadOne) {
  Run({.name = "open, a dead one",
       .setup =
           [&] {
             Clear();
             LeaveDead(Name());
           },
       .operation = [&] { EXPECT_FALSE(Region::Open(Name()).ok()); },
       .check =
           [&](const KillPoint& point) {
             EXPECT_TRUE(!point.finished() || !Exists(Name()));
             CheckGone();
           }});
}

TEST_F(RegionCrashTest, OpenOrCreateOpens) {
  Run({.name = "open or create, opens",
       .setup =
           [&] {
             Clear();
             Live(Name());
           },
       .operation = [&] { Keep(Region::OpenOrCreate(Name(), Options())); },
       .check = [&](const KillPoint&) { CheckLives(); }});
}

TEST_F(RegionCrashTest, OpenOrCreateCreates) {
  Run({.name = "open or create, creates",
       .setup =
           [&] {
             Clear();
             LeaveDead(Name());
           },
       .operation =
           [&] { Keep(Region::OpenOrCreate(Name(), Options(), Fill)); },
       .check = [&](const KillPoint&) { CheckGone(); }});
}

TEST_F(RegionCrashTest, DropOfTheLastHandle) {
  Region* mine = nullptr;
  Run({.name = "drop, the last",
       .setup = [&] { Clear(); },
       .prepare =
           [&] {
             absl::StatusOr<Region> made =
                 Region::CreateNamed(Name(), Options(), Fill);
             EXPECT_OK(made);
             mine = new Region(*std::move(made));
           },
       .operation = [&] { *mine = Region(); },
       .check =
           [&](const KillPoint& point) {
             EXPECT_TRUE(!point.finished() || !Exists(Name()));
             CheckGone();
           }});
}

TEST_F(RegionCrashTest, DropOfOneOfTwo) {
  Region* mine = nullptr;
  Run({.name = "drop, one of two",
       .setup =
           [&] {
             Clear();
             Live(Name());
           },
       .prepare =
           [&] {
             absl::StatusOr<Region> got = Region::Open(Name());
             EXPECT_OK(got);
             mine = new Region(*std::move(got));
           },
       .operation = [&] { *mine = Region(); },
       .check = [&](const KillPoint&) { CheckLives(); }});
}

TEST_F(RegionCrashTest, DropOfAReader) {
  ReadOnlyRegion* mine = nullptr;
  Run({.name = "drop, a reader, one of two",
       .setup =
           [&] {
             Clear();
             Live(Name());
           },
       .prepare =
           [&] {
             absl::StatusOr<ReadOnlyRegion> reader = held_.ReadOnly();
             EXPECT_OK(reader);
             mine = new ReadOnlyRegion(*std::move(reader));
           },
       .operation = [&] { *mine = ReadOnlyRegion(); },
       .check = [&](const KillPoint&) { CheckLives(); }});
}

TEST_F(RegionCrashTest, Unlink) {
  Run({.name = "unlink",
       .setup =
           [&] {
             Clear();
             Live(Name());
           },
       .operation = [&] { EXPECT_TRUE(Region::Unlink(Name()).ok()); },
       .check =
           [&](const KillPoint& point) {
             ExpectWhole(held_);
             if (Exists(Name())) {
               EXPECT_FALSE(point.finished());
               CheckLives();
               EXPECT_OK(Region::Unlink(Name()));
             }
             CheckGone();
             ExpectWhole(held_);
           }});
}

TEST_F(RegionCrashTest, UnlinkOfADeadOne) {
  Run({.name = "unlink, a dead one",
       .setup =
           [&] {
             Clear();
             LeaveDead(Name());
           },
       .operation = [&] { EXPECT_TRUE(Region::Unlink(Name()).ok()); },
       .check =
           [&](const KillPoint& point) {
             EXPECT_TRUE(!point.finished() || !Exists(Name()));
             CheckGone();
           }});
}

TEST_F(RegionCrashTest, Sweep) {
  Run({.name = "sweep",
       .setup =
           [&] {
             Clear();
             Live(Name());
             LeaveDead(Second());
           },
       .operation = [&] { EXPECT_TRUE(Region::Sweep().ok()); },
       .recover = [&] { EXPECT_TRUE(Region::Sweep().ok()); },
       .check =
           [&](const KillPoint& point) {
             EXPECT_TRUE(!point.finished() || !Exists(Second()));
             CheckLives();
             EXPECT_OK(Region::Sweep());
             EXPECT_FALSE(Exists(Second()));
             EXPECT_OK(Region::CreateNamed(Second(), Options(), Fill));
           }},
      /*stride=*/29);
}

}  // namespace
}  // namespace cohort
