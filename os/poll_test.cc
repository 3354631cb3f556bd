// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/poll.h"

#include <thread>

#include "cohort/os/deadline.h"
#include "cohort/os/socket.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr Deadline kAtOnce = Deadline::AtNanoseconds(0);

TEST(PollReadableTest, SeesDataAndHangUp) {
  auto ends = SocketPair();
  ASSERT_THAT(ends, IsOk());
  EXPECT_THAT(PollReadable(ends->first, kAtOnce), IsOkAndHolds(false));
  ASSERT_THAT(SendMessage(ends->second, "x", kAtOnce), IsOk());
  EXPECT_THAT(PollReadable(ends->first, kAtOnce), IsOkAndHolds(true));
  ASSERT_THAT(ReceiveMessage(ends->first, 8, 0, kAtOnce), IsOk());
  EXPECT_THAT(PollReadable(ends->first, kAtOnce), IsOkAndHolds(false));
  ends->second.Reset();
  EXPECT_THAT(PollReadable(ends->first, Deadline::Infinite()),
              IsOkAndHolds(true));
}

TEST(PollerTest, ReportsTheTagsOfWhatIsReady) {
  auto one = SocketPair();
  auto two = SocketPair();
  absl::StatusOr<Poller> poller = Poller::Create();
  ASSERT_THAT(poller, IsOk());
  ASSERT_THAT(poller->Add(one->first, 1), IsOk());
  ASSERT_THAT(poller->Add(two->first, 2), IsOk());
  EXPECT_THAT(poller->Wait(kAtOnce), IsEmpty());
  ASSERT_THAT(SendMessage(two->second, "x", kAtOnce), IsOk());
  EXPECT_THAT(poller->Wait(Deadline::Infinite()), ElementsAre(2));
  one->second.Reset();
  EXPECT_THAT(poller->Wait(Deadline::Infinite()), UnorderedElementsAre(1, 2));
  poller->Remove(two->first);
  EXPECT_THAT(poller->Wait(Deadline::Infinite()), ElementsAre(1));
}

TEST(PollerTest, AKickEndsOneWaitEvenIfItComesFirst) {
  absl::StatusOr<Poller> poller = Poller::Create();
  ASSERT_THAT(poller, IsOk());
  poller->Kick();
  poller->Kick();
  EXPECT_THAT(poller->Wait(Deadline::Infinite()), IsEmpty());
  EXPECT_THAT(poller->Wait(kAtOnce), IsEmpty());
  std::thread kicker([&] { poller->Kick(); });
  EXPECT_THAT(poller->Wait(Deadline::Infinite()), IsEmpty());
  kicker.join();
}

}  // namespace
}  // namespace cohort::os
