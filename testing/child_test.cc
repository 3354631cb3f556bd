// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/child.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "cohort/testing/asleep.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

void SleepForEver() {
  for (;;) poll(nullptr, 0, -1);
}

template <typename T>
std::string Print(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

TEST(ChildTest, ReportsItsResult) {
  EXPECT_EQ(Child::Fork([] { return 7; }).Wait(), Exited(7));
  EXPECT_EQ(Child::Fork([] {}).Wait(), Exited(0));
  EXPECT_NE(Exited(9), KilledBy(9));
}

TEST(ChildTest, ReportsItsSignal) {
  EXPECT_EQ(Child::Fork([] { raise(SIGKILL); }).Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(Child::Fork([] { raise(SIGTERM); }).Wait(), KilledBy(SIGTERM));
}

TEST(ChildTest, ReportsAnException) {
  EXPECT_EQ(Child::Fork([] { throw std::runtime_error("as expected"); }).Wait(),
            Exited(kThrew));
  EXPECT_EQ(Child::Fork([]() -> int { throw 1; }).Wait(), Exited(kThrew));
}

TEST(ChildTest, ReportsAFailedExpectation) {
  ::testing::internal::CaptureStdout();
  const End end = Child::Fork([] { EXPECT_EQ(1, 2) << "as planned"; }).Wait();
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(end, Exited(kFailedExpectation));
  EXPECT_NE(output.find("as planned"), std::string::npos);
  EXPECT_EQ(Child::Fork([] { ASSERT_TRUE(true); }).Wait(), Exited(0));
}

TEST(ChildTest, PrintsEnds) {
  EXPECT_EQ(Print(Exited(3)), "Exited(3)");
  EXPECT_EQ(Print(KilledBy(SIGKILL)), "KilledBy(SIGKILL)");
  EXPECT_EQ(Print(Exited(kThrew)), "Exited(102: an exception was thrown)");
}

TEST(ChildTest, SaysHowItEndedAgainAndAgain) {
  Child child = Child::Fork([] { return 5; });
  EXPECT_EQ(child.Wait(), Exited(5));
  EXPECT_EQ(child.Wait(), Exited(5));
  EXPECT_FALSE(child.Running());
  child.Kill(SIGKILL);  // To nobody.
}

TEST(ChildTest, WaitsForALimitedTime) {
  Child child = Child::Fork(SleepForEver);
  EXPECT_EQ(
      child.WaitFor(cohort::Deadline::After(std::chrono::milliseconds(5))),
      std::nullopt);
  EXPECT_TRUE(child.Running());
  child.Kill(SIGKILL);
  EXPECT_EQ(child.WaitFor(cohort::Deadline::Infinite()), KilledBy(SIGKILL));
}

TEST(ChildTest, BufferedOutputAppearsOnce) {
  ::testing::internal::CaptureStdout();
  std::printf("before ");
  Child::Fork([] { std::printf("child "); }).Wait();
  std::printf("after");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "before child after");
}

TEST(ChildTest, StopsAndContinues) {
  Shared<std::atomic<int64_t>> beats;
  Child child = Child::Fork([&] {
    for (;;) ++*beats;
  });
  while (*beats == 0) poll(nullptr, 0, 1);
  child.Stop();
  const int64_t stopped_at = *beats;
  EXPECT_EQ(*beats, stopped_at);
  EXPECT_TRUE(child.Running());
  child.Continue();
  while (*beats == stopped_at) poll(nullptr, 0, 1);
}

TEST(ChildTest, StopReturnsWhenTheChildHasEnded) {
  Child child = Child::Fork([] { return 4; });
  while (!SleepsIn(child.pid()).has_value() &&
         DescribeProcess(child.pid()).find(" Z") == std::string::npos) {
    poll(nullptr, 0, 1);
  }
  child.Stop();
  EXPECT_EQ(child.Wait(), Exited(4));
}

TEST(ChildTest, DestructorKillsAndReaps) {
  pid_t pid;
  {
    Child child = Child::Fork(SleepForEver);
    pid = child.pid();
    EXPECT_EQ(kill(pid, 0), 0);
  }
  EXPECT_EQ(waitpid(pid, nullptr, 0), -1);  // No such child.
  Child child = Child::Fork(SleepForEver);
  pid = child.pid();
  child = Child::Fork([] { return 1; });  // Assignment ends the earlier one.
  EXPECT_EQ(waitpid(pid, nullptr, 0), -1);
  EXPECT_EQ(child.Wait(), Exited(1));
}

TEST(ChildTest, AMovedChildIsTheSameChild) {
  Child first = Child::Fork([] { return 6; });
  Child second = std::move(first);
  EXPECT_EQ(second.Wait(), Exited(6));
}

TEST(ChildTest, DiesWithItsParent) {
  Shared<std::atomic<pid_t>> grandchild;
  Child child = Child::Fork([&] {
    Child inner = Child::Fork(SleepForEver);
    *grandchild = inner.pid();
    SleepForEver();
  });
  while (*grandchild == 0) poll(nullptr, 0, 1);
  ASSERT_EQ(kill(*grandchild, 0), 0);
  child.Kill(SIGKILL);
  EXPECT_EQ(child.Wait(), KilledBy(SIGKILL));
  // Nobody here can wait for it; it vanishes from the list, or stays a zombie
  // where the first process of the system does not reap.
  while (DescribeProcess(*grandchild).find(") S") != std::string::npos) {
    poll(nullptr, 0, 1);
  }
}

TEST(ChildTest, LivesInAPidNamespaceOfItsOwn) {
  const End end =
      Child::ForkIntoPidNamespace([] { return getpid() == 1 ? 3 : 4; }).Wait();
  if (end == Exited(kNoNamespace)) GTEST_SKIP() << end;
  EXPECT_EQ(end, Exited(3));
  EXPECT_EQ(Child::ForkIntoPidNamespace([] {
              EXPECT_NE(getpid(), 1);
              return 0;
            }).Wait(),
            Exited(kFailedExpectation));
}

}  // namespace
}  // namespace cohort_testing
