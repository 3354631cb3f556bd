// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/shared.h"

#include <fstream>
#include <string>
#include <utility>

#include "cohort/testing/child.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

struct Numbers {
  Numbers(int first, int second) : a(first), b(second) {}
  int a;
  int b;
};

TEST(SharedTest, IsSeenByParentAndChild) {
  Shared<int> value;
  EXPECT_EQ(*value, 0);
  *value = 1;
  EXPECT_EQ(Child::Fork([&] { return std::exchange(*value, 2); }).Wait(),
            Exited(1));
  EXPECT_EQ(*value, 2);
}

TEST(SharedTest, StartsAsZeroBytesWhateverTheConstructorSays) {
  struct Five {
    int value = 5;
  };
  EXPECT_EQ(Shared<Five>()->value, 0);
}

TEST(SharedTest, ConstructsFromArgumentsOnRequest) {
  const Shared<Numbers> numbers(std::in_place, 3, 4);
  EXPECT_EQ(numbers->a, 3);
  EXPECT_EQ(numbers->b, 4);
}

TEST(SharedTest, HoldsManyInARow) {
  Shared<int[]> row(3000);
  ASSERT_EQ(row.size(), 3000u);
  EXPECT_EQ(row[2999], 0);
  EXPECT_EQ(Child::Fork([&] { row.span().back() = 7; }).Wait(), Exited(0));
  EXPECT_EQ(row[2999], 7);
}

TEST(SharedTest, MovesWithoutMovingTheObject) {
  Shared<int> first;
  *first = 1;
  int* const address = first.get();
  Shared<int> second = std::move(first);
  EXPECT_EQ(second.get(), address);
  Shared<int> third;
  third = std::move(second);
  EXPECT_EQ(third.get(), address);
  EXPECT_EQ(*third, 1);
}

bool IsMapped(const void* address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t dash = line.find('-');
    const auto value = reinterpret_cast<uintptr_t>(address);
    if (std::stoull(line, nullptr, 16) <= value &&
        value < std::stoull(line.substr(dash + 1), nullptr, 16)) {
      return true;
    }
  }
  return false;
}

TEST(SharedTest, IsUnmappedAtTheEnd) {
  const void* address;
  {
    const Shared<char[]> pages(1 << 20);
    address = pages.data();
    EXPECT_TRUE(IsMapped(address));
  }
  EXPECT_FALSE(IsMapped(address));
}

}  // namespace
}  // namespace cohort_testing
