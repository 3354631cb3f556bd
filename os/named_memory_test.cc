// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/named_memory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/memfd.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using cohort_testing::Child;
using cohort_testing::Gate;
using cohort_testing::Shared;
using cohort_testing::StatusIs;

class NamedMemoryTest : public testing::Test {
 protected:
  ~NamedMemoryTest() override { (void)RemoveName(name_); }

  const std::string& Name() const { return name_; }
  Descriptor NewFile() const {
    absl::StatusOr<Descriptor> file = CreateNamelessMemory(5000);
    EXPECT_OK(file);
    return *std::move(file);
  }
  // Another open file of what has the name.
  NamedMemory Open() const {
    absl::StatusOr<NamedMemory> found = OpenNamedMemory(Name());
    EXPECT_OK(found);
    return *std::move(found);
  }

 private:
  const std::string name_ =
      "named_memory_test." + std::to_string(std::random_device()());
};

TEST_F(NamedMemoryTest, IsNamelessUntilItIsNamed) {
  const Descriptor file = NewFile();
  EXPECT_THAT(OpenNamedMemory(Name()), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(NameMemory(file, Name()));
  const NamedMemory found = Open();
  EXPECT_EQ(found.size, 5000u);
  ASSERT_OK_AND_ASSIGN(const FileId id, IdOf(file));
  EXPECT_EQ(found.id, id);
  EXPECT_TRUE(IsNameOf(Name(), id));
  EXPECT_THAT(NameMemory(NewFile(), Name()),
              StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> names, NamesOfMemory());
  EXPECT_EQ(std::count(names.begin(), names.end(), Name()), 1);
  EXPECT_OK(RemoveName(Name()));
  EXPECT_FALSE(IsNameOf(Name(), id));
  EXPECT_THAT(RemoveName(Name()), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(NamedMemoryTest, ItsPagesAreTaken) {
  struct stat facts;
  ASSERT_EQ(fstat(NewFile().get(), &facts), 0);
  EXPECT_GE(facts.st_blocks * 512, 5000);
  EXPECT_EQ(facts.st_mode & 07777, 01600u);
}

TEST_F(NamedMemoryTest, NamesOfOthersAreNotListed) {
  ASSERT_OK(NameMemory(NewFile(), Name()));
  const auto is_listed = [&] {
    absl::StatusOr<std::vector<std::string>> names = NamesOfMemory();
    EXPECT_OK(names);
    return std::count(names->begin(), names->end(), Name()) == 1;
  };
  EXPECT_TRUE(is_listed());
  const std::string path = "/dev/shm/" + Name();
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  EXPECT_FALSE(is_listed());
}

TEST_F(NamedMemoryTest, WhatLiesElsewhereIsRefused) {
  const Descriptor file = NewFile();
  ASSERT_OK_AND_ASSIGN(Descriptor twin, file.Duplicate());
  EXPECT_OK(CheckNamedMemory(std::move(twin)));
  ASSERT_OK_AND_ASSIGN(Descriptor memfd, CreateMemfd("elsewhere"));
  EXPECT_THAT(CheckNamedMemory(std::move(memfd)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       testing::HasSubstr("/dev/shm")));
}

TEST_F(NamedMemoryTest, OwnersKeepTheCleanerOutAndHimOnly) {
  const Descriptor owner = NewFile();
  ASSERT_TRUE(TryClaim(owner, Claim::kOwner));
  EXPECT_TRUE(TryClaim(owner, Claim::kOwner));
  ASSERT_OK(NameMemory(owner, Name()));
  EXPECT_EQ(WhoHas(owner), Holder::kNobody) << "other than itself";
  const NamedMemory other = Open();
  EXPECT_EQ(WhoHas(other.file), Holder::kOwner);
  EXPECT_FALSE(TryClaim(other.file, Claim::kCleaner));
  EXPECT_TRUE(TryClaim(other.file, Claim::kOwner));
  const NamedMemory remover = Open();
  EXPECT_TRUE(TryClaim(remover.file, Claim::kRemover));
  EXPECT_FALSE(TryClaim(Open().file, Claim::kRemover));
  EXPECT_EQ(WhoHas(Open().file), Holder::kOwner);
}

TEST_F(NamedMemoryTest, ACleanerKeepsEverybodyOut) {
  ASSERT_OK(NameMemory(NewFile(), Name()));
  {
    const NamedMemory cleaner = Open();
    ASSERT_TRUE(TryClaim(cleaner.file, Claim::kCleaner));
    const NamedMemory late = Open();
    EXPECT_EQ(WhoHas(late.file), Holder::kCleaner);
    EXPECT_FALSE(TryClaim(late.file, Claim::kOwner));
    EXPECT_FALSE(TryClaim(late.file, Claim::kRemover));
    EXPECT_FALSE(TryClaim(late.file, Claim::kCleaner));
  }
  EXPECT_TRUE(TryClaim(Open().file, Claim::kOwner));
}

TEST_F(NamedMemoryTest, AClaimEndsWithTheLastCopyOfItsOpenFile) {
  Descriptor owner = NewFile();
  ASSERT_TRUE(TryClaim(owner, Claim::kOwner));
  ASSERT_OK(NameMemory(owner, Name()));
  Shared<Gate> never;
  Child heir = Child::Fork([&] { never->Pass(); });
  owner.Reset();
  EXPECT_EQ(WhoHas(Open().file), Holder::kOwner);
  heir.Kill(SIGKILL);
  heir.Wait();
  EXPECT_EQ(WhoHas(Open().file), Holder::kNobody);
}

}  // namespace
}  // namespace cohort::os
