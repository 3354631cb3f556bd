// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/offset_ptr.h"

#include <algorithm>
#include <array>
#include <boost/intrusive/pointer_traits.hpp>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <utility>

#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

struct Base {
  int base = 1;
};
struct Derived : Base {
  int derived = 2;
};

static_assert(std::random_access_iterator<OffsetPtr<int>>);
static_assert(std::random_access_iterator<OffsetPtr<const int>>);
static_assert(std::totally_ordered<OffsetPtr<int>>);
static_assert(std::convertible_to<OffsetPtr<int>, OffsetPtr<const int>>);
static_assert(std::convertible_to<OffsetPtr<int>, OffsetPtr<void>>);
static_assert(std::convertible_to<OffsetPtr<Derived>, OffsetPtr<Base>>);
static_assert(!std::convertible_to<OffsetPtr<const int>, OffsetPtr<int>>);
static_assert(!std::constructible_from<OffsetPtr<int>, OffsetPtr<const int>>);
static_assert(!std::convertible_to<OffsetPtr<void>, OffsetPtr<int>>);
static_assert(std::constructible_from<OffsetPtr<int>, OffsetPtr<void>>);
static_assert(std::constructible_from<OffsetPtr<Derived>, OffsetPtr<Base>>);
static_assert(!std::constructible_from<OffsetPtr<int>, OffsetPtr<float>>);
static_assert(std::same_as<std::pointer_traits<OffsetPtr<int>>::rebind<char>,
                           OffsetPtr<char>>);
static_assert(!OffsetPtr<int>());  // Made by the compiler.

TEST(OffsetPtrTest, NullIsAllZero) {
  OffsetPtr<int> null;
  const std::array<char, sizeof(null)> zero = {};
  EXPECT_EQ(std::memcmp(&null, zero.data(), sizeof(null)), 0);
  EXPECT_EQ(null, nullptr);
  EXPECT_EQ(null.get(), nullptr);
  EXPECT_FALSE(null);
  int number = 0;
  null = &number;
  EXPECT_TRUE(null);
  null = nullptr;
  EXPECT_EQ(null.get(), nullptr);
  null = 0;  // As old code writes it.
  EXPECT_EQ(null.get(), nullptr);
}

TEST(OffsetPtrTest, MayPointToItselfAndAround) {
  OffsetPtr<char> pointer;
  char* const self = reinterpret_cast<char*>(&pointer);
  for (int distance = -9; distance <= 9; ++distance) {
    pointer = self + distance;
    EXPECT_NE(pointer, nullptr) << distance;
    EXPECT_EQ(pointer.get(), self + distance) << distance;
  }
}

TEST(OffsetPtrTest, CopiesHaveTheSameTarget) {
  int number = 7;
  auto there = std::make_unique<OffsetPtr<int>>(&number);
  OffsetPtr<int> here = *there;
  EXPECT_EQ(here.get(), &number);
  std::swap(here, *there);
  EXPECT_EQ(here.get(), &number);
  EXPECT_EQ(there->get(), &number);
  const OffsetPtr<const int> constant = here;
  EXPECT_EQ(*constant, 7);
  *there = nullptr;
  here = *there;
  EXPECT_EQ(here, nullptr);
}

TEST(OffsetPtrTest, MovedBytesMoveTheTarget) {
  struct Both {
    int number = 1;
    OffsetPtr<int> pointer;
  };
  alignas(Both) std::array<std::byte, sizeof(Both)> first;
  alignas(Both) std::array<std::byte, sizeof(Both)> second;
  Both* const both = new (first.data()) Both;
  both->pointer = &both->number;
  std::memcpy(second.data(), first.data(), sizeof(Both));
  Both* const other = reinterpret_cast<Both*>(second.data());
  EXPECT_EQ(other->pointer.get(), &other->number);
}

TEST(OffsetPtrTest, GoesThroughAnArray) {
  std::array<int, 5> numbers = {5, 3, 4, 1, 2};
  const OffsetPtr<int> begin = numbers.data();
  const OffsetPtr<int> end = begin + 5;
  EXPECT_EQ(end - begin, 5);
  EXPECT_EQ(end - 5, begin);
  EXPECT_EQ(5 + begin, end);
  EXPECT_LT(begin, end);
  EXPECT_GE(end, begin);
  EXPECT_EQ(begin[2], 4);
  std::sort(begin, end);
  EXPECT_EQ(numbers, (std::array<int, 5>{1, 2, 3, 4, 5}));
  OffsetPtr<int> at = begin;
  EXPECT_EQ(*at++, 1);
  EXPECT_EQ(*++at, 3);
  EXPECT_EQ(*at--, 3);
  EXPECT_EQ(*--at, 1);
  at += 3;
  EXPECT_EQ(*at, 4);
  at -= 2;
  EXPECT_EQ(*at, 2);
  EXPECT_EQ(at, &numbers[1]);
}

TEST(OffsetPtrTest, CastsAsPointersDo) {
  Derived object;
  const OffsetPtr<Derived> derived = &object;
  const OffsetPtr<Base> base = derived;
  EXPECT_EQ(base->base, 1);
  EXPECT_EQ(OffsetPtr<Derived>(base)->derived, 2);
  const OffsetPtr<void> nameless = base;
  EXPECT_EQ(OffsetPtr<Base>(nameless), base);
  EXPECT_EQ(OffsetPtr<Derived>::static_cast_from(base), derived);
  EXPECT_EQ(OffsetPtr<Base>::const_cast_from(OffsetPtr<const Base>(base)),
            base);
  using Traits = boost::intrusive::pointer_traits<OffsetPtr<Derived>>;
  EXPECT_EQ(Traits::static_cast_from(base), derived);
  EXPECT_EQ(Traits::pointer_to(object), derived);
  EXPECT_EQ(std::pointer_traits<OffsetPtr<Derived>>::pointer_to(object),
            derived);
  EXPECT_EQ(std::to_address(derived), &object);
}

TEST(OffsetPtrTest, LinksNodes) {
  struct Node {
    int value = 0;
    OffsetPtr<Node> next;
  };
  cohort_testing::Shared<Node[]> nodes(10);
  for (int i = 0; i < 10; ++i) {
    nodes[i].value = i;
    nodes[i].next = i < 9 ? &nodes[i + 1] : nullptr;
  }
  int sum = 0;
  for (Node* node = &nodes[0]; node != nullptr; node = node->next.get()) {
    sum += node->value;
  }
  EXPECT_EQ(sum, 45);
}

}  // namespace
}  // namespace cohort
