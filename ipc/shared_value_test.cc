// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/shared_value.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::IsOkAndHolds;
using cohort_testing::KilledBy;
using cohort_testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::StatusCode kDamaged = absl::StatusCode::kDataLoss;
constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

enum class Color : uint8_t { kRed, kGreen };

struct Point {
  int x = 1;
  int y = 2;
};

class Odd {
 public:
  explicit Odd(int half) : value_(2 * half + 1) {}
  int value() const { return value_; }

 private:
  int value_;
};

// Cannot be copied, but used in place.
struct Tally {
  std::atomic<int> count = 3;
  Mutex inner;
};

class SharedValueTest : public testing::Test {
 private:
  cohort_testing::LeakGuard guard_;
};

// A handle as another process receives it.
template <typename To, typename From>
absl::StatusOr<To> Sent(const From& from) {
  absl::StatusOr<Frame> frame = Encode(from);
  if (!frame.ok()) return frame.status();
  return Decode<To>(*std::move(frame));
}

// A process that dies in the middle of a change.
template <typename T, typename Change>
void DieIn(const SharedValue<T>& value, Change change) {
  ASSERT_EQ(Child::Fork([&] {
              (void)value.With([&](T& now) {
                change(now);
                raise(SIGKILL);
              });
            }).Wait(),
            KilledBy(SIGKILL));
}

TEST_F(SharedValueTest, IsCountedExactlyByManyProcesses) {
  constexpr int kRounds = 20'000;
  ASSERT_OK_AND_ASSIGN(const auto hits, SharedValue<int64_t>::Create(5));
  const auto count = [&] {
    for (int i = 0; i < kRounds; ++i) {
      EXPECT_OK(hits.With([](int64_t& n) { ++n; }));
    }
  };
  std::vector<Child> children;
  for (int i = 0; i < 3; ++i) children.push_back(Child::Fork(count));
  count();
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_THAT(hits.Load(), IsOkAndHolds(5 + 4 * kRounds));
}

TEST_F(SharedValueTest, HoldsNumbersArraysAndStructs) {
  ASSERT_OK_AND_ASSIGN(const auto flag, SharedValue<bool>::Create());
  EXPECT_THAT(flag.Load(), IsOkAndHolds(false));
  flag.Store(true);
  EXPECT_THAT(flag.Load(), IsOkAndHolds(true));

  ASSERT_OK_AND_ASSIGN(const auto ratio, SharedValue<double>::Create(0.5));
  EXPECT_OK(ratio.With([](double& x) { x *= 3; }));
  EXPECT_THAT(ratio.Load(), IsOkAndHolds(1.5));

  ASSERT_OK_AND_ASSIGN(const auto color,
                       SharedValue<Color>::Create(Color::kGreen));
  EXPECT_THAT(color.Load(), IsOkAndHolds(Color::kGreen));

  using Three = std::array<int, 3>;
  ASSERT_OK_AND_ASSIGN(const auto three, SharedValue<Three>::Create(1, 2, 3));
  EXPECT_OK(three.With([](Three& all) { all[1] = 7; }));
  EXPECT_THAT(three.Load(), IsOkAndHolds(ElementsAre(1, 7, 3)));

  ASSERT_OK_AND_ASSIGN(const auto point, SharedValue<Point>::Create(5));
  EXPECT_THAT(point.With([](Point& p) { return p.x * 10 + p.y; }),
              IsOkAndHolds(52));
  point.Store({.x = 3, .y = 4});
  EXPECT_EQ(point.raw().y, 4);

  ASSERT_OK_AND_ASSIGN(const auto odd, SharedValue<Odd>::Create(3));
  EXPECT_THAT(odd.With(&Odd::value), IsOkAndHolds(7));

  ASSERT_OK_AND_ASSIGN(const auto tally, SharedValue<Tally>::Create());
  EXPECT_THAT(tally.With([](Tally& t) {
    const MutexLock lock(t.inner);
    return ++t.count;
  }),
              IsOkAndHolds(4));
}

TEST_F(SharedValueTest, ResultsOfAFunctionFlatten) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create(8));
  const auto nothing = [](int&) {};
  const auto number = [](int& n) { return n / 2; };
  const auto reference = [](int& n) -> int& { return n; };
  const auto status = [](int&) { return absl::NotFoundError("status"); };
  const auto either = [](int&) -> absl::StatusOr<std::string> {
    return absl::AbortedError("either");
  };
  static_assert(std::is_same_v<decltype(value.With(nothing)), absl::Status>);
  static_assert(
      std::is_same_v<decltype(value.With(reference)), absl::StatusOr<int>>);
  static_assert(std::is_same_v<decltype(value.With(either, nothing)),
                               absl::StatusOr<std::string>>);
  EXPECT_OK(value.With(nothing));
  EXPECT_THAT(value.With(number), IsOkAndHolds(4));
  EXPECT_THAT(value.With(number, nothing), IsOkAndHolds(4));
  EXPECT_THAT(value.With(reference), IsOkAndHolds(8));
  EXPECT_THAT(value.With(status), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(value.With(either), StatusIs(absl::StatusCode::kAborted));
}

TEST_F(SharedValueTest, DeathInsideIsDataLossUntilRepaired) {
  ASSERT_OK_AND_ASSIGN(const auto point, SharedValue<Point>::Create(1, 1));
  DieIn(point, [](Point& p) { p.x = 9; });
  const auto never = [](Point&) { ADD_FAILURE() << "called on torn data"; };
  EXPECT_THAT(point.With(never), StatusIs(kDamaged, HasSubstr("repair")));
  EXPECT_THAT(point.Load(), StatusIs(kDamaged));
  EXPECT_THAT(point.With(never), StatusIs(kDamaged)) << "it was forgotten";

  const auto mend = [](Point& p) { p.y = p.x; };
  EXPECT_THAT(point.With([](Point& p) { return p.x + p.y; }, mend),
              IsOkAndHolds(18));
  EXPECT_OK(point.With([](Point& p) { p.x = 4; }));
  EXPECT_THAT(point.With([](Point& p) { return p.x + p.y; },
                         [](Point&) { ADD_FAILURE() << "repaired twice"; }),
              IsOkAndHolds(13));
}

TEST_F(SharedValueTest, StoreMakesItWhole) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create(1));
  DieIn(value, [](int& n) { n = 2; });
  EXPECT_THAT(value.Load(), StatusIs(kDamaged));
  value.Store(3);
  EXPECT_THAT(value.Load(), IsOkAndHolds(3));
}

TEST_F(SharedValueTest, RepairThatDiesOrThrowsIsDoneAgain) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create(1));
  DieIn(value, [](int& n) { n = 2; });
  const auto nothing = [](int&) {};
  ASSERT_EQ(Child::Fork([&] {
              (void)value.With(nothing, [](int&) { raise(SIGKILL); });
            }).Wait(),
            KilledBy(SIGKILL));
  EXPECT_THROW((void)value.With(
                   nothing, [](int&) { throw std::runtime_error("repair"); }),
               std::runtime_error);
  EXPECT_THAT(value.Load(), StatusIs(kDamaged));
  EXPECT_OK(value.With(nothing, [](int& n) { n = 5; }));
  EXPECT_THAT(value.Load(), IsOkAndHolds(5));
}

TEST_F(SharedValueTest, WhatAFunctionThrowsPassesThrough) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create(1));
  EXPECT_THROW((void)value.With([](int& n) -> int {
    n = 2;
    throw std::runtime_error("half done");
  }),
               std::runtime_error);
  EXPECT_THAT(value.Load(), IsOkAndHolds(2));
}

TEST_F(SharedValueTest, LockMayBeHeldByHand) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create(1));
  {
    const MutexLock lock(value.mutex());
    ++value.raw();
  }
  EXPECT_THAT(value.Load(), IsOkAndHolds(2));
  ASSERT_EQ(Child::Fork([&] {
              const MutexLock lock(value.mutex());
              raise(SIGKILL);
            }).Wait(),
            KilledBy(SIGKILL));
  EXPECT_THAT(value.Load(), StatusIs(kDamaged));
}

TEST_F(SharedValueTest, AtomicNeedsNoLock) {
  constexpr int kRounds = 20'000;
  ASSERT_OK_AND_ASSIGN(const auto hits, SharedValue<int>::Create());
  const MutexLock lock(hits.mutex());  // Keeps nobody out.
  const auto count = [&] {
    for (int i = 0; i < kRounds; ++i) ++hits.atomic();
  };
  Child child = Child::Fork(count);
  count();
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(hits.atomic().load(), 2 * kRounds);
  // Two ints in one word need its alignment.
  ASSERT_OK_AND_ASSIGN(const auto point, SharedValue<Point>::Create());
  point.atomic().store({.x = 8, .y = 9});
  EXPECT_EQ(point.atomic().load().y, 9);
}

TEST_F(SharedValueTest, CopiesAndReceivedHandlesMeanOneValue) {
  ASSERT_OK_AND_ASSIGN(const auto made, SharedValue<int>::Create(1));
  const SharedValue<int> copy = made;
  EXPECT_EQ(&copy.raw(), &made.raw());
  ASSERT_OK_AND_ASSIGN(const auto got, Sent<SharedValue<int>>(made));
  EXPECT_NE(&got.raw(), &made.raw());
  made.Store(77);
  EXPECT_THAT(got.Load(), IsOkAndHolds(77));
  const SharedValue<int> empty;
  EXPECT_TRUE(empty.empty());
  ASSERT_OK_AND_ASSIGN(const auto nothing, Sent<SharedValue<int>>(empty));
  EXPECT_TRUE(nothing.empty());
}

TEST_F(SharedValueTest, RefusesWhatIsNoSuchValue) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create());
  EXPECT_THAT(Sent<SharedValue<unsigned>>(value), StatusIs(kRefused));
  EXPECT_THAT(Sent<Shared<int>>(value), StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(const auto object, Shared<int>::Create());
  EXPECT_THAT(Sent<SharedValue<int>>(object), StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(const auto bytes, Region::Create(48));
  EXPECT_THAT(Sent<SharedValue<int>>(bytes), StatusIs(kRefused));
}

// As docs/formats/shared_value.md draws it.
TEST_F(SharedValueTest, ValueStandsFirst) {
  using Int = ipc_internal::ValueCell<int>;
  using Array = ipc_internal::ValueCell<std::array<char, 13>>;
  static_assert(sizeof(Int) == 48 && sizeof(Array) == 56);
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create(7));
  const auto* const first = reinterpret_cast<const std::byte*>(&value.raw());
  const auto* const lock = reinterpret_cast<const std::byte*>(&value.mutex());
  EXPECT_EQ(lock - first, 8);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 4096, 0u);
}

TEST_F(SharedValueTest, ProgramsMeetByName) {
  const std::string name = absl::StrCat("cohort-test-value-", getpid());
  EXPECT_THAT(SharedValue<int>::Open(name),
              StatusIs(absl::StatusCode::kNotFound));
  {
    ASSERT_OK_AND_ASSIGN(const auto made,
                         SharedValue<int>::OpenOrCreate(name, 6));
    EXPECT_EQ(Child::Fork([&] {
                ASSERT_OK_AND_ASSIGN(const auto opened,
                                     SharedValue<int>::OpenOrCreate(name, 1));
                EXPECT_OK(opened.With([](int& n) { ++n; }));
                EXPECT_THAT(SharedValue<unsigned>::Open(name),
                            StatusIs(kRefused));
              }).Wait(),
              Exited(0));
    EXPECT_THAT(made.Load(), IsOkAndHolds(7));
    EXPECT_OK(SharedValue<int>::Open(name));
  }
  EXPECT_THAT(SharedValue<int>::Open(name),
              StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto again,
                       SharedValue<int>::OpenOrCreate(name, 2));
  EXPECT_THAT(again.Load(), IsOkAndHolds(2));
  EXPECT_OK(SharedValue<int>::Unlink(name));
  EXPECT_THAT(SharedValue<int>::Unlink(name),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(again.Load(), IsOkAndHolds(2));
}

TEST(SharedValueDeathTest, WithInsideWithIsFatal) {
  ASSERT_OK_AND_ASSIGN(const auto value, SharedValue<int>::Create());
  EXPECT_DEATH((void)value.With([&](int&) { value.Store(1); }),
               "locked again by its holder");
}

TEST(SharedValueDeathTest, UseOfAnEmptyHandleIsFatal) {
  const SharedValue<int> empty;
  EXPECT_DEATH((void)empty.Load(), "empty SharedValue<T> was used");
}

}  // namespace
}  // namespace cohort
