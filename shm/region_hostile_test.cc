// SPDX-License-Identifier: Apache-2.0
//
// What stands in the way of a region: names that are none, files that somebody
// put there, limits of the process, a /dev/shm that is too small. Each is a
// status that says what to do, and nothing is left behind.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/file.h"
#include "cohort/os/memfd.h"
#include "cohort/os/named_memory.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
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
constexpr absl::StatusCode kShort = absl::StatusCode::kResourceExhausted;
constexpr absl::StatusCode kNone = absl::StatusCode::kNotFound;
constexpr int kNotAllowed = 77;  // A sandbox refuses what the test needs.

class RegionHostileTest : public testing::Test {
 protected:
  // In a /dev/shm of one's own, where that is allowed: nobody else sweeps.
  static void SetUpTestSuite() { (void)cohort_testing::MountOwnShm(); }

  ~RegionHostileTest() override { unlink(Path().c_str()); }

  const std::string& Name() const { return name_; }
  std::string Path() const { return "/dev/shm/" + name_; }
  bool Exists() const {
    struct stat facts;
    return lstat(Path().c_str(), &facts) == 0;
  }

  // A file of another program: plain bytes, no header.
  void MakeForeign(size_t size, mode_t mode = 0600) const {
    const os::Descriptor file(
        open(Path().c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    ASSERT_TRUE(file.valid());
    ASSERT_EQ(fchmod(file.get(), mode), 0);
    ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(size)), 0);
  }

  // Nobody gets a region out of what has the name, and it stays as it is.
  void ExpectRefused(const std::string& why) const {
    EXPECT_THAT(Region::Open(Name()), StatusIs(kRefused, HasSubstr(why)));
    EXPECT_THAT(Region::CreateNamed(Name(), {.size = 1}),
                StatusIs(kTaken, HasSubstr(why)));
    EXPECT_THAT(Region::OpenOrCreate(Name(), {.size = 1}),
                StatusIs(kRefused, HasSubstr(why)));
    EXPECT_THAT(Region::Unlink(Name()), StatusIs(kRefused, HasSubstr(why)));
    EXPECT_OK(Region::Sweep());
    EXPECT_TRUE(Exists());
  }

  // A region whose only owner was killed.
  void LeaveDead() const {
    ASSERT_EQ(Child::Fork([&] {
                const absl::StatusOr<Region> region =
                    Region::CreateNamed(Name(), {.size = 1});
                EXPECT_OK(region);
                return raise(SIGKILL);
              }).Wait(),
              KilledBy(SIGKILL));
  }

  // A process that is in the middle of taking the name away.
  Child ForkHolder(os::Claim claim, Gate& holds) const {
    return Child::Fork([&, claim] {
      const absl::StatusOr<os::NamedMemory> found = os::OpenNamedMemory(Name());
      EXPECT_OK(found);
      EXPECT_TRUE(os::TryClaim(found->file, claim));
      holds.Open();
      pause();
    });
  }

  // In a child with `resource` at `limit`, which nothing can raise again.
  static void UnderLimit(__rlimit_resource resource, rlim_t limit,
                         const std::function<void()>& body) {
    EXPECT_EQ(Child::Fork([&] {
                const rlimit both = {limit, limit};
                ASSERT_EQ(setrlimit(resource, &both), 0);
                body();
              }).Wait(),
              Exited(0));
  }

 private:
  const std::string name_ =
      "region_hostile_test." + std::to_string(std::random_device()());
  cohort_testing::LeakGuard guard_{{.shm_name_part = name_}};
};

TEST_F(RegionHostileTest, NamesAreCheckedBeforeAnythingElse) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."),
        std::string(".hidden"), std::string("a/b"), std::string("../etc/x"),
        std::string("/abs"), std::string("a b"), std::string("a\n"),
        std::string("a\0b", 3), std::string("\xc3\xa9"),
        std::string(201, 'a')}) {
    const auto refused =
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 to 200"));
    EXPECT_THAT(Region::CreateNamed(name, {.size = 1}), refused) << name;
    EXPECT_THAT(Region::Open(name), refused) << name;
    EXPECT_THAT(Region::OpenOrCreate(name, {.size = 1}), refused) << name;
    EXPECT_THAT(Region::Unlink(name), refused) << name;
  }
  const std::string longest = Name() + std::string(200 - Name().size(), 'x');
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::CreateNamed(longest, {.size = 1}));
  EXPECT_EQ(region.name(), longest);
  EXPECT_OK(Region::Open(longest));
}

TEST_F(RegionHostileTest, ImpossibleOptionsOfANamedOneAreRefused) {
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Region::CreateNamed(Name(), {}), StatusIs(kInvalid));
  EXPECT_THAT(Region::CreateNamed(Name(), {.size = SIZE_MAX}),
              StatusIs(kInvalid));
  EXPECT_THAT(Region::CreateNamed(
                  Name(), {.size = 1, .huge_pages = HugePages::kReserve}),
              StatusIs(kInvalid, HasSubstr("huge pages")));
}

TEST_F(RegionHostileTest, ASymbolicLinkIsNotFollowed) {
  ASSERT_EQ(symlink("/etc/passwd", Path().c_str()), 0);
  ExpectRefused("symbolic link");
  ASSERT_EQ(unlink(Path().c_str()), 0);
  // Nor one that leads to a region of one's own, nor one that leads nowhere.
  ASSERT_OK_AND_ASSIGN(const Region own,
                       Region::CreateNamed(Name() + ".own", {.size = 1}));
  ASSERT_EQ(symlink((Name() + ".own").c_str(), Path().c_str()), 0);
  ExpectRefused("symbolic link");
  ASSERT_EQ(unlink(Path().c_str()), 0);
  ASSERT_EQ(symlink("/nowhere", Path().c_str()), 0);
  ExpectRefused("symbolic link");
}

TEST_F(RegionHostileTest, WhatIsNoRegularFileIsRefusedAndNobodyWaitsForIt) {
  ASSERT_EQ(mkfifo(Path().c_str(), 0600), 0);
  ExpectRefused("no regular file");
  ASSERT_EQ(unlink(Path().c_str()), 0);
  ASSERT_EQ(mkdir(Path().c_str(), 0700), 0);
  ExpectRefused("no regular file");
  ASSERT_EQ(rmdir(Path().c_str()), 0);
  const os::Descriptor socket_of_its_own(
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, Path().c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(socket_of_its_own.get(),
                 reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
            0);
  ExpectRefused("no regular file");
}

TEST_F(RegionHostileTest, AFileOfAnotherUserIsRefused) {
  MakeForeign(8192);
  if (chown(Path().c_str(), 65534, 65534) != 0) {
    GTEST_SKIP() << "only root can make a file of another user";
  }
  ExpectRefused("belongs to user 65534");
}

TEST_F(RegionHostileTest, WhatOthersMayReadOrWriteIsRefused) {
  for (const mode_t mode : {0640, 0604, 0620, 0602, 0610, 0601, 0666, 0777}) {
    MakeForeign(8192, mode);
    ExpectRefused("open to other users");
    ASSERT_EQ(unlink(Path().c_str()), 0);
  }
  // One's own, opened up afterwards.
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::CreateNamed(Name(), {.size = 1}));
  ASSERT_EQ(chmod(Path().c_str(), 0666), 0);
  ExpectRefused("open to other users");
  ASSERT_EQ(chmod(Path().c_str(), 0600), 0);
}

TEST_F(RegionHostileTest, ASecondNameIsRefused) {
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::CreateNamed(Name(), {.size = 1}));
  const std::string second = Path() + ".second";
  ASSERT_EQ(link(Path().c_str(), second.c_str()), 0);
  ExpectRefused("second name");
  EXPECT_THAT(Region::Open(Name() + ".second"), StatusIs(kRefused));
  ASSERT_EQ(unlink(second.c_str()), 0);
  EXPECT_OK(Region::Open(Name()));
}

TEST_F(RegionHostileTest, ARegionUnderAnotherNameIsSomebodysOnPurpose) {
  ASSERT_OK_AND_ASSIGN(Region region,
                       Region::CreateNamed(Name() + ".old", {.size = 1}));
  ASSERT_EQ(rename((Path() + ".old").c_str(), Path().c_str()), 0);
  EXPECT_THAT(Region::Open(Name()),
              StatusIs(kRefused, HasSubstr("under another name")));
  region = Region();
  EXPECT_OK(Region::Sweep());
  EXPECT_TRUE(Exists());  // It is no longer ours to take away.
}

TEST_F(RegionHostileTest, ModeIs0600WhateverTheUmask) {
  for (const mode_t mask : {0000, 0022, 0777}) {
    const mode_t before = umask(mask);
    const absl::StatusOr<Region> named =
        Region::CreateNamed(Name(), {.size = 1});
    const absl::StatusOr<Region> anonymous = Region::Create(1);
    umask(before);
    for (const absl::StatusOr<Region>* region : {&named, &anonymous}) {
      ASSERT_OK(*region);
      struct stat facts;
      ASSERT_EQ(fstat((*region)->descriptor().get(), &facts), 0);
      EXPECT_EQ(facts.st_mode & 0777, 0600u) << mask;
    }
  }
}

TEST_F(RegionHostileTest, WhatWasCutOffIsRefused) {
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::CreateNamed(Name(), {.size = 100'000}));
  struct stat facts;
  ASSERT_EQ(stat(Path().c_str(), &facts), 0);
  for (const off_t size :
       {facts.st_size - 1, facts.st_size - 256, facts.st_size - 4096,
        off_t{4096}, off_t{255}, off_t{1}, off_t{0}}) {
    ASSERT_EQ(truncate(Path().c_str(), size), 0);
    EXPECT_THAT(Region::Open(Name()), StatusIs(kRefused, HasSubstr("cut off")))
        << size;
    EXPECT_THAT(Region::CreateNamed(Name(), {.size = 1}), StatusIs(kTaken));
  }
  EXPECT_OK(Region::Unlink(Name()));
}

TEST_F(RegionHostileTest, AnyHeaderIsARegionOrAStatus) {
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::CreateNamed(Name(), {.size = 5000}));
  struct stat facts;
  ASSERT_EQ(stat(Path().c_str(), &facts), 0);
  const os::Descriptor file(open(Path().c_str(), O_RDWR | O_CLOEXEC));
  std::vector<char> good(256);
  const off_t at = facts.st_size - 256;
  ASSERT_EQ(pread(file.get(), good.data(), good.size(), at), 256);
  // Each byte of what must be right, alone.
  for (size_t i = 0; i < good.size(); ++i) {
    const bool free = (i >= 40 && i < 56);  // The type tag, and what is unused.
    std::vector<char> bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    ASSERT_EQ(pwrite(file.get(), bad.data(), bad.size(), at), 256);
    const absl::StatusOr<Region> got = Region::Open(Name());
    if (got.ok()) {
      EXPECT_TRUE(free || (i >= 32 && i < 40)) << i;
    } else {
      EXPECT_FALSE(free) << i;
      EXPECT_THAT(got, StatusIs(kRefused)) << i;
    }
  }
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<char> bad = good;
    for (uint64_t n = random() % 4 + 1; n > 0; --n) {
      bad[random() % 64] = static_cast<char>(random());
    }
    ASSERT_EQ(pwrite(file.get(), bad.data(), bad.size(), at), 256);
    const absl::StatusOr<Region> got = Region::Open(Name());
    if (got.ok()) {  // Whatever it says it has, it has.
      got->bytes().front() = std::byte(1);
      got->bytes().back() = std::byte(1);
    } else {
      EXPECT_THAT(got, StatusIs(kRefused));
    }
    EXPECT_OK(Region::Sweep());
    ASSERT_TRUE(Exists()) << "an owner lives";
  }
  ASSERT_EQ(pwrite(file.get(), good.data(), good.size(), at), 256);
}

TEST_F(RegionHostileTest, AForeignFileIsPlainBytesAndNobodysHere) {
  MakeForeign(5001);
  {
    ASSERT_OK_AND_ASSIGN(Region got, Region::Open(Name()));
    EXPECT_EQ(got.size(), 5001u);  // To the byte, as its maker has it.
    EXPECT_EQ(got.type_tag(), 0u);
    EXPECT_EQ(got.name(), Name());
    got.bytes().back() = std::byte(7);
    EXPECT_THAT(Region::CreateNamed(Name(), {.size = 1}),
                StatusIs(kTaken, HasSubstr("not made by this library")));
    EXPECT_OK(Region::OpenOrCreate(Name(), {.size = 5001}));
    // It travels as what it is; a sender that says nothing of it sends none.
    ASSERT_OK_AND_ASSIGN(Frame frame, Encode(got));
    ASSERT_OK_AND_ASSIGN(const Region received,
                         Decode<Region>(std::move(frame)));
    EXPECT_EQ(received.bytes().back(), std::byte(7));
    ASSERT_OK_AND_ASSIGN(os::Descriptor twin, got.descriptor().Duplicate());
    EXPECT_THAT(Region::Attach(std::move(twin)), StatusIs(kRefused));
  }
  EXPECT_OK(Region::Sweep());
  EXPECT_TRUE(Exists());
  EXPECT_OK(Region::Unlink(Name()));
  EXPECT_FALSE(Exists());
}

// As Region sends what another program made.
struct SentAsForeign {
  os::Descriptor memory;
  template <typename Archive>
  void serialize(Archive& archive) {
    bool foreign = true;
    archive(memory, foreign);
  }
};

// Memory without a name cannot pass for what has one: its size would not be
// sealed, and its sender could cut it off.
TEST_F(RegionHostileTest, AnonymousMemoryWithANameInItIsRefused) {
  ASSERT_OK_AND_ASSIGN(const Region region,
                       Region::CreateNamed(Name(), {.size = 5000}));
  std::vector<std::byte> bytes(8192);
  ASSERT_OK(os::ReadAt(region.descriptor(), 0, bytes));
  ASSERT_OK_AND_ASSIGN(os::Descriptor memfd, os::CreateMemfd("hostile"));
  ASSERT_OK(os::WriteAt(memfd, 0, bytes));
  ASSERT_OK_AND_ASSIGN(os::Descriptor twin, memfd.Duplicate());
  EXPECT_THAT(Region::Attach(std::move(twin)), StatusIs(kRefused));
  // Nor for what another program made.
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(SentAsForeign{std::move(memfd)}));
  EXPECT_THAT(Decode<Region>(std::move(frame)), StatusIs(kRefused));
}

// Locks of fcntl(F_SETLK) end when their process closes any descriptor of the
// file, so whoever looks at the files of others must not open them.
TEST_F(RegionHostileTest, SweepTakesNoLocksFromTheRestOfTheProgram) {
  MakeForeign(8192);
  const os::Descriptor database(open(Path().c_str(), O_RDWR | O_CLOEXEC));
  struct flock all = {};
  all.l_type = F_WRLCK;
  ASSERT_EQ(fcntl(database.get(), F_SETLK, &all), 0);
  EXPECT_OK(Region::Sweep());
  EXPECT_OK(Region::CreateNamed(Name() + ".other", {.size = 1}));
  EXPECT_EQ(Child::Fork([&] {
              struct flock found = {};
              found.l_type = F_WRLCK;
              return fcntl(database.get(), F_GETLK, &found) == 0 &&
                             found.l_type == F_WRLCK
                         ? 0
                         : 1;
            }).Wait(),
            Exited(0));
}

TEST_F(RegionHostileTest, AnEmptyForeignFileIsNotReadyYet) {
  MakeForeign(0);
  EXPECT_THAT(Region::Open(Name()), StatusIs(kRefused, HasSubstr("empty")));
}

// As Python before 3.13 does when a process that attached exits.
TEST_F(RegionHostileTest, ANameThatVanishesIsNoHarm) {
  ASSERT_OK_AND_ASSIGN(Region region, Region::CreateNamed(Name(), {.size = 1}));
  ASSERT_EQ(unlink(Path().c_str()), 0);
  region.bytes()[0] = std::byte(1);
  EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
  MakeForeign(100);
  region = Region();
  EXPECT_TRUE(Exists());  // The last one out leaves the name of another alone.
}

TEST_F(RegionHostileTest, AStoppedCleanerHoldsUpNobodyForEver) {
  LeaveDead();
  Shared<Gate> holds;
  Child cleaner = ForkHolder(os::Claim::kCleaner, *holds);
  holds->Pass();
  cleaner.Stop();
  EXPECT_OK(Region::Sweep());
  EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
  const auto told =
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("continue or end it"));
  EXPECT_THAT(Region::CreateNamed(Name(), {.size = 1}), told);
  EXPECT_THAT(Region::OpenOrCreate(Name(), {.size = 1}), told);
  EXPECT_THAT(Region::Unlink(Name()), told);
  EXPECT_TRUE(Exists()) << "two at a time took it away";
  cleaner.Kill(SIGKILL);
  cleaner.Wait();
  EXPECT_OK(Region::CreateNamed(Name(), {.size = 1}));
}

// Between his look and his unlink(2) nobody else may touch the name.
TEST_F(RegionHostileTest, NobodyTakesANameAwayBesideAnother) {
  LeaveDead();
  Shared<Gate> holds;
  Child remover = ForkHolder(os::Claim::kRemover, *holds);
  holds->Pass();
  remover.Stop();
  EXPECT_OK(Region::Sweep());
  EXPECT_THAT(Region::Open(Name()), StatusIs(kNone));
  EXPECT_TRUE(Exists());
  remover.Kill(SIGKILL);
  remover.Wait();
  EXPECT_OK(Region::Sweep());
  EXPECT_FALSE(Exists());
}

TEST_F(RegionHostileTest, OpenFromAnotherPidNamespaceIsRefused) {
  const absl::StatusOr<Region> region =
      Region::CreateNamed(Name(), {.size = 100});
  ASSERT_OK(region);
  const cohort_testing::End end =
      Child::ForkIntoPidNamespace([&] {
        EXPECT_THAT(Region::Open(Name()),
                    StatusIs(kRefused, HasSubstr("another PID namespace")));
        EXPECT_OK(Region::CreateNamed(Name() + ".inside", {.size = 100}));
        return 0;
      }).Wait();
  EXPECT_TRUE(Exists());  // The living are seen across namespaces.
  if (end == Exited(cohort_testing::kNoNamespace)) GTEST_SKIP() << end;
  EXPECT_EQ(end, Exited(0));
}

TEST_F(RegionHostileTest, ALimitOnFileSizesIsAStatus) {
  UnderLimit(RLIMIT_FSIZE, 64 << 10, [&] {
    for (const bool prefault : {false, true}) {
      const RegionOptions options = {.size = 1 << 20, .prefault = prefault};
      const auto told = StatusIs(kShort, HasSubstr("ulimit -f"));
      EXPECT_THAT(Region::Create(options), told);
      EXPECT_THAT(Region::CreateNamed(Name(), options), told);
      EXPECT_THAT(Region::OpenOrCreate(Name(), options), told);
    }
    EXPECT_FALSE(Exists());
    EXPECT_OK(Region::Create(1000));
    EXPECT_OK(Region::CreateNamed(Name(), {.size = 1000}));
  });
}

TEST_F(RegionHostileTest, ALimitOnAddressesIsAStatus) {
  // A sanitizer takes terabytes of them.
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  if (pages > int64_t{512} << 8) GTEST_SKIP() << "this program has too many";
  constexpr size_t kSize = size_t{256} << 20;
  ASSERT_OK_AND_ASSIGN(const Region other,
                       Region::CreateNamed(Name() + ".other", {.size = kSize}));
  UnderLimit(RLIMIT_AS, size_t{512} << 20, [&] {
    cohort_testing::LeakLedger before({.shm_name_part = Name()});
    const RegionOptions options = {.size = kSize * 2};
    EXPECT_THAT(Region::Create(options), StatusIs(kShort));
    EXPECT_THAT(Region::CreateNamed(Name(), options), StatusIs(kShort));
    EXPECT_THAT(Region::Open(Name() + ".other"), StatusIs(kShort));
    EXPECT_TRUE(before.Check());
  });
}

TEST_F(RegionHostileTest, ALimitOnDescriptorsIsAStatus) {
  ASSERT_OK_AND_ASSIGN(const Region other,
                       Region::CreateNamed(Name() + ".other", {.size = 1}));
  UnderLimit(RLIMIT_NOFILE, 30, [&] {
    cohort_testing::LeakLedger before({.shm_name_part = Name()});
    // Looked at later: a sanitizer needs descriptors for its own checks.
    std::vector<absl::Status> told;
    {
      std::vector<os::Descriptor> all;
      for (;;) {
        absl::StatusOr<os::Descriptor> one = other.descriptor().Duplicate();
        if (!one.ok()) break;
        all.push_back(*std::move(one));
      }
      told = {Region::Create(1).status(),
              Region::CreateNamed(Name(), {.size = 1}).status(),
              Region::Open(Name() + ".other").status(),
              Region::OpenOrCreate(Name(), {.size = 1}).status(),
              Region::Unlink(Name() + ".other"),
              Region::Sweep().status(),
              other.ReadOnly().status()};
    }
    for (const absl::Status& status : told) {
      EXPECT_THAT(status, StatusIs(kShort, HasSubstr("ulimit -n")));
    }
    EXPECT_TRUE(before.Check());
    EXPECT_OK(Region::Open(Name() + ".other"));
    // The last one out has at least the number that it gives back.
    ASSERT_OK_AND_ASSIGN(Region last, Region::CreateNamed(Name(), {.size = 1}));
    std::vector<os::Descriptor> all;
    for (absl::StatusOr<os::Descriptor> one = other.descriptor().Duplicate();
         one.ok(); one = other.descriptor().Duplicate()) {
      all.push_back(*std::move(one));
    }
    last = Region();
    EXPECT_FALSE(Exists());
  });
}

TEST_F(RegionHostileTest, ASharedMemoryFolderThatIsFullIsAStatus) {
  const cohort_testing::End end =
      Child::Fork([&]() -> int {
        if (!cohort_testing::MountOwnShm("size=64k")) return kNotAllowed;
        for (const bool prefault : {false, true}) {
          const RegionOptions options = {.size = 1 << 20, .prefault = prefault};
          const auto told = StatusIs(kShort, HasSubstr("/dev/shm"));
          EXPECT_THAT(Region::CreateNamed(Name(), options), told);
          EXPECT_THAT(Region::OpenOrCreate(Name(), options), told);
        }
        const absl::StatusOr<Region> fits =
            Region::CreateNamed(Name(), {.size = 40 << 10});
        EXPECT_OK(fits);
        EXPECT_THAT(Region::CreateNamed(Name() + ".2", {.size = 40 << 10}),
                    StatusIs(kShort));
        // What it has it has: no SIGBUS.
        std::memset(fits->bytes().data(), 1, fits->size());
        EXPECT_OK(Region::Create(1 << 20));  // Lies elsewhere.
        return testing::Test::HasFailure() ? 1 : 0;
      }).Wait();
  if (end == Exited(kNotAllowed)) {
    GTEST_SKIP() << "no mount of its own is allowed here";
  }
  EXPECT_EQ(end, Exited(0));
}

}  // namespace
}  // namespace cohort
