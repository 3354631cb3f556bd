// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/internal/split.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

namespace cohort::serialize_internal {
// What a structured binding takes apart in its own way.
struct LikeATuple {
  int a;
  bool b;
};
}  // namespace cohort::serialize_internal

template <>
struct std::tuple_size<cohort::serialize_internal::LikeATuple>
    : std::integral_constant<size_t, 1> {};

namespace cohort::serialize_internal {
namespace {

struct Pair {
  int a;
  int b;
};
struct Four {
  int a, b, c, d;
};
struct WithArray {
  int x;
  bool b[3];
};
struct WithPair {
  Pair s;
  int x;
  bool b;
};
struct LargeFirst {
  Four s;
  int c;
};
struct TwoDimensions {
  int m[2][2];
  Pair s;
  double z;
};
struct ArraysOfClasses {
  bool b[1];
  Pair s[2];
  int z;
};
struct ArraysLast {
  Pair s;
  Pair t[2];
  bool b[2];
};
struct Classes {
  std::optional<bool> o;
  std::array<int, 3> r;
  bool b;
};
struct Empty {};
struct WithEmpty {
  Empty e;
  bool b;
};
struct BitFields {
  int a : 3;
  bool b : 1;
  int c;
};
struct Base {
  int q;
};
struct Derived : Base {
  bool b;
};
struct UnnamedUnion {
  union {
    int a;
    float f;
  };
  bool b;
};
struct TooMany {
  char c[40];
  bool b;
};
class Private {
 public:
  bool b = false;

 private:
  [[maybe_unused]] int hidden_ = 0;
};

TEST(SplitTest, MembersAreCountedWithArraysAsOne) {
  EXPECT_EQ(CountMembers<Pair>(), 2u);
  EXPECT_EQ(CountMembers<WithArray>(), 2u);
  EXPECT_EQ(CountMembers<WithPair>(), 3u);
  EXPECT_EQ(CountMembers<LargeFirst>(), 2u);
  EXPECT_EQ(CountMembers<TwoDimensions>(), 3u);
  EXPECT_EQ(CountMembers<ArraysOfClasses>(), 3u);
  EXPECT_EQ(CountMembers<ArraysLast>(), 3u);
  EXPECT_EQ(CountMembers<Classes>(), 3u);
  EXPECT_EQ(CountMembers<WithEmpty>(), 2u);
  EXPECT_EQ(CountMembers<BitFields>(), 3u);
}

TEST(SplitTest, WhatCannotBeSplitHasNone) {
  EXPECT_EQ(CountMembers<LikeATuple>(), 0u);
  EXPECT_EQ(CountMembers<int>(), 0u);
  EXPECT_EQ(CountMembers<Empty>(), 0u);
  EXPECT_EQ(CountMembers<Derived>(), 0u);
  EXPECT_EQ(CountMembers<UnnamedUnion>(), 0u);
  EXPECT_EQ(CountMembers<TooMany>(), 0u);
  EXPECT_EQ(CountMembers<Private>(), 0u);
}

// Where each member of T is said to be.
template <class T>
std::vector<size_t> Offsets() {
  const T value = {};
  const auto* const from = reinterpret_cast<const char*>(&value);
  return Split(value, [from](const auto&... member) {
    return std::vector<size_t>{
        static_cast<size_t>(reinterpret_cast<const char*>(&member) - from)...};
  });
}

TEST(SplitTest, MembersAreTheMembers) {
  using Each = std::vector<size_t>;
  EXPECT_EQ(Offsets<WithArray>(), (Each{0, offsetof(WithArray, b)}));
  EXPECT_EQ(Offsets<WithPair>(),
            (Each{0, offsetof(WithPair, x), offsetof(WithPair, b)}));
  EXPECT_EQ(Offsets<TwoDimensions>(),
            (Each{0, offsetof(TwoDimensions, s), offsetof(TwoDimensions, z)}));
  EXPECT_EQ(Offsets<ArraysLast>(),
            (Each{0, offsetof(ArraysLast, t), offsetof(ArraysLast, b)}));
}

}  // namespace
}  // namespace cohort::serialize_internal
