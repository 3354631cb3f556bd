// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/futex.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>

#include "cohort/os/deadline.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Shared;
using std::chrono::milliseconds;

using Word = std::atomic<uint32_t>;

TEST(FutexTest, DoesNotSleepOnAnotherValue) {
  Word word = 1;
  EXPECT_EQ(FutexWait(word, 0, Deadline::Infinite()), FutexEnd::kChanged);
}

TEST(FutexTest, TimesOut) {
  Word word = 0;
  EXPECT_EQ(FutexWait(word, 0, Deadline::Now()), FutexEnd::kTimedOut);
  const Deadline soon = Deadline::After(milliseconds(2));
  errno = 4711;
  FutexEnd end;
  while ((end = FutexWait(word, 0, soon)) == FutexEnd::kInterrupted) {
  }
  EXPECT_EQ(end, FutexEnd::kTimedOut);
  EXPECT_TRUE(soon.Passed());
  EXPECT_EQ(errno, 4711);
}

TEST(FutexTest, WakesNobody) {
  Word word = 0;
  EXPECT_EQ(FutexWake(word, 1), 0);
}

TEST(FutexTest, WakesAnotherProcess) {
  Shared<Word> word;
  Child sleeper = Child::Fork([&] {
    return FutexWait(*word, 0, Deadline::Infinite()) == FutexEnd::kWoken ? 0
                                                                         : 1;
  });
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  EXPECT_EQ(FutexWake(*word, 1), 1);
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(FutexTest, WakesNoMoreThanAskedFor) {
  Shared<Word> word;
  auto sleep = [&] { FutexWait(*word, 0, Deadline::Infinite()); };
  Child first = Child::Fork(sleep);
  Child second = Child::Fork(sleep);
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  EXPECT_EQ(FutexWake(*word, 1), 1);
  EXPECT_EQ(FutexWake(*word, 5), 1);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
}

TEST(FutexTest, WakesThoseWithACommonBit) {
  Shared<Word> word;
  auto sleep_with = [&](uint32_t bits) {
    return [&word, bits] { FutexWait(*word, 0, Deadline::Infinite(), bits); };
  };
  Child first = Child::Fork(sleep_with(1));
  Child second = Child::Fork(sleep_with(6));
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  EXPECT_EQ(FutexWake(*word, 5, 8), 0);
  EXPECT_EQ(FutexWake(*word, 5, 4), 1);
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(FutexWake(*word, 5), 1);
  EXPECT_EQ(first.Wait(), Exited(0));
}

TEST(FutexTest, TellsOfASignal) {
  Shared<Word> word;
  Child sleeper = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    *word = 1;
    return FutexWait(*word, 1, Deadline::Infinite()) == FutexEnd::kInterrupted
               ? 0
               : 1;
  });
  while (*word == 0) {
  }
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  sleeper.Kill(SIGUSR1);
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(FutexDeathTest, AWordThatIsNotMappedIsFatal) {
  auto& nowhere = *reinterpret_cast<Word*>(64);
  EXPECT_DEATH(FutexWait(nowhere, 0, Deadline::Now()), "is not mapped");
}

TEST(SlicesTest, GrowsFrom20To100Milliseconds) {
  Slices slices(Deadline::Infinite());
  for (int64_t slice :
       {20'000'000, 40'000'000, 80'000'000, 100'000'000, 100'000'000}) {
    const int64_t before = NowNanoseconds();
    const int64_t end = slices.Next().nanoseconds();
    EXPECT_GE(end, before + slice);
    EXPECT_LE(end, NowNanoseconds() + slice);
  }
}

TEST(SlicesTest, EndsWithTheWholeWait) {
  const Deadline deadline = Deadline::AtNanoseconds(NowNanoseconds() + 1);
  Slices slices(deadline);
  EXPECT_EQ(slices.Next(), deadline);
  EXPECT_EQ(Slices(Deadline::Now()).Next(), Deadline::Now());
}

TEST(SlicesTest, TurnedOffIsTheWholeWaitAtOnce) {
  const auto turned_off = [] {
    Slices::TurnOff();
    return Slices(Deadline::Infinite()).Next().infinite() ? 0 : 1;
  };
  EXPECT_EXIT(_exit(turned_off()), testing::ExitedWithCode(0), "");
  EXPECT_FALSE(Slices(Deadline::Infinite()).Next().infinite());
}

}  // namespace
}  // namespace cohort::os
