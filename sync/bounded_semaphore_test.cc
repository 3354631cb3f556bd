// SPDX-License-Identifier: Apache-2.0
//
// What a BoundedSemaphore has of its own, and that the rest is there. All that
// it shares with a Semaphore is tested in semaphore_test.cc.

#include "cohort/sync/bounded_semaphore.h"

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::IsOk;
using cohort_testing::KilledBy;
using cohort_testing::Shared;
using std::chrono::milliseconds;
using testing::HasSubstr;

static_assert(std::is_trivially_destructible_v<BoundedSemaphore>);
static_assert(std::is_standard_layout_v<BoundedSemaphore>);
static_assert(!std::is_copy_constructible_v<BoundedSemaphore>);
static_assert(!std::is_copy_assignable_v<BoundedSemaphore>);

TEST(BoundedSemaphoreTest, AllZeroBytesAreNoPermits) {
  alignas(
      BoundedSemaphore) static unsigned char bytes[sizeof(BoundedSemaphore)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) BoundedSemaphore;
  static const unsigned char zero[sizeof(BoundedSemaphore)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
  Shared<BoundedSemaphore> semaphore;
  EXPECT_FALSE(semaphore->try_acquire());
  EXPECT_EQ(semaphore->permits(), 0);
}

TEST(BoundedSemaphoreTest, CountsWhatIsFreeAndWhatIsHeld) {
  static constinit BoundedSemaphore semaphore(3);
  semaphore.acquire();
  EXPECT_TRUE(semaphore.try_acquire());
  EXPECT_TRUE(semaphore.try_acquire_for(absl::Milliseconds(1)));
  EXPECT_FALSE(semaphore.try_acquire_for(milliseconds(1)));
  EXPECT_FALSE(semaphore.try_acquire_until(Deadline::Now()));
  EXPECT_EQ(semaphore.held(), 3);
  EXPECT_THAT(semaphore.release(2), IsOk());
  EXPECT_EQ(semaphore.value(), 2);
  EXPECT_EQ(semaphore.permits(), 3);
  EXPECT_THAT(semaphore.release(), IsOk());
  EXPECT_THAT(semaphore.release(0), IsOk());
  EXPECT_EQ(semaphore.value(), 3);
}

TEST(BoundedSemaphoreTest, AReleaseTooManyIsAnErrorAndReleasesNothing) {
  BoundedSemaphore semaphore(3);
  absl::Status status = semaphore.release();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("holds 0 permits and releases 1"));
  EXPECT_EQ(semaphore.value(), 3);
  semaphore.acquire();
  semaphore.acquire();
  status = semaphore.release(3);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("holds 2 permits and releases 3"));
  EXPECT_EQ(semaphore.held(), 2);
  EXPECT_EQ(semaphore.value(), 1);
  status = semaphore.release(PTRDIFF_MAX);
  EXPECT_THAT(status.message(), HasSubstr("holds 2 permits"));
  EXPECT_EQ(semaphore.value(), 1);
  EXPECT_THAT(semaphore.release(2), IsOk());
  EXPECT_EQ(semaphore.value(), 3);
}

TEST(BoundedSemaphoreTest, OnlyTheHolderMayRelease) {
  Shared<BoundedSemaphore> semaphore(std::in_place, 2);
  semaphore->acquire();
  Child child = Child::Fork([&] {
    return semaphore->release().code() == absl::StatusCode::kFailedPrecondition
               ? 0
               : 1;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 1);
  EXPECT_THAT(semaphore->release(), IsOk());
}

// The waiters here do without slices: each wake-up has to be a real one.
TEST(BoundedSemaphoreTest, ReleaseWakes) {
  Shared<BoundedSemaphore> semaphore(std::in_place, 1);
  semaphore->acquire();
  auto visit = [&] {
    os::Slices::TurnOff();
    semaphore->acquire();
    return semaphore->release().ok() ? 0 : 1;
  };
  Child first = Child::Fork(visit);
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  Child second = Child::Fork(visit);
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  // An error wakes nobody and changes nothing.
  EXPECT_FALSE(semaphore->release(2).ok());
  EXPECT_THAT(semaphore->release(), IsOk());
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 1);
}

TEST(BoundedSemaphoreCrashTest, PermitsComeHome) {
  Shared<BoundedSemaphore> semaphore(std::in_place, 3);
  Child child = Child::Fork([&] {
    semaphore->acquire();
    semaphore->acquire();
    return raise(SIGKILL);
  });
  ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(semaphore->value(), 1);
  EXPECT_EQ(semaphore->reclaim(), 2);
  EXPECT_EQ(semaphore->value(), 3);
  // Nobody can release them once more.
  EXPECT_FALSE(semaphore->release().ok());
}

TEST(BoundedSemaphoreDeathTest, NegativeNumbersAreFatal) {
  BoundedSemaphore semaphore(1);
  EXPECT_DEATH((void)semaphore.release(-1),
               "^cohort: BoundedSemaphore: less than 0 permits released");
  EXPECT_DEATH(BoundedSemaphore(-1),
               "^cohort: BoundedSemaphore: permits not between 0 and max");
  EXPECT_DEATH(BoundedSemaphore(BoundedSemaphore::max() + 1),
               "permits not between 0 and max");
}

}  // namespace
}  // namespace cohort
