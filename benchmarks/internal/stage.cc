// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/internal/stage.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"

namespace cohort_benchmarks {
namespace {

[[noreturn]] void Die(const char* what) {
  perror(what);
  abort();
}

// Read once, before anything is pinned; children inherit the answer.
const cpu_set_t& StartingCpus() {
  static const cpu_set_t set = [] {
    cpu_set_t s;
    if (sched_getaffinity(0, sizeof(s), &s) != 0) Die("sched_getaffinity");
    return s;
  }();
  return set;
}

[[maybe_unused]] const cpu_set_t& read_at_start = StartingCpus();

}  // namespace

int64_t Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

int64_t TimesAsleep() {
  rusage usage;
  if (getrusage(RUSAGE_THREAD, &usage) != 0) Die("getrusage");
  return usage.ru_nvcsw;
}

absl::Status NeedTwoCpus() {
  if (CPU_COUNT(&StartingCpus()) >= 2) return absl::OkStatus();
  return absl::UnavailableError("needs two processors; this program has one");
}

void PinTo(int which) {
  const cpu_set_t& all = StartingCpus();
  which %= CPU_COUNT(&all);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all) || which-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) != 0) Die("sched_setaffinity");
    return;
  }
}

void Unpin() {
  if (sched_setaffinity(0, sizeof(cpu_set_t), &StartingCpus()) != 0) {
    Die("sched_setaffinity");
  }
}

void HaveSecondThread() {
  static const bool started = [] {
    std::thread([] {
      for (;;) pause();
    }).detach();
    return true;
  }();
  static_cast<void>(started);
}

std::byte* MapShared(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) Die("mmap");
  return static_cast<std::byte*>(memory);
}

void UnmapShared(std::byte* memory, size_t size) { munmap(memory, size); }

Companion::Companion(const std::function<void()>& run) {
  const pid_t parent = getpid();
  fflush(nullptr);
  pid_ = fork();
  if (pid_ < 0) Die("fork");
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  run();
  _exit(0);
}

Companion::~Companion() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  Join().IgnoreError();
}

absl::Status Companion::Join() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0) {
    if (errno != EINTR) {
      pid_ = 0;
      return absl::UnknownError(absl::StrCat("waitpid: ", strerror(errno)));
    }
  }
  pid_ = 0;
  if (status == 0) return absl::OkStatus();
  return absl::AbortedError(
      WIFSIGNALED(status)
          ? absl::StrCat("the second process was killed by signal ",
                         WTERMSIG(status))
          : absl::StrCat("the second process ended with exit status ",
                         WEXITSTATUS(status)));
}

}  // namespace cohort_benchmarks
