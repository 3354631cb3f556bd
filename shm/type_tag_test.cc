// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/type_tag.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace cohort {
namespace {

struct Old {
  int32_t n;
};
struct New {
  int32_t n;
};

TEST(TypeTagTest, DiffersByTypeRoleAndVersion) {
  constexpr uint64_t kTag = TypeTag<Old>("queue", 1);
  EXPECT_EQ(kTag, TypeTag<Old>("queue", 1));
  EXPECT_NE(kTag, TypeTag<New>("queue", 1));
  EXPECT_NE(kTag, TypeTag<Old>("message", 1));
  EXPECT_NE(kTag, TypeTag<Old>("queue", 2));
  EXPECT_NE(kTag, TypeTag<Old>("queue"));
}

TEST(TypeTagTest, IsNeverThatOfMemoryWithoutAType) {
  static_assert(TypeTag<Old>() != 0 && TypeTag<char[1]>() != 0);
}

}  // namespace
}  // namespace cohort
