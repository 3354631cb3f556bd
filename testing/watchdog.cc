// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/watchdog.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/testing/asleep.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

// What the test tells its watchdog; shared memory.
struct Board {
  std::atomic<int64_t> test_deadline;     // 0: no test runs, or no limit.
  std::atomic<int64_t> program_deadline;  // 0: no limit.
  std::atomic<uint32_t> changes;          // Odd while `test` is being written.
  char test[256];
};
Board* g_board = nullptr;

int64_t Now() { return cohort::os::NowNanoseconds(); }

// A number of seconds from the environment; negative where there is none.
double SecondsFrom(const char* variable) {
  const char* const text = getenv(variable);
  if (text == nullptr || *text == '\0') return -1;
  char* end = nullptr;
  const double seconds = strtod(text, &end);
  return *end == '\0' && seconds >= 0 ? seconds : -1;
}

// The limit of one test in seconds; 0 is none.
double TestLimit() {
  const double seconds = SecondsFrom("COHORT_TEST_SECONDS");
  if (seconds >= 0) return seconds;
  return std::max(120.0, SecondsFrom("TEST_TIMEOUT"));
}

std::string TestName() {
  const uint32_t before = g_board->changes.load();
  const std::string name = g_board->test;
  return before % 2 == 0 && before == g_board->changes.load() && !name.empty()
             ? name
             : "(between two tests)";
}

// Ends the test program, with everything that it started.
void EndTest(pid_t tester, int tester_pidfd) {
  std::string report =
      "\nwatchdog: " + TestName() +
      " is over its time limit and is ended. Its processes were:\n  " +
      DescribeProcess(tester) + "\n";
  const std::vector<pid_t> descendants = DescendantsOf(tester);
  for (const pid_t pid : descendants) {
    report += "  " + DescribeProcess(pid) + "\n";
  }
  fputs(report.c_str(), stderr);
  // First the tester, which might otherwise see its children die and go on.
  kill(tester, SIGSTOP);
  for (const pid_t pid : descendants) kill(pid, SIGKILL);
  kill(tester, SIGABRT);
  kill(tester, SIGCONT);
  pollfd ended = {.fd = tester_pidfd, .events = POLLIN, .revents = 0};
  if (poll(&ended, 1, 2000) == 0) kill(tester, SIGKILL);
}

[[noreturn]] void RunWatchdog(pid_t tester, int tester_pidfd) {
  prctl(PR_SET_NAME, "watchdog");
  // Whoever waits for the end of the test's output shall not wait for us.
  close(STDIN_FILENO);
  close(STDOUT_FILENO);
  // The terminal's Ctrl-C is meant for the test; its end is ours.
  signal(SIGINT, SIG_IGN);
  for (;;) {
    pollfd ended = {.fd = tester_pidfd, .events = POLLIN, .revents = 0};
    // A limit can be moved at any time, so look again after a while.
    if (poll(&ended, 1, 200) > 0) _exit(0);
    const int64_t test = g_board->test_deadline.load();
    const int64_t program = g_board->program_deadline.load();
    if ((test != 0 && Now() > test) || (program != 0 && Now() > program)) {
      EndTest(tester, tester_pidfd);
      _exit(0);
    }
  }
}

// Starts the watchdog as an orphan, so that the test has no child it does not
// know.
void StartWatchdog() {
  void* const page = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const pid_t tester = getpid();
  const int tester_pidfd = static_cast<int>(syscall(SYS_pidfd_open, tester, 0));
  if (page == MAP_FAILED || tester_pidfd < 0) {
    std::perror("watchdog: the tests run without time limit");
    return;
  }
  g_board = static_cast<Board*>(page);
  const double bazel = SecondsFrom("TEST_TIMEOUT");
  if (bazel > 0 && TestLimit() > 0) {
    g_board->program_deadline =
        Now() + static_cast<int64_t>(std::max(bazel - 5, bazel / 2) * kSecond);
  }
  std::fflush(nullptr);
  const pid_t middle = fork();
  if (middle == 0) {
    if (fork() == 0) RunWatchdog(tester, tester_pidfd);
    _exit(0);
  }
  if (middle > 0) waitpid(middle, nullptr, 0);
  close(tester_pidfd);
}

class Reporter final : public ::testing::EmptyTestEventListener {
 public:
  void OnTestProgramStart(const ::testing::UnitTest&) override {
    StartWatchdog();
  }
  void OnTestStart(const ::testing::TestInfo& test) override {
    if (g_board == nullptr) return;
    ++g_board->changes;
    std::snprintf(g_board->test, sizeof(g_board->test), "%s.%s",
                  test.test_suite_name(), test.name());
    ++g_board->changes;
    const double limit = TestLimit();
    g_board->test_deadline =
        limit == 0 ? 0 : Now() + static_cast<int64_t>(limit * kSecond);
  }
  void OnTestEnd(const ::testing::TestInfo&) override {
    if (g_board == nullptr) return;
    g_board->test_deadline = 0;
    ++g_board->changes;
    g_board->test[0] = '\0';
    ++g_board->changes;
  }
};

[[maybe_unused]] const bool g_registered = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new Reporter);
  return true;
}();

}  // namespace

TimeLimit::TimeLimit(std::chrono::nanoseconds limit) : earlier_(0) {
  if (g_board == nullptr) return;
  earlier_ = g_board->test_deadline.load();
  if (TestLimit() != 0) g_board->test_deadline = Now() + limit.count();
}

TimeLimit::~TimeLimit() {
  if (g_board != nullptr) g_board->test_deadline = earlier_;
}

}  // namespace cohort_testing
