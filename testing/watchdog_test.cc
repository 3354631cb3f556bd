// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/watchdog.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "cohort/testing/child.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

void SleepForEver() {
  for (;;) poll(nullptr, 0, -1);
}

// The tests with this prefix run only in a program of their own, started by
// those below.
TEST(WatchdogVictim, DISABLED_HangsWithAChild) {
  Child child = Child::Fork(SleepForEver);
  child.Wait();
}

TEST(WatchdogVictim, DISABLED_IsStoppedAndBlocksSignals) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  raise(SIGSTOP);
  SleepForEver();
}

TEST(WatchdogVictim, DISABLED_ShortensItsLimit) {
  TimeLimit limit(std::chrono::milliseconds(1));
  SleepForEver();
}

TEST(WatchdogVictim, DISABLED_LengthensItsLimit) {
  TimeLimit limit(std::chrono::hours(1));
  // Longer than the limit of 300 ms, in which the watchdog looks once or twice.
  std::this_thread::sleep_for(std::chrono::milliseconds(900));
}

struct Outcome {
  End end;
  std::string output;
};

// Runs one of the tests above under a limit of `seconds`.
Outcome RunVictim(const std::string& test, const char* seconds,
                  const char* bazel_seconds = "") {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Child child = Child::Fork([&] {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    setenv("COHORT_TEST_SECONDS", seconds, 1);
    setenv("TEST_TIMEOUT", bazel_seconds, 1);
    // Where Bazel shares a test out, it would share these out again.
    unsetenv("TEST_TOTAL_SHARDS");
    unsetenv("TESTBRIDGE_TEST_ONLY");
    unsetenv("XML_OUTPUT_FILE");
    const std::string filter = "--gtest_filter=WatchdogVictim.DISABLED_" + test;
    execl("/proc/self/exe", "watchdog_test", filter.c_str(),
          "--gtest_also_run_disabled_tests", nullptr);
  });
  close(ends[1]);
  std::string output;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    output.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  return {child.Wait(), output};
}

TEST(WatchdogTest, EndsATestThatHangsAndNamesIt) {
  const Outcome outcome = RunVictim("HangsWithAChild", "0.3");
  EXPECT_EQ(outcome.end, KilledBy(SIGABRT)) << outcome.output;
  EXPECT_THAT(outcome.output,
              HasSubstr("WatchdogVictim.DISABLED_HangsWithAChild is over its"));
  // Where the test itself and its child sleep.
  const size_t first = outcome.output.find("in system call");
  ASSERT_NE(first, std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("in system call", first + 1), std::string::npos)
      << outcome.output;
}

TEST(WatchdogTest, EndsATestThatIsStoppedAndBlocksEverySignal) {
  const Outcome outcome = RunVictim("IsStoppedAndBlocksSignals", "0.3");
  EXPECT_EQ(outcome.end, KilledBy(SIGKILL)) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("IsStoppedAndBlocksSignals is over"));
}

TEST(WatchdogTest, ATestMayShortenItsLimit) {
  EXPECT_EQ(RunVictim("ShortensItsLimit", "1000").end, KilledBy(SIGABRT));
}

TEST(WatchdogTest, ATestMayLengthenItsLimit) {
  const Outcome outcome = RunVictim("LengthensItsLimit", "0.3");
  EXPECT_EQ(outcome.end, Exited(0)) << outcome.output;
  EXPECT_THAT(outcome.output, Not(HasSubstr("watchdog:")));
}

TEST(WatchdogTest, SpeaksBeforeBazelEndsTheProgram) {
  EXPECT_EQ(RunVictim("HangsWithAChild", "1000", "1").end, KilledBy(SIGABRT));
}

TEST(WatchdogTest, ZeroSecondsMeanNoLimit) {
  EXPECT_EQ(RunVictim("LengthensItsLimit", "0", "1").end, Exited(0));
}

}  // namespace
}  // namespace cohort_testing
