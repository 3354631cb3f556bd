// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/asleep.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

void SleepInFutex() {
  std::atomic<uint32_t> word = 0;
  for (;;) syscall(SYS_futex, &word, FUTEX_WAIT, 0, nullptr, nullptr, 0);
}

TEST(AsleepTest, SeesASleeperInFutex) {
  Child child = Child::Fork(SleepInFutex);
  EXPECT_TRUE(AwaitAsleepInFutex(child.pid()));
  EXPECT_TRUE(AsleepInFutex(child.pid()));
  EXPECT_EQ(SleepsIn(child.pid()), SYS_futex);
  EXPECT_THAT(DescribeProcess(child.pid()), HasSubstr("(futex)"));
}

TEST(AsleepTest, TellsOneSystemCallFromAnother) {
  Child child = Child::Fork([] { poll(nullptr, 0, -1); });
  EXPECT_TRUE(AwaitAsleepIn(child.pid(), SYS_poll));
  EXPECT_FALSE(AsleepInFutex(child.pid()));
}

TEST(AsleepTest, ASpinnerIsNotAsleep) {
  Child child = Child::Fork([] {
    for (std::atomic<bool> stop = false; !stop;) {
    }
  });
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(AsleepInFutex(child.pid()));
  }
  EXPECT_FALSE(AwaitAsleepInFutex(
      child.pid(), cohort::Deadline::After(std::chrono::milliseconds(1))));
}

TEST(AsleepTest, DoesNotAwaitTheDead) {
  Child child = Child::Fork([] {});
  EXPECT_FALSE(AwaitAsleepInFutex(child.pid(), cohort::Deadline::Infinite()));
  child.Wait();
  EXPECT_FALSE(AwaitAsleepInFutex(child.pid(), cohort::Deadline::Infinite()));
}

TEST(AsleepTest, AStoppedSleeperDoesNotSleep) {
  Child child = Child::Fork(SleepInFutex);
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  child.Stop();
  EXPECT_FALSE(AsleepInFutex(child.pid()));
  child.Continue();
  EXPECT_TRUE(child.AwaitAsleepInFutex());
}

TEST(AsleepTest, CountsThreads) {
  Child child = Child::Fork([] {
    std::thread first(SleepInFutex);
    std::thread second(SleepInFutex);
    poll(nullptr, 0, -1);
  });
  EXPECT_TRUE(child.AwaitThreadsAsleepInFutex(2));
  EXPECT_TRUE(AwaitAsleepIn(child.pid(), SYS_poll));
  // A sanitizer may have threads of its own.
  EXPECT_GE(ThreadsOf(child.pid()).size(), 3u);
}

TEST(AsleepTest, KnowsAllDescendants) {
  Shared<std::atomic<pid_t>> grandchild;
  Child child = Child::Fork([&] {
    Child inner = Child::Fork(SleepInFutex);
    *grandchild = inner.pid();
    inner.Wait();
  });
  while (*grandchild == 0) std::this_thread::yield();
  EXPECT_THAT(DescendantsOf(getpid()),
              UnorderedElementsAre(child.pid(), grandchild->load()));
  EXPECT_THAT(DescendantsOf(child.pid()), Not(Contains(child.pid())));
}

}  // namespace
}  // namespace cohort_testing
