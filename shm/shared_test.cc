// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/shared.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/leak_ledger.h"
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
using cohort_testing::StatusIs;

constexpr absl::StatusCode kAbsent = absl::StatusCode::kNotFound;
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

// What the tests below share by name.
struct Roll {
  explicit Roll(int maker) : maker(maker) {}
  const int maker;  // Of its several constructions one is seen by all.
  std::atomic<int> present = 0;
};

class SharedNameTest : public SharedTest {
 protected:
  SharedNameTest() : name_(absl::StrCat("cohort-test-shared-", getpid())) {}

  // Opens it or dies with it open, as `end` says.
  template <typename End>
  Child Owner(Gate& opened, End end) {
    Child child = Child::Fork([&] {
      ASSERT_OK_AND_ASSIGN(const auto roll,
                           Shared<Roll>::OpenOrCreate(name_, getpid()));
      ++roll->present;
      opened.Open();
      end();
    });
    opened.Pass();
    return child;
  }

  const std::string name_;
};

TEST_F(SharedNameTest, OfManyAtOnceOneConstructsItForAll) {
  constexpr int kMany = 8;
  struct Meeting {
    Gate start;
    std::atomic<int> makers[kMany];
  };
  const cohort_testing::Shared<Meeting> meeting;
  for (int round = 0; round < 20; ++round) {
    new (meeting.get()) Meeting();
    std::vector<Child> children;
    for (int i = 0; i < kMany; ++i) {
      children.push_back(Child::Fork([&, i] {
        meeting->start.Pass();
        ASSERT_OK_AND_ASSIGN(const auto roll,
                             Shared<Roll>::OpenOrCreate(name_, getpid()));
        meeting->makers[i] = roll->maker;
        // Nobody leaves before all have come, or the name might go.
        ++roll->present;
        while (roll->present < kMany) std::this_thread::yield();
      }));
    }
    meeting->start.Open();
    bool made_here = false;
    for (Child& child : children) {
      EXPECT_EQ(child.Wait(), Exited(0));
      made_here |= child.pid() == meeting->makers[0];
    }
    EXPECT_TRUE(made_here);
    for (const std::atomic<int>& maker : meeting->makers) {
      EXPECT_EQ(maker, meeting->makers[0]);
    }
    EXPECT_THAT(Shared<Roll>::Open(name_), StatusIs(kAbsent)) << "it stayed";
  }
}

TEST_F(SharedNameTest, AnotherTypeIsRefused) {
  struct SameShape {
    const int maker = 0;
    std::atomic<int> present = 0;
  };
  ASSERT_OK_AND_ASSIGN(const auto roll, Shared<Roll>::OpenOrCreate(name_, 1));
  EXPECT_THAT(Shared<SameShape>::Open(name_), StatusIs(kRefused));
  EXPECT_THAT(Shared<SameShape>::OpenOrCreate(name_), StatusIs(kRefused));
  EXPECT_THAT(Shared<Board>::OpenOrCreate(name_), StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(const auto opened, Shared<Roll>::Open(name_));
  EXPECT_EQ(opened->maker, 1);
  const std::string plain = name_ + ".plain";
  ASSERT_OK_AND_ASSIGN(const Region bytes,
                       Region::CreateNamed(plain, {.size = sizeof(Roll)}));
  EXPECT_THAT(Shared<Roll>::Open(plain), StatusIs(kRefused));
}

TEST_F(SharedNameTest, NameGoesWithTheLastOwner) {
  const cohort_testing::Shared<Gate> opened;
  const cohort_testing::Shared<Gate> leave;
  {
    Shared<Roll> first;
    {
      ASSERT_OK_AND_ASSIGN(first, Shared<Roll>::OpenOrCreate(name_, 1));
      Child other = Owner(*opened, [&] { leave->Pass(); });
      first = Shared<Roll>();
      ASSERT_OK_AND_ASSIGN(first, Shared<Roll>::Open(name_));
      EXPECT_EQ(first->present, 1);
      leave->Open();
      EXPECT_EQ(other.Wait(), Exited(0));
    }
    EXPECT_OK(Shared<Roll>::Open(name_));
  }
  EXPECT_THAT(Shared<Roll>::Open(name_), StatusIs(kAbsent));
}

TEST_F(SharedNameTest, KilledOwnersLeaveNothing) {
  const cohort_testing::Shared<Gate> opened;
  EXPECT_EQ(Owner(*opened, [] { raise(SIGKILL); }).Wait(), KilledBy(SIGKILL));
  EXPECT_THAT(Shared<Roll>::Open(name_), StatusIs(kAbsent));
  EXPECT_EQ(Owner(*opened, [] { raise(SIGKILL); }).Wait(), KilledBy(SIGKILL));
  ASSERT_OK_AND_ASSIGN(const auto roll, Shared<Roll>::OpenOrCreate(name_, 5));
  EXPECT_EQ(roll->maker, 5) << "the object of the dead was taken over";
  // One of two owners dies: the other still has it.
  EXPECT_EQ(Owner(*opened, [] { raise(SIGKILL); }).Wait(), KilledBy(SIGKILL));
  ASSERT_OK_AND_ASSIGN(const auto same, Shared<Roll>::Open(name_));
  EXPECT_EQ(same->present, 1);
}

TEST_F(SharedNameTest, UnlinkTakesTheNameNotTheObject) {
  ASSERT_OK_AND_ASSIGN(const auto old, Shared<Roll>::OpenOrCreate(name_, 1));
  EXPECT_OK(Shared<Roll>::Unlink(name_));
  EXPECT_THAT(Shared<Roll>::Unlink(name_), StatusIs(kAbsent));
  ASSERT_OK_AND_ASSIGN(const auto young, Shared<Roll>::OpenOrCreate(name_, 2));
  EXPECT_EQ(old->maker, 1);
  EXPECT_EQ(young->maker, 2);
}

TEST_F(SharedNameTest, ReceiverOfAHandleIsAnOwner) {
  Shared<Roll> got;
  {
    ASSERT_OK_AND_ASSIGN(const auto made, Shared<Roll>::OpenOrCreate(name_, 3));
    ASSERT_OK_AND_ASSIGN(got, Cast<Roll>(made));
  }
  ASSERT_OK_AND_ASSIGN(const auto opened, Shared<Roll>::Open(name_));
  EXPECT_EQ(opened->maker, 3);
}

TEST(SharedDeathTest, UseOfAnEmptyHandleIsFatal) {
  const Shared<Point> empty;
  EXPECT_DEATH((void)empty->x, "empty Shared<T> was used");
}

}  // namespace
}  // namespace cohort
