// SPDX-License-Identifier: Apache-2.0
//
// SIGKILL at many moments of a start, to either side.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/socket.h"
#include "cohort/process/process.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::StatusIs;

// The moments: so many, from the beginning to well after the end of a start.
constexpr int kRounds = 150;
std::chrono::nanoseconds Moment(StartMethod method, int round) {
  const int64_t whole = method == StartMethod::kFork ? 1'500'000 : 6'000'000;
  return std::chrono::nanoseconds(whole * round / kRounds);
}

void Spin(std::chrono::nanoseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < until) {
  }
}

// Ends at a word from the other end.
void Serve(os::Descriptor line) {
  (void)os::ReceiveMessage(line, 16, 0, Deadline::Infinite());
}
void Sleep() {
  for (;;) pause();
}

class ProcessCrashTest : public ::testing::TestWithParam<StartMethod> {
  cohort_testing::LeakGuard guard_;
};

INSTANTIATE_TEST_SUITE_P(
    Methods, ProcessCrashTest,
    ::testing::Values(StartMethod::kSpawn, StartMethod::kFork),
    [](const ::testing::TestParamInfo<StartMethod>& method) {
      return method.param == StartMethod::kSpawn ? "Spawn" : "Fork";
    });

// A killed parent leaves no child that can't be ended, and none at all where
// the child was to die with it. The hang-up of the line is the proof: the child
// and all that hold copies of its end are gone.
TEST_P(ProcessCrashTest, ParentKilledInTheStart) {
  for (int round = 0; round < kRounds; ++round) {
    const bool die_with_parent = round % 2 == 0;
    auto line = os::SocketPair();
    ASSERT_OK(line);
    const int parent = fork();
    if (parent == 0) {
      line->first.Reset();
      ProcessOptions options;
      options.start_method = GetParam();
      options.lifetime =
          die_with_parent ? Lifetime::kDieWithParent : Lifetime::kJoin;
      absl::StatusOr<Process> process =
          Process::Start(options, Serve, std::move(line->second));
      Sleep();
    }
    line->second.Reset();
    Spin(Moment(GetParam(), round));
    kill(parent, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(parent, &status, 0), parent);
    ASSERT_EQ(WTERMSIG(status), SIGKILL);
    if (!die_with_parent) {
      (void)os::SendMessage(line->first, "end", Deadline::Infinite());
    }
    ASSERT_THAT(
        os::ReceiveMessage(line->first, 16, 0, Deadline::Infinite()).status(),
        StatusIs(absl::StatusCode::kOutOfRange));
  }
}

// The first child of this thread, or 0.
int FirstChild(int thread) {
  int pid = 0;
  std::ifstream(absl::StrCat("/proc/self/task/", thread, "/children")) >> pid;
  return pid;
}

// Whenever the child is killed, either Start() or Join() says so.
TEST_P(ProcessCrashTest, ChildKilledInTheStart) {
  std::atomic<int> begun = -1;  // The round that has begun ...
  std::atomic<int> ended = -1;  // ... and the one of which no child is left.
  const int starter = gettid();
  std::thread killer([&] {
    for (int round = 0; round < kRounds; ++round) {
      while (begun < round) std::this_thread::yield();
      int pid = 0;
      while (pid == 0 && ended < round) pid = FirstChild(starter);
      if (pid == 0) continue;
      Spin(Moment(GetParam(), round));
      if (ended < round) kill(pid, SIGKILL);
    }
  });
  int early = 0;
  for (int round = 0; round < kRounds; ++round) {
    ProcessOptions options;
    options.start_method = GetParam();
    options.allow_threads = true;
    begun = round;
    {
      absl::StatusOr<Process> process = Process::Start(options, Sleep);
      if (process.ok()) {
        absl::StatusOr<ExitStatus> end = process->Join();
        EXPECT_OK(end);
        EXPECT_EQ(end->signal, SIGKILL);
      } else {
        ++early;
        EXPECT_THAT(process,
                    StatusIs(absl::StatusCode::kAborted,
                             ::testing::HasSubstr("signal 9 (SIGKILL)")));
      }
    }
    ended = round;
  }
  killer.join();
  EXPECT_GT(early, 0) << "no kill came early enough to test the handshake";
}

}  // namespace
}  // namespace cohort
