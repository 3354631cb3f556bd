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

// What is true of one process and of no copy of it; 0: nobody has asked yet.
struct OfThisProcess {
  // Which process of a line of copies this is.
  std::atomic<uint64_t> generation = 0;
  std::atomic<uint64_t> pid_namespace = 0;
};

OfThisProcess& WipedOnFork() {
  static OfThisProcess* const facts =
      new (MapWipedOnFork(sizeof(OfThisProcess))) OfThisProcess();
  return *facts;
}

// Copied by fork, so that a copy goes on counting where its parent was.
std::atomic<uint64_t> last_generation = 0;

}  // namespace

// A process stays in its namespace for life: unshare(2) and setns(2) choose one
// for its children only.
absl::StatusOr<uint64_t> PidNamespace() {
  std::atomic<uint64_t>& known = WipedOnFork().pid_namespace;
  if (const uint64_t number = known.load(std::memory_order_relaxed);
      number != 0) {
    return number;
  }
  struct stat facts;
  if (stat("/proc/self/ns/pid", &facts) != 0) {
    return ErrnoStatus(errno, "stat", "/proc/self/ns/pid");
  }
  known.store(facts.st_ino, std::memory_order_relaxed);
  return static_cast<uint64_t>(facts.st_ino);
}

Creator::Creator() {
  std::atomic<uint64_t>& current = WipedOnFork().generation;
  generation_ = current.load(std::memory_order_acquire);
  if (generation_ != 0) return;
  const uint64_t mine = last_generation.fetch_add(1) + 1;
  // Another thread may have been first; its number holds.
  if (current.compare_exchange_strong(generation_, mine)) generation_ = mine;
}

bool Creator::IsMe() const {
  return WipedOnFork().generation.load(std::memory_order_acquire) ==
         generation_;
}

}  // namespace cohort::os
