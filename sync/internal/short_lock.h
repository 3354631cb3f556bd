// SPDX-License-Identifier: Apache-2.0
//
// `ShortLock` guards a short section of the library's own code against other
// processes, and survives their death: 4 bytes in shared memory, all-zero is
// free. It is covered by the one pending slot of the thread's robust list, so
// taking it writes nothing but its word; in return a thread holds at most one
// at a time, and inside it calls neither user code, nor malloc, nor anything
// that locks (a robust pthread mutex of libc would take the slot away).
//
//   switch (ring->producers.Lock(deadline)) {
//     case Acquired::kTimedOut: return false;
//     case Acquired::kOwnerDied: RebuildCaches(ring);  // Then as usual:
//     case Acquired::kClean: ...
//   }
//   Commit(ring);                    // One store.
//   ring->producers.Unlock();
//
// What users hold across their own code is a cohort::Mutex (sync/mutex.h).

#ifndef COHORT_SYNC_INTERNAL_SHORT_LOCK_H_
#define COHORT_SYNC_INTERNAL_SHORT_LOCK_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/lock_word.h"

namespace cohort::sync_internal {

// ShortLock
//
// |      | Lock()                 | Unlock()            | holder dies         |
// |------+------------------------+---------------------+---------------------|
// | Free | held: kClean           | undefined           | --                  |
// | Held | waits; kTimedOut       | free                | the next Lock():    |
// |      |                        |                     | kOwnerDied, once    |
//
// kOwnerDied is said to one holder. If that one dies too, its successor is told
// again; if it unlocks, the matter is closed.
//
// Contract
//   Placement:      any MAP_SHARED mapping. 4 bytes, aligned to 4.
//   Thread-safety:  every member.
//   Process-safety: every member, in one PID namespace.
//   Fork-safety:    a child does not hold what its parent holds.
//   Crash-safety:   the kernel frees it when its holder dies.
//   Signal-safety:  none.
//   Errors:         kTimedOut. Misuse is not detected.
//   Ordering:       what a holder wrote before it unlocked, or died, is visible
//                   to the next holder.
//   Cost:           Lock() + Unlock() with no rival: two read-modify-writes and
//                   two private stores, no system call.
//   Reference:      docs/design/mutex.md.
class ShortLock final {
 public:
  constexpr ShortLock() = default;
  ShortLock(const ShortLock&) = delete;
  ShortLock& operator=(const ShortLock&) = delete;

  // Takes it, waiting no longer than `deadline`; at least one attempt.
  [[nodiscard]] Acquired Lock(Deadline deadline = Deadline::Infinite()) {
    os::RobustThread& thread = os::RobustThread::Self();
    thread.Pend(word_);
    uint32_t free = 0;
    if (word_.compare_exchange_strong(free, thread.tid(),
                                      std::memory_order_acquire,
                                      std::memory_order_relaxed)) [[likely]] {
      return Acquired::kClean;
    }
    const Acquired acquired = LockWordSlow(word_, thread, deadline);
    if (acquired == Acquired::kTimedOut) thread.Unpend();
    return acquired;
  }

  // Takes it if that needs no wait.
  [[nodiscard]] Acquired TryLock() { return Lock(Deadline::Now()); }

  // Frees it and wakes one waiter, if any. Requires that the caller holds it.
  void Unlock() {
    os::RobustThread& thread = os::RobustThread::Self();
    UnlockStayPending(thread);
    thread.Unpend();
  }

  // Likewise, but leaves the pending slot at this lock: if the thread dies
  // before its next Unpend(), the kernel wakes one waiter of this word.
  // Unlock() is this and then Unpend().
  void UnlockStayPending(os::RobustThread& thread) {
    if (word_.fetch_sub(thread.tid(), std::memory_order_release) !=
        thread.tid()) [[unlikely]] {
      WakeNext(word_);
    }
  }

  // The thread id of the holder, or 0; stale when it returns.
  [[nodiscard]] uint32_t holder() const { return HolderOf(word_); }

 private:
  std::atomic<uint32_t> word_ = 0;  // Bits: sync/internal/lock_word.h.
};
static_assert(sizeof(ShortLock) == 4, "shared ABI");

}  // namespace cohort::sync_internal

#endif  // COHORT_SYNC_INTERNAL_SHORT_LOCK_H_
