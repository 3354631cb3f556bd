// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/shared.h"

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
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
using cohort_testing::StatusIs;

constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

struct Board {
  Mutex mu;
  int64_t score ABSL_GUARDED_BY(mu) = 7;
};

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

class SharedTest : public testing::Test {
 private:
  cohort_testing::LeakGuard guard_;
};

template <typename T, typename From>
absl::StatusOr<Shared<T>> Cast(const Shared<From>& from) {
  absl::StatusOr<Frame> frame = Encode(from);
  if (!frame.ok()) return frame.status();
  return Decode<Shared<T>>(*std::move(frame));
}

TEST_F(SharedTest, ConstructsAggregatesInBracesAndClassesByConstructor) {
  ASSERT_OK_AND_ASSIGN(const Shared<Point> point, Shared<Point>::Create(5));
  EXPECT_EQ(point->x, 5);
  EXPECT_EQ(point->y, 2);
  ASSERT_OK_AND_ASSIGN(const Shared<Odd> odd, Shared<Odd>::Create(3));
  EXPECT_EQ(odd->value(), 7);
  ASSERT_OK_AND_ASSIGN(const auto count,
                       Shared<std::atomic<uint32_t>>::Create(4));
  EXPECT_EQ(*count, 4u);
  ASSERT_OK_AND_ASSIGN(const auto number, Shared<int64_t>::Create());
  EXPECT_EQ(*number, 0);
}

TEST_F(SharedTest, HoldsALockThatExcludesOtherProcesses) {
  constexpr int kRounds = 20'000;
  ASSERT_OK_AND_ASSIGN(const Shared<Board> board, Shared<Board>::Create());
  const auto play = [&] {
    for (int i = 0; i < kRounds; ++i) {
      MutexLock lock(board->mu);
      ++board->score;
    }
  };
  Child child = Child::Fork(play);
  play();
  ASSERT_EQ(child.Wait(), Exited(0));
  MutexLock lock(board->mu);
  EXPECT_EQ(board->score, 7 + 2 * kRounds);
}

TEST_F(SharedTest, CopiesAndReceivedHandlesMeanOneObject) {
  ASSERT_OK_AND_ASSIGN(const Shared<Point> made, Shared<Point>::Create());
  const Shared<Point> copy = made;
  EXPECT_EQ(copy.get(), made.get());
  ASSERT_OK_AND_ASSIGN(const Shared<Point> got, Cast<Point>(made));
  EXPECT_NE(got.get(), made.get());
  made->x = 77;
  EXPECT_EQ(got->x, 77);
  ASSERT_OK_AND_ASSIGN(os::Descriptor twin,
                       made.region().descriptor().Duplicate());
  ASSERT_OK_AND_ASSIGN(const Shared<Point> attached,
                       Shared<Point>::Attach(std::move(twin)));
  EXPECT_EQ(attached->x, 77);
}

TEST_F(SharedTest, ObjectOutlivesItsCreatorsHandle) {
  Shared<Point> kept;
  {
    ASSERT_OK_AND_ASSIGN(Shared<Point> made, Shared<Point>::Create(9));
    kept = std::move(made);
  }
  EXPECT_EQ(kept->x, 9);
}

TEST_F(SharedTest, RefusesAnObjectOfAnotherType) {
  struct SameShape {
    int x;
    int y;
  };
  ASSERT_OK_AND_ASSIGN(const Shared<Point> point, Shared<Point>::Create());
  EXPECT_THAT(Cast<SameShape>(point), StatusIs(kRefused));
  EXPECT_THAT(Cast<int64_t>(point), StatusIs(kRefused));
  EXPECT_THAT(Cast<Board>(point), StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(const Region bytes, Region::Create(sizeof(Point)));
  EXPECT_THAT(Shared<Point>::Attach(bytes), StatusIs(kRefused));
  EXPECT_THAT(Shared<Point>::Attach(Region()), StatusIs(kRefused));
}

TEST_F(SharedTest, EmptyHandleTravelsAsSuch) {
  const Shared<Point> empty;
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(empty.get(), nullptr);
  ASSERT_OK_AND_ASSIGN(const Shared<Point> got, Cast<Point>(empty));
  EXPECT_TRUE(got.empty());
}

TEST(SharedDeathTest, UseOfAnEmptyHandleIsFatal) {
  const Shared<Point> empty;
  EXPECT_DEATH((void)empty->x, "empty Shared<T> was used");
}

}  // namespace
}  // namespace cohort
