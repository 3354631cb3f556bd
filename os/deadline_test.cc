// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/deadline.h"

#include <chrono>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using std::chrono::duration;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST(DeadlineTest, InfiniteNeverPasses) {
  EXPECT_TRUE(Deadline().infinite());
  EXPECT_EQ(Deadline(), Deadline::Infinite());
  EXPECT_FALSE(Deadline::Infinite().Passed());
}

TEST(DeadlineTest, NowHasPassed) {
  EXPECT_TRUE(Deadline::Now().Passed());
  EXPECT_FALSE(Deadline::Now().infinite());
  EXPECT_TRUE(Deadline::AtNanoseconds(os::NowNanoseconds()).Passed());
}

TEST(DeadlineTest, ZeroAndLessHavePassed) {
  EXPECT_TRUE(Deadline::After(seconds(0)).Passed());
  EXPECT_TRUE(Deadline::After(seconds(-1)).Passed());
  EXPECT_TRUE(Deadline::After(hours::min()).Passed());
  EXPECT_TRUE(Deadline::After(duration<double>(-1e300)).Passed());
  EXPECT_TRUE(Deadline::After(absl::ZeroDuration()).Passed());
  EXPECT_TRUE(Deadline::After(-absl::InfiniteDuration()).Passed());
  EXPECT_TRUE(Deadline::AtNanoseconds(-5).Passed());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(Deadline::After(duration<double>(nan)).Passed());
}

TEST(DeadlineTest, TooFarIsInfinite) {
  EXPECT_TRUE(Deadline::After(nanoseconds::max()).infinite());
  EXPECT_TRUE(Deadline::After(hours::max()).infinite());
  EXPECT_TRUE(Deadline::After(duration<double>(1e300)).infinite());
  EXPECT_TRUE(Deadline::After(absl::InfiniteDuration()).infinite());
  EXPECT_TRUE(Deadline::After(absl::Hours(24 * 366 * 300)).infinite());
}

TEST(DeadlineTest, CountsFromNow) {
  const int64_t before = os::NowNanoseconds();
  const Deadline chrono = Deadline::After(milliseconds(50'000));
  const Deadline absl = Deadline::After(absl::Seconds(50));
  const Deadline fraction = Deadline::After(duration<double>(50.0));
  const int64_t after = os::NowNanoseconds();
  for (Deadline deadline : {chrono, absl, fraction}) {
    EXPECT_GE(deadline.nanoseconds(), before + 50'000'000'000);
    EXPECT_LE(deadline.nanoseconds(), after + 50'000'000'000);
    EXPECT_FALSE(deadline.Passed());
  }
}

TEST(DeadlineTest, IsATimePointOfTheSteadyClock) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point now = Clock::now();
  const Deadline deadline = now;
  EXPECT_EQ(deadline.nanoseconds(), now.time_since_epoch().count());
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(Deadline(now + std::chrono::hours(1)).Passed());
  EXPECT_TRUE(Deadline(Clock::time_point::max()).infinite());
  EXPECT_TRUE(Deadline(Clock::time_point::min()).Passed());
  EXPECT_EQ(Deadline(std::chrono::time_point<Clock, std::chrono::seconds>(
                         std::chrono::seconds(2)))
                .nanoseconds(),
            2'000'000'000);
}

TEST(DeadlineTest, PassesWithTime) {
  const Deadline soon = Deadline::After(milliseconds(1));
  while (!soon.Passed()) {
  }
  EXPECT_GE(os::NowNanoseconds(), soon.nanoseconds());
}

TEST(DeadlineTest, Orders) {
  constexpr Deadline kEarly = Deadline::AtNanoseconds(1);
  constexpr Deadline kLate = Deadline::AtNanoseconds(2);
  static_assert(kEarly < kLate && kLate < Deadline::Infinite());
  static_assert(kEarly.Earlier(kLate) == kEarly);
  static_assert(kLate.Earlier(kEarly) == kEarly);
  static_assert(Deadline::Infinite().Earlier(kLate) == kLate);
}

}  // namespace
}  // namespace cohort
