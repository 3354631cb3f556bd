// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Mutex` is a mutual-exclusion lock for memory that several processes
// map. The caller chooses the memory; the mutex allocates nothing there, puts
// no name into any system-wide namespace and leaves nothing behind after a
// crash. When its holder dies it becomes free and *poisoned*: the next holder
// is told that the data behind it may be half-written.
//
//   struct Account {
//     cohort::Mutex mu;
//     int64_t cents ABSL_GUARDED_BY(mu) = 0;
//   };
//
//   // `account` points into shared memory. The repair runs if a holder died:
//   cohort::MutexLock lock(account->mu, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
//     account->cents = RecountFromJournal();
//   });
//   account->cents += 100;
//
// Likewise by hand, with `poisoned()` and `clear_poison()`; who does neither
// works on whatever the dead have left.
//
// Not recursive, not fair, and without a reader mode. Threads of a single
// process should prefer `absl::Mutex`: it is smaller and faster, and sleeps on
// a private futex, so it can never be shared.

#ifndef COHORT_SYNC_MUTEX_H_
#define COHORT_SYNC_MUTEX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/lock_word.h"

namespace cohort {

// Mutex
//
// |      | lock()               | unlock()                | holder dies    |
// |------+----------------------+-------------------------+----------------|
// | Free | Held                 | fatal                   | --             |
// | Held | blocks; by the       | Free; by any other than | Free, poisoned |
// |      | holder itself: fatal | the holder: fatal       |                |
//
// "Fatal" is one line on stderr, then abort(): a bug that no result can mend.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 40 bytes, aligned to 8; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   it is held or a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. A thread holds
//                   at most 1024.
//   Process-safety: likewise, among all processes of one PID namespace that
//                   map the same bytes.
//   Fork-safety:    a child of fork() does not hold what its parent holds.
//   Crash-safety:   the kernel frees it when the holding thread ends and when
//                   its process dies, by SIGKILL too, or calls execve().
//                   Not so when another than the main thread calls that: what
//                   it holds then, nobody can take any more.
//   Signal-safety:  none; keep it out of handlers. Without NDEBUG, a handler
//                   that has interrupted a member and calls one is fatal. Waits
//                   resume after a handler ran.
//   Errors:         none is returned. "Not now" is false; misuse is fatal.
//   Ordering:       what a holder wrote before it unlocked, or died, is visible
//                   to the next holder.
//   Cost:           lock() + unlock() with no rival are one read-modify-write
//                   and make no system call, but for a thread's first lock. The
//                   first of several to sleep interrupts the running threads of
//                   all programs that use this library, by membarrier(2). A
//                   waiter looks up every 100 ms.
//   Reference:      get_robust_list(2), the kernel's robust-futex ABI; poison
//                   that lasts until cleared follows Rust's std::sync::Mutex;
//                   docs/design/mutex.md says what else was tried.
class ABSL_LOCKABLE Mutex final {
 public:
  // Starts free and clean. All-zero bytes are such a mutex: a fresh page needs
  // no construction, and nothing needs destruction.
  constexpr Mutex() = default;

  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  // Blocks until the calling thread holds it.
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION();

  // Takes it if that needs no wait. Returns true iff the caller now holds it;
  // to the holder itself that is false.
  [[nodiscard]] bool try_lock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true);

  // Blocks until the calling thread holds it or `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC) is over; at least one attempt. Returns true iff held.
  [[nodiscard]] bool try_lock_until(Deadline deadline)
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true);

  // Likewise for so long: a std::chrono::duration or an absl::Duration. A time
  // of zero or less makes one attempt.
  template <typename Duration>
  [[nodiscard]] bool try_lock_for(const Duration& wait)
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    return try_lock_until(Deadline::After(wait));
  }

  // Frees it and wakes one waiter, if any. Requires that the caller holds it.
  void unlock() ABSL_UNLOCK_FUNCTION();

  // Returns true iff the calling thread holds it.
  [[nodiscard]] bool held() const {
    return sync_internal::HolderOf(word_.word) ==
           os::RobustThread::Self().tid();
  }

  // Returns true iff its last holder died and nobody has held it since. Without
  // a lock that is stale when it returns.
  [[nodiscard]] bool abandoned() const {
    return (word_.word.load(std::memory_order_relaxed) &
            sync_internal::kOwnerDied) != 0;
  }

  // Returns true iff a holder has died since construction or clear_poison(). It
  // stays true for later holders too, so a repair that is itself killed halfway
  // is noticed and begun anew.
  [[nodiscard]] bool poisoned() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    return poisoned_ != 0;
  }

  // Declares the data behind the mutex whole again.
  void clear_poison() ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) { poisoned_ = 0; }

 private:
  bool TryLockSlow();
  // Both expect the word to be pending, and leave nothing pending.
  bool LockSlow(os::RobustThread& thread, Deadline deadline);
  void UnlockSlow(os::RobustThread& thread);
  [[noreturn]] static void NotTheHolder();

  sync_internal::WatchedWord word_;
  uint32_t poisoned_ = 0;                       // Guarded by `word_`.
  [[maybe_unused]] uint32_t reserved_[3] = {};  // Zero.
  os::RobustNode node_;  // Where the kernel's ABI wants it.
};
static_assert(sizeof(Mutex) == 40 && alignof(Mutex) == 8, "shared ABI");

// The paths without a rival stand here to be inlined: they cost little more
// than their one read-modify-write, if what can be read before that is.

inline void Mutex::lock() {
  os::RobustThread& thread = os::RobustThread::Self();
  os::RobustList& list = thread.list();
  list.CheckIdle();
  const bool first = list.empty();
  list.Pend(word_.word);
  uint32_t free = 0;
  if (!word_.word.compare_exchange_strong(
          free, thread.tid(), std::memory_order_acquire,
          std::memory_order_relaxed)) [[unlikely]] {
    LockSlow(thread, Deadline::Infinite());
    return;
  }
  thread.Push(node_, list, first);
  list.Unpend();
}

inline bool Mutex::try_lock() {
  uint32_t free = word_.word.load(std::memory_order_relaxed);
  if (free != 0) return TryLockSlow();
  os::RobustThread& thread = os::RobustThread::Self();
  os::RobustList& list = thread.list();
  list.CheckIdle();
  const bool first = list.empty();
  list.Pend(word_.word);
  if (!word_.word.compare_exchange_strong(
          free, thread.tid(), std::memory_order_acquire,
          std::memory_order_relaxed)) [[unlikely]] {
    return LockSlow(thread, Deadline::Now());
  }
  thread.Push(node_, list, first);
  list.Unpend();
  return true;
}

inline void Mutex::unlock() {
  os::RobustThread& thread = os::RobustThread::Self();
  os::RobustList& list = thread.list();
  list.CheckIdle();
  list.Pend(word_.word);
  if (!thread.Unlink(node_, list)) [[unlikely]] {
    NotTheHolder();
  }
  const uint32_t watch = word_.watch.load(std::memory_order_relaxed);
  const uint32_t word = word_.word.load(std::memory_order_relaxed);
  if (word != thread.fenced_tid() ||
      (watch & sync_internal::kWatch) != sync_internal::kShut) [[unlikely]] {
    UnlockSlow(thread);
    return;
  }
  word_.word.store(0, std::memory_order_release);  // And it is free.
  // The processor may do the next load before that store; the compiler may not.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (word_.watch.load(std::memory_order_relaxed) != watch) [[unlikely]] {
    sync_internal::WakeNext(word_);
  }
  list.Unpend();
}

// Holds a `Mutex` for the length of a scope.
class ABSL_SCOPED_LOCKABLE [[nodiscard]] MutexLock final {
 public:
  explicit MutexLock(Mutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) {
    mu_.lock();
  }

  // Likewise; where a holder has died, calls `repair()` under the lock and then
  // clears the poison. If the repairer dies or throws, the next one repairs.
  template <typename Repair>
  MutexLock(Mutex& mu, Repair&& repair)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) ABSL_NO_THREAD_SAFETY_ANALYSIS
      : MutexLock(mu) {
    if (mu.poisoned()) [[unlikely]] {
      std::forward<Repair>(repair)();
      mu.clear_poison();
    }
  }

  ~MutexLock() ABSL_UNLOCK_FUNCTION() {
    if (held_) mu_.unlock();
  }

  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  // Lets go in the middle of the scope and takes it again, as a
  // std::condition_variable_any does. Require that it is held, or is not.
  void unlock() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    held_ = false;
    mu_.unlock();
  }
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu_.lock();
    held_ = true;
  }

  // As of the mutex. Requires that it is held.
  [[nodiscard]] bool poisoned() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mu_.poisoned();
  }

  // As of a std::unique_lock.
  [[nodiscard]] Mutex* mutex() const ABSL_LOCK_RETURNED(mu_) { return &mu_; }

 private:
  Mutex& mu_;
  bool held_ = true;
};

}  // namespace cohort

#endif  // COHORT_SYNC_MUTEX_H_
