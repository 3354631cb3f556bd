// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/process_id.h"

#include <sched.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <new>

#include "cohort/os/status.h"
#include "cohort/os/wiped_on_fork.h"

// GCC says it with a macro, Clang with a feature.
#if defined(__SANITIZE_THREAD__)
#define COHORT_OS_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COHORT_OS_THREAD_SANITIZER 1
#endif
#endif

namespace cohort::os {
namespace {

// The thread sanitizer keeps a thread of its own, which forks with care.
#ifdef COHORT_OS_THREAD_SANITIZER
constexpr int kThreadsOfTools = 1;
#else
constexpr int kThreadsOfTools = 0;
#endif

}  // namespace

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
    if (ThreadCount() <= 1 + kThreadsOfTools) return true;
    sched_yield();
  }
  return false;
}

namespace {

// Which process of a line of copies this is; 0: a copy in which nobody has
// asked yet.
std::atomic<uint64_t>& WipedOnFork() {
  static std::atomic<uint64_t>* const word =
      new (MapWipedOnFork(sizeof(std::atomic<uint64_t>)))
          std::atomic<uint64_t>(0);
  return *word;
}

// Copied by fork, so that a copy goes on counting where its parent was.
std::atomic<uint64_t> last_generation = 0;

}  // namespace

Creator::Creator() {
  std::atomic<uint64_t>& current = WipedOnFork();
  generation_ = current.load(std::memory_order_acquire);
  if (generation_ != 0) return;
  const uint64_t mine = last_generation.fetch_add(1) + 1;
  // Another thread may have been first; its number holds.
  if (current.compare_exchange_strong(generation_, mine)) generation_ = mine;
}

bool Creator::IsMe() const {
  return WipedOnFork().load(std::memory_order_acquire) == generation_;
}

}  // namespace cohort::os
