// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/process_id.h"

#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "cohort/os/status.h"

namespace cohort::os {

absl::StatusOr<uint64_t> PidNamespace() {
  struct stat facts;
  if (stat("/proc/self/ns/pid", &facts) != 0) {
    return ErrnoStatus(errno, "stat", "/proc/self/ns/pid");
  }
  return static_cast<uint64_t>(facts.st_ino);
}

int ThreadCount() {
  struct stat facts;
  // A directory has one link per entry, and two of its own.
  if (stat("/proc/self/task", &facts) != 0 || facts.st_nlink < 3) return 1;
  return static_cast<int>(facts.st_nlink) - 2;
}

bool IsSingleThreaded() {
  // pthread_join returns when the kernel clears the thread's id, which is some
  // microseconds before the thread leaves the list.
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    if (ThreadCount() == 1) return true;
    sched_yield();
  }
  return false;
}

// The system call, not the C library's word: some kinds of clone leave a
// library's cache behind.
Creator::Creator() : pid_(static_cast<pid_t>(syscall(SYS_getpid))) {}

bool Creator::IsMe() const {
  return static_cast<pid_t>(syscall(SYS_getpid)) == pid_;
}

}  // namespace cohort::os
