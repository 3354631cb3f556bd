// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "cohort/os/memfd.h"
#include "cohort/testing/child.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::Child;
using ::cohort_testing::Exited;
using ::cohort_testing::IsOk;
using ::cohort_testing::StatusIs;

bool IsMapped(const void* page) {
  unsigned char resident;
  return mincore(const_cast<void*>(page), 1, &resident) == 0;
}

TEST(MappingTest, UnmapsAtTheEndOfItsLifeAndNotBefore) {
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("mapping_test", 4096);
  ASSERT_THAT(memfd, IsOk());
  std::byte* page;
  {
    absl::StatusOr<Mapping> map = Mapping::Map(*memfd, 4096);
    ASSERT_THAT(map, IsOk());
    page = map->data();
    const Mapping moved = *std::move(map);
    EXPECT_EQ(moved.data(), page);
    EXPECT_TRUE(IsMapped(page));
  }
  EXPECT_FALSE(IsMapped(page));
}

TEST(MappingTest, StaysWhenItsDescriptorIsClosed) {
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("mapping_test", 4096);
  ASSERT_THAT(memfd, IsOk());
  absl::StatusOr<Mapping> map = Mapping::Map(*memfd, 4096);
  ASSERT_THAT(map, IsOk());
  memfd->Reset();
  map->data()[0] = std::byte{1};
  EXPECT_EQ(map->data()[0], std::byte{1});
}

TEST(MappingTest, OneForThisProcessIsNotItsChilds) {
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("mapping_test", 4096);
  ASSERT_THAT(memfd, IsOk());
  absl::StatusOr<Mapping> map = Mapping::MapForThisProcess(*memfd, 4096);
  ASSERT_THAT(map, IsOk());
  const auto child_has_it = [&] {
    return Child::Fork([&] { return IsMapped(map->data()) ? 1 : 0; }).Wait() !=
           Exited(0);
  };
  EXPECT_FALSE(child_has_it());
  ASSERT_THAT(map->ReplaceBy(*memfd, /*writable=*/false), IsOk());
  EXPECT_TRUE(child_has_it());
  ASSERT_THAT(map->ReplaceForThisProcess(*memfd), IsOk());
  map->data()[0] = std::byte{1};
  EXPECT_FALSE(child_has_it());
}

TEST(MappingTest, WhatCannotBeMappedIsAStatus) {
  EXPECT_THAT(Mapping::Map(Descriptor(), 4096),
              StatusIs(absl::StatusCode::kInvalidArgument));
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("mapping_test", 4096);
  ASSERT_THAT(memfd, IsOk());
  EXPECT_THAT(Mapping::Map(*memfd, ~size_t{0} - 8192),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace cohort::os
