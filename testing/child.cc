// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/child.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <vector>

#include "cohort/testing/asleep.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::abort();
}

// How many expectations of the running test have failed so far.
int FailedExpectations() {
  const ::testing::TestInfo* const test =
      ::testing::UnitTest::GetInstance()->current_test_info();
  if (test == nullptr) return 0;
  const ::testing::TestResult& result = *test->result();
  int failed = 0;
  for (int i = 0; i < result.total_part_count(); ++i) {
    failed += result.GetTestPartResult(i).failed() ? 1 : 0;
  }
  return failed;
}

[[noreturn]] void RunChild(pid_t parent, const std::function<int()>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the kernel knew that we care. It has no id
  // in a namespace that it is not in.
  if (getppid() != parent && getppid() != 0) _exit(kLostParent);
  const int failed_before = FailedExpectations();
  int status;
  try {
    status = body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "a child threw: %s\n", error.what());
    status = kThrew;
  } catch (...) {
    std::fprintf(stderr, "a child threw something unknown\n");
    status = kThrew;
  }
  if (FailedExpectations() > failed_before) status = kFailedExpectation;
  std::cout.flush();
  std::fflush(nullptr);
  _exit(status);
}

int Milliseconds(cohort::Deadline until) {
  if (until.infinite()) return -1;
  const int64_t left = until.nanoseconds() - cohort::os::NowNanoseconds();
  if (left <= 0) return 0;
  const int64_t rounded_up = (left + 999'999) / 1'000'000;
  return rounded_up > 1'000'000 ? 1'000'000 : static_cast<int>(rounded_up);
}

}  // namespace

End Exited(int status) { return End(false, status); }
End KilledBy(int signal) { return End(true, signal); }

End End::FromWaitStatus(int status) {
  return WIFSIGNALED(status) ? KilledBy(WTERMSIG(status))
                             : Exited(WEXITSTATUS(status));
}

std::ostream& operator<<(std::ostream& out, const End& end) {
  if (end.signal_) {
    const char* const name = sigabbrev_np(end.code_);
    out << "KilledBy(";
    if (name != nullptr) {
      out << "SIG" << name;
    } else {
      out << end.code_;
    }
    return out << ")";
  }
  out << "Exited(" << end.code_;
  if (end.code_ == kFailedExpectation) out << ": an expectation failed";
  if (end.code_ == kThrew) out << ": an exception was thrown";
  if (end.code_ == kLostParent) out << ": the parent had died";
  if (end.code_ == kNoNamespace) out << ": a PID namespace was refused";
  return out << ")";
}

Child Child::ForkAndRun(const std::function<int()>& body) {
  // What is in the buffers would otherwise be written by the child as well.
  std::cout.flush();
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) Die("cohort_testing::Child: fork");
  if (pid == 0) RunChild(parent, body);
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) Die("cohort_testing::Child: pidfd_open");
  return Child(pid, pidfd);
}

Child Child::ForkIntoPidNamespace(const std::function<int()>& body) {
  // The caller of unshare(2) stays where it is; its children are inside.
  return ForkAndRun([&body] {
    if (unshare(CLONE_NEWPID) != 0 &&
        unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
      return kNoNamespace;
    }
    const pid_t outside = getpid();
    const pid_t pid = fork();
    if (pid < 0) Die("cohort_testing::Child: fork into a PID namespace");
    if (pid == 0) RunChild(outside, body);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
      signal(WTERMSIG(status), SIG_DFL);
      raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
  });
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::exchange(other.pidfd_, -1)),
      end_(other.end_) {}

Child& Child::operator=(Child&& other) noexcept {
  if (this != &other) {
    Dispose();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::exchange(other.pidfd_, -1);
    end_ = other.end_;
  }
  return *this;
}

Child::~Child() { Dispose(); }

void Child::Dispose() {
  if (pidfd_ < 0) return;
  if (!end_.has_value()) {
    Kill(SIGKILL);
    Wait();
  }
  close(pidfd_);
  pidfd_ = -1;
}

End Child::Wait() { return *WaitFor(cohort::Deadline::Infinite()); }

std::optional<End> Child::WaitFor(cohort::Deadline until) {
  while (!end_.has_value()) {
    pollfd ended = {.fd = pidfd_, .events = POLLIN, .revents = 0};
    const int ready = poll(&ended, 1, Milliseconds(until));
    if (ready < 0 && errno != EINTR) Die("cohort_testing::Child: poll");
    if (ready == 0 && until.Passed()) return std::nullopt;
    if (ready <= 0) continue;
    int status = 0;
    const pid_t reaped = waitpid(pid_, &status, 0);
    if (reaped == pid_) {
      end_ = End::FromWaitStatus(status);
    } else if (errno != EINTR) {
      Die("cohort_testing::Child: its status was taken by another wait");
    }
  }
  return end_;
}

bool Child::Running() {
  return !WaitFor(cohort::Deadline::AtNanoseconds(0)).has_value();
}

void Child::Kill(int signal) {
  if (end_.has_value()) return;
  if (syscall(SYS_pidfd_send_signal, pidfd_, signal, nullptr, 0) != 0 &&
      errno != ESRCH) {
    Die("cohort_testing::Child: pidfd_send_signal");
  }
}

void Child::Stop() {
  if (end_.has_value()) return;
  Kill(SIGSTOP);
  siginfo_t info = {};
  // The stop is reported once; an end stays to be waited for.
  while (waitid(P_PID, static_cast<id_t>(pid_), &info,
                WSTOPPED | WEXITED | WNOWAIT) != 0 &&
         errno == EINTR) {
  }
  if (info.si_code == CLD_STOPPED) {
    waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WNOHANG);
  }
}

void Child::Continue() { Kill(SIGCONT); }

bool Child::AsleepInFutex() const {
  return cohort_testing::AsleepInFutex(pid_);
}

bool Child::AwaitAsleepInFutex() const {
  return cohort_testing::AwaitAsleepInFutex(pid_);
}

int Child::ThreadsAsleepInFutex() const {
  int asleep = 0;
  for (const pid_t thread : ThreadsOf(pid_)) {
    asleep += cohort_testing::AsleepInFutex(thread) ? 1 : 0;
  }
  return asleep;
}

bool Child::AwaitThreadsAsleepInFutex(int count) const {
  const cohort::Deadline until =
      cohort::Deadline::After(std::chrono::seconds(20));
  while (ThreadsAsleepInFutex() < count) {
    pollfd ended = {.fd = pidfd_, .events = POLLIN, .revents = 0};
    // Looks again every millisecond; wakes at once if the child ends.
    if (until.Passed() || poll(&ended, 1, 1) > 0) {
      return ThreadsAsleepInFutex() >= count;
    }
  }
  return true;
}

}  // namespace cohort_testing
