// SPDX-License-Identifier: Apache-2.0
//
// `cohort::RecursiveMutex` is a cohort::Mutex that its holder may lock again; it
// is free after as many calls of `unlock()`. When its holder dies it becomes
// free at once, however deep it was locked, and *poisoned* as a Mutex does.
//
//   struct Tree {
//     cohort::RecursiveMutex mu;
//     int64_t leaves ABSL_GUARDED_BY(mu) = 0;
//   };
//
//   void AddLeaf(Tree& tree) {
//     cohort::RecursiveMutexLock lock(tree.mu);
//     ++tree.leaves;
//   }
//
//   // `tree` points into shared memory; AddLeaf() locks a second time:
//   cohort::RecursiveMutexLock lock(tree->mu, [&] { Recount(*tree); });
//   AddLeaf(*tree);
//   AddLeaf(*tree);
//
// Clang's thread-safety analysis warns of a second lock in one function.
//
// Take a Mutex (sync/mutex.h) where nothing needs this: code that does not know
// whether it already holds its lock seldom knows whether its data is whole.

#ifndef COHORT_SYNC_RECURSIVE_MUTEX_H_
#define COHORT_SYNC_RECURSIVE_MUTEX_H_

#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/sync/mutex.h"

namespace cohort {

// RecursiveMutex
//
// |                 | lock()             | unlock()          | holder dies    |
// |-----------------+--------------------+-------------------+----------------|
// | Free            | Held, depth 1      | fatal             | --             |
// | Held, by caller | depth + 1; past    | depth - 1; from 1 | Free, poisoned |
// |                 | 4294967295: fatal  | it is Free        |                |
// | Held, by other  | blocks             | fatal             | Free, poisoned |
//
// "Fatal" is one line on stderr, then abort(): a bug that no result can mend.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 48 bytes, aligned to 8; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   it is held or a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. A thread holds
//                   at most 1024, Mutexes included; each counts once.
//   Process-safety: likewise, among all processes of one PID namespace that
//                   map the same bytes.
//   Fork-safety:    a child of fork() does not hold what its parent holds.
//   Crash-safety:   the kernel frees it when the holding thread ends and when
//                   its process dies, by SIGKILL too, or calls execve().
//                   Not so when another than the main thread calls that: what
//                   it holds then, nobody can take any more.
//   Signal-safety:  none; keep it out of handlers. Waits resume after one ran.
//   Errors:         none is returned. "Not now" is false; misuse is fatal.
//   Ordering:       what a holder wrote before it freed the mutex, or died, is
//                   visible to the next holder.
//   Cost:           as a Mutex. A lock by the holder is a load and a store.
//   Reference:      std::recursive_timed_mutex; sync/mutex.h;
//                   docs/design/recursive_mutex.md.
class ABSL_LOCKABLE RecursiveMutex final {
 public:
  // Starts free and clean. All-zero bytes are such a mutex: a fresh page needs
  // no construction, and nothing needs destruction.
  constexpr RecursiveMutex() = default;

  RecursiveMutex(const RecursiveMutex&) = delete;
  RecursiveMutex& operator=(const RecursiveMutex&) = delete;

  // Blocks until the calling thread holds it, once more if it did before.
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (held()) {
      Deepen();
    } else {
      mu_.lock();
      depth_ = 1;
    }
  }

  // Takes it if that needs no wait, as it never does for the holder itself.
  // Returns true iff the caller now holds it once more.
  [[nodiscard]] bool try_lock()
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (held()) {
      Deepen();
      return true;
    }
    if (!mu_.try_lock()) return false;
    depth_ = 1;
    return true;
  }

  // Blocks until the calling thread holds it once more or `deadline` (absolute,
  // in ns of CLOCK_MONOTONIC) is over; at least one attempt. Returns true iff
  // it does.
  [[nodiscard]] bool try_lock_until(Deadline deadline)
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true);

  // Likewise for so long: a std::chrono::duration or an absl::Duration. A time
  // of zero or less makes one attempt.
  template <typename Duration>
  [[nodiscard]] bool try_lock_for(const Duration& wait)
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    return try_lock_until(Deadline::After(wait));
  }

  // Undoes one lock(). With the last one it becomes free and wakes one waiter,
  // if any. Requires that the caller holds it.
  void unlock() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!held()) [[unlikely]] {
      NotTheHolder();
    }
    if (depth_ > 1) {
      --depth_;
    } else {
      mu_.unlock();
    }
  }

  // For waits in the middle: frees it, however deep it is locked, and returns
  // the depth; and takes it back that deep. The first requires that the caller
  // holds it, the second that it does not, and a depth from the first.
  [[nodiscard]] uint32_t unlock_all() ABSL_UNLOCK_FUNCTION();
  void lock_all(uint32_t depth) ABSL_EXCLUSIVE_LOCK_FUNCTION();

  // Returns true iff the calling thread holds it.
  [[nodiscard]] bool held() const { return mu_.held(); }

  // Returns how often the calling thread holds it; 0 if it does not.
  [[nodiscard]] uint32_t depth() const { return held() ? depth_ : 0; }

  // Returns true iff its last holder died and nobody has held it since. Without
  // a lock that is stale when it returns.
  [[nodiscard]] bool abandoned() const { return mu_.abandoned(); }

  // Returns true iff a holder has died since construction or clear_poison(). It
  // stays true for later holders too, so a repair that is itself killed halfway
  // is noticed and begun anew.
  [[nodiscard]] bool poisoned() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mu_.poisoned();
  }

  // Declares the data behind the mutex whole again.
  void clear_poison()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu_.clear_poison();
  }

 private:
  void Deepen() {
    if (depth_ == UINT32_MAX) [[unlikely]] {
      TooDeep();
    }
    ++depth_;
  }
  [[noreturn]] static void TooDeep();
  [[noreturn]] static void NotTheHolder();

  Mutex mu_;
  // Guarded by `mu_`, and set anew by whoever takes that: what stands here when
  // a holder dies, or has unlocked, means nothing.
  uint32_t depth_ = 0;
  [[maybe_unused]] uint32_t reserved_ = 0;  // Zero.
};
static_assert(sizeof(RecursiveMutex) == 48 && alignof(RecursiveMutex) == 8,
              "shared ABI");

// Holds a `RecursiveMutex`, once more, for the length of a scope.
class ABSL_SCOPED_LOCKABLE [[nodiscard]] RecursiveMutexLock final {
 public:
  explicit RecursiveMutexLock(RecursiveMutex& mu)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(mu)
      : mu_(mu) {
    mu_.lock();
  }

  // Likewise; where a holder has died, calls `repair()` under the lock and then
  // clears the poison. If the repairer dies or throws, the next one repairs.
  template <typename Repair>
  RecursiveMutexLock(RecursiveMutex& mu, Repair&& repair)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) ABSL_NO_THREAD_SAFETY_ANALYSIS
      : RecursiveMutexLock(mu) {
    if (mu.poisoned()) [[unlikely]] {
      std::forward<Repair>(repair)();
      mu.clear_poison();
    }
  }

  ~RecursiveMutexLock() ABSL_UNLOCK_FUNCTION() { mu_.unlock(); }

  RecursiveMutexLock(const RecursiveMutexLock&) = delete;
  RecursiveMutexLock& operator=(const RecursiveMutexLock&) = delete;

  // As of the mutex.
  [[nodiscard]] bool poisoned() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mu_.poisoned();
  }

  // As of a std::unique_lock.
  [[nodiscard]] RecursiveMutex* mutex() const ABSL_LOCK_RETURNED(mu_) {
    return &mu_;
  }

 private:
  RecursiveMutex& mu_;
};

}  // namespace cohort

#endif  // COHORT_SYNC_RECURSIVE_MUTEX_H_
