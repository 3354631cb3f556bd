// SPDX-License-Identifier: Apache-2.0
//
// `cohort::SharedMutex` is a lock for memory that several processes map: many
// may read at a time, or one may write. The caller chooses the memory; the
// mutex allocates nothing there, puts no name into any system-wide namespace
// and leaves nothing behind after a crash. A reader that dies has read, and
// that is all. When a writer dies the mutex becomes free and *poisoned*:
// whoever comes next is told that the data behind it may be half-written.
//
//   struct Prices {
//     cohort::SharedMutex mu;
//     int64_t cents[100] ABSL_GUARDED_BY(mu) = {};
//   };
//
//   {  // `prices` points into shared memory.
//     cohort::SharedMutexReaderLock lock(prices->mu);
//     if (!lock.poisoned()) return prices->cents[item];
//   }
//   // To write; the repair runs if a writer died:
//   cohort::SharedMutexLock lock(prices->mu, [&] { ReadAgain(*prices); });
//   prices->cents[item] += 100;
//
// It is large, 2 KiB and more, for the sake of readers: each marks a cache line
// of its own, so readers on several processors do not slow each other down. A
// writer looks at all of these lines. Where writing is as common as reading, or
// sections are short, take cohort::Mutex; for a few words that may be copied
// again when a writer came in between, a sequence lock. It is not recursive and
// cannot be upgraded. Threads of a single process should prefer `absl::Mutex`.

#ifndef COHORT_SYNC_SHARED_MUTEX_H_
#define COHORT_SYNC_SHARED_MUTEX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/lock_word.h"

namespace cohort {

namespace sync_internal {

// A lock word, its bits as in sync/internal/lock_word.h, and its link where the
// kernel wants it.
struct alignas(64) SharedMutexSlot {
  std::atomic<uint32_t> word = 0;
  [[maybe_unused]] uint32_t reserved[5] = {};  // Zero.
  os::RobustNode node;
};

// Likewise; what stands between is guarded by the word.
struct alignas(64) SharedMutexGate {
  std::atomic<uint32_t> word = 0;
  std::atomic<uint32_t> state = 0;  // One of those below.
  uint32_t poisoned = 0;
  [[maybe_unused]] uint32_t reserved[3] = {};  // Zero.
  os::RobustNode node;
};

// What a reader may do, and what the dead have done. Written by the holder of
// the gate, but for kNoReaders -> kReading, which a reader does.
inline constexpr uint32_t kNoReaders = 0;  // None came since the last writer.
inline constexpr uint32_t kReading = 1;    // Readers may enter.
inline constexpr uint32_t kDraining = 2;   // None may; some are still there.
inline constexpr uint32_t kWriting = 3;    // None is.

// The index of a thread's first choice among `count` slots. Neighbouring thread
// ids, and those at a regular distance, get different ones.
[[nodiscard]] inline uint32_t HomeOf(uint32_t tid, size_t count) {
  const uint32_t mixed = tid * 0x9e3779b9u;
  return static_cast<uint32_t>((uint64_t{mixed} * count) >> 32);
}

// The paths on which somebody is in the way. The first says `taken` where this
// thread has taken its first choice, still pending, but the gate was closed.
[[nodiscard]] bool LockSharedSlow(SharedMutexSlot& porch, SharedMutexGate& gate,
                                  std::span<SharedMutexSlot> slots, bool taken,
                                  Deadline deadline);
void UnlockSharedSlow(std::span<SharedMutexSlot> slots);
void LeaveSlot(SharedMutexSlot& slot);
void WakeAfterRead(SharedMutexSlot& slot);
[[nodiscard]] bool LockExclusive(SharedMutexSlot& porch, SharedMutexGate& gate,
                                 std::span<SharedMutexSlot> slots,
                                 Deadline deadline);
[[nodiscard]] bool TryLockExclusive(SharedMutexSlot& porch,
                                    SharedMutexGate& gate,
                                    std::span<SharedMutexSlot> slots);
void UnlockExclusive(SharedMutexGate& gate);

}  // namespace sync_internal

// SharedMutex
//
// |         | lock_shared()        | lock()               | holder dies    |
// |---------+----------------------+----------------------+----------------|
// | Free    | Read                 | Written              | --             |
// | Read    | Read; blocks behind  | blocks; by a reader: | as if it had   |
// |         | a writer that waits  | fatal                | unlocked       |
// | Written | blocks; by the       | blocks; by the       | Free, poisoned |
// |         | writer: fatal        | writer: fatal        |                |
//
// Its last reader's unlock_shared() and its writer's unlock() make it Free; by
// a thread that does not read, or is not the writer, they are fatal. "Fatal" is
// one line on stderr, then abort(): a bug that no result can mend.
//
// At most `kReaders` threads read at a time; one more waits until a reader has
// left. A thread that reads must not ask to read again: with a writer waiting
// between the two it would wait for itself, and wherever that is noticed, it is
// fatal. Readers and writers who wait do so in one queue: neither kind keeps
// the other out for long.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 128 + 64 * kReaders bytes, aligned to 64; they are
//                   an ABI between builds. Never move or copy it; don't unmap
//                   it while it is held or a thread is inside one of its
//                   members.
//   Thread-safety:  every member, from any thread, at any time. A thread holds
//                   at most 1024 locks, of which this one counts twice while it
//                   is being taken.
//   Process-safety: likewise, among all processes of one PID namespace that
//                   map the same bytes.
//   Fork-safety:    a child of fork() does not hold what its parent holds.
//   Crash-safety:   the kernel takes reader or writer out when the thread ends
//                   and when its process dies, by SIGKILL too, or calls
//                   execve(). Not so when another than the main thread calls
//                   that: its hold lasts for ever. Poison is for writers only.
//   Signal-safety:  none; keep it out of handlers. Waits resume after one ran.
//   Errors:         none is returned. "Not now" is false; misuse is fatal.
//   Ordering:       what a writer wrote before it unlocked, or died, is visible
//                   to the next readers and writer; what a reader read, no
//                   later writer had written.
//   Cost:           lock_shared() + unlock_shared() with no writer make no
//                   system call, but for a thread's first lock, and write to no
//                   line that another reader writes to, as long as no two
//                   threads' ids fall on one slot. lock() looks at each slot
//                   if anybody has read since the last writer. A waiter looks
//                   up every 100 ms.
//   Reference:      std::shared_timed_mutex; get_robust_list(2); the poison is
//                   that of cohort::Mutex; docs/design/shared_mutex.md says
//                   what else was tried.
template <int kReaders>
class ABSL_LOCKABLE BasicSharedMutex final {
 public:
  static_assert(kReaders >= 1 && kReaders <= 4096);

  // Starts free and clean. All-zero bytes are such a mutex: a fresh page needs
  // no construction, and nothing needs destruction.
  constexpr BasicSharedMutex() = default;

  BasicSharedMutex(const BasicSharedMutex&) = delete;
  BasicSharedMutex& operator=(const BasicSharedMutex&) = delete;

  // To write.

  // Blocks until the calling thread may write.
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    (void)try_lock_until(Deadline::Infinite());
  }

  // Takes it if that needs no wait. Returns true iff the caller may now write;
  // to a thread that already reads or writes that is false.
  [[nodiscard]] bool try_lock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    return sync_internal::TryLockExclusive(porch_, gate_, slots_);
  }

  // Blocks until the calling thread may write or `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC) is over; at least one attempt. Returns true iff it may.
  [[nodiscard]] bool try_lock_until(Deadline deadline)
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    return sync_internal::LockExclusive(porch_, gate_, slots_, deadline);
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration. A time
  // of zero or less makes one attempt.
  template <typename Duration>
  [[nodiscard]] bool try_lock_for(const Duration& wait)
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    return try_lock_until(Deadline::After(wait));
  }

  // Ends that. Requires that the caller is the writer.
  void unlock() ABSL_UNLOCK_FUNCTION() {
    sync_internal::UnlockExclusive(gate_);
  }

  // To read.

  // Blocks until the calling thread may read.
  void lock_shared() ABSL_SHARED_LOCK_FUNCTION() {
    (void)try_lock_shared_until(Deadline::Infinite());
  }

  // Enters if that needs no wait. Returns true iff the caller may now read. May
  // be false, too, while another thread is just coming in, or tries to.
  [[nodiscard]] bool try_lock_shared() ABSL_SHARED_TRYLOCK_FUNCTION(true) {
    return try_lock_shared_until(Deadline::Now());
  }

  // As their counterparts above.
  [[nodiscard]] bool try_lock_shared_until(Deadline deadline)
      ABSL_SHARED_TRYLOCK_FUNCTION(true);
  template <typename Duration>
  [[nodiscard]] bool try_lock_shared_for(const Duration& wait)
      ABSL_SHARED_TRYLOCK_FUNCTION(true) {
    return try_lock_shared_until(Deadline::After(wait));
  }

  // Ends that. Requires that the caller reads.
  void unlock_shared() ABSL_UNLOCK_FUNCTION();

  // Poison.

  // Returns true iff a writer has died since construction or clear_poison(). It
  // stays true for later holders too, so a repair that is itself killed halfway
  // is noticed and begun anew. Readers may ask; they cannot repair.
  [[nodiscard]] bool poisoned() const ABSL_SHARED_LOCKS_REQUIRED(this) {
    return gate_.poisoned != 0;
  }

  // Returns true iff its last writer, or whoever waited for readers to leave,
  // died and nobody has held it since. Stale when it returns.
  [[nodiscard]] bool abandoned() const {
    return (gate_.word.load(std::memory_order_relaxed) &
            sync_internal::kOwnerDied) != 0;
  }

  // Declares the data behind the mutex whole again.
  void clear_poison() ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    gate_.poisoned = 0;
  }

 private:
  // Who finds the gate closed waits here, one of them at the gate itself.
  sync_internal::SharedMutexSlot porch_;
  // Held by the writer, and by a reader on its way in past a waiting writer.
  sync_internal::SharedMutexGate gate_;
  // One for each reader.
  sync_internal::SharedMutexSlot slots_[kReaders];
};

using SharedMutex = BasicSharedMutex<32>;
static_assert(sizeof(SharedMutex) == 2176 && alignof(SharedMutex) == 64,
              "shared ABI");

// The paths without a writer stand here to be inlined: they cost little more
// than their one read-modify-write, if what can be read before that is.

template <int kReaders>
inline bool BasicSharedMutex<kReaders>::try_lock_shared_until(
    Deadline deadline) {
  os::RobustThread& thread = os::RobustThread::Self();
  os::RobustList& list = thread.list();
  const bool first = list.empty();
  sync_internal::SharedMutexSlot& slot =
      slots_[sync_internal::HomeOf(thread.tid(), kReaders)];
  list.Pend(slot.word);
  // First mark the slot, then look at the gate; a writer first closes the gate,
  // then looks at the slots. One of the two sees the other.
  uint32_t free = 0;
  if (!slot.word.compare_exchange_strong(
          free, thread.tid(), std::memory_order_seq_cst,
          std::memory_order_relaxed)) [[unlikely]] {
    return sync_internal::LockSharedSlow(porch_, gate_, slots_, false,
                                         deadline);
  }
  if (gate_.state.load(std::memory_order_seq_cst) != sync_internal::kReading)
      [[unlikely]] {
    return sync_internal::LockSharedSlow(porch_, gate_, slots_, true, deadline);
  }
  thread.Push(slot.node, list, first);
  list.Unpend();
  return true;
}

template <int kReaders>
inline void BasicSharedMutex<kReaders>::unlock_shared() {
  os::RobustThread& thread = os::RobustThread::Self();
  os::RobustList& list = thread.list();
  sync_internal::SharedMutexSlot& slot =
      slots_[sync_internal::HomeOf(thread.tid(), kReaders)];
  list.Pend(slot.word);
  if (!thread.Unlink(slot.node, list)) [[unlikely]] {
    sync_internal::UnlockSharedSlow(slots_);
    return;
  }
  if (slot.word.load(std::memory_order_relaxed) != thread.fenced_tid() ||
      gate_.state.load(std::memory_order_relaxed) != sync_internal::kReading)
      [[unlikely]] {
    sync_internal::LeaveSlot(slot);
    return;
  }
  slot.word.store(0, std::memory_order_release);  // And this thread has left.
  // The processor may do the next load before that store, but not across the
  // barrier that whoever closes the gate runs before it sleeps. The compiler
  // may not.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (gate_.state.load(std::memory_order_relaxed) != sync_internal::kReading)
      [[unlikely]] {
    sync_internal::WakeAfterRead(slot);
  }
  list.Unpend();
}

// Writes for the length of a scope.
template <int kReaders>
class ABSL_SCOPED_LOCKABLE [[nodiscard]] SharedMutexLock final {
 public:
  explicit SharedMutexLock(BasicSharedMutex<kReaders>& mu)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(mu)
      : mu_(mu) {
    mu_.lock();
  }

  // Likewise; where a writer has died, calls `repair()` under the lock and then
  // clears the poison. If the repairer dies or throws, the next one repairs.
  template <typename Repair>
  SharedMutexLock(BasicSharedMutex<kReaders>& mu, Repair&& repair)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) ABSL_NO_THREAD_SAFETY_ANALYSIS
      : SharedMutexLock(mu) {
    if (mu.poisoned()) [[unlikely]] {
      std::forward<Repair>(repair)();
      mu.clear_poison();
    }
  }

  ~SharedMutexLock() ABSL_UNLOCK_FUNCTION() {
    if (held_) mu_.unlock();
  }

  SharedMutexLock(const SharedMutexLock&) = delete;
  SharedMutexLock& operator=(const SharedMutexLock&) = delete;

  // Lets go in the middle of the scope and takes it again, as a
  // ConditionVariable does. Require that it is held, or is not.
  void unlock() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    held_ = false;
    mu_.unlock();
  }
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu_.lock();
    held_ = true;
  }

  // As of the mutex.
  [[nodiscard]] bool poisoned() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mu_.poisoned();
  }

  // As of a std::unique_lock.
  [[nodiscard]] BasicSharedMutex<kReaders>* mutex() const
      ABSL_LOCK_RETURNED(mu_) {
    return &mu_;
  }

 private:
  BasicSharedMutex<kReaders>& mu_;
  bool held_ = true;
};

// Reads for the length of a scope.
template <int kReaders>
class ABSL_SCOPED_LOCKABLE [[nodiscard]] SharedMutexReaderLock final {
 public:
  explicit SharedMutexReaderLock(BasicSharedMutex<kReaders>& mu)
      ABSL_SHARED_LOCK_FUNCTION(mu)
      : mu_(mu) {
    mu_.lock_shared();
  }

  ~SharedMutexReaderLock() ABSL_UNLOCK_FUNCTION() { mu_.unlock_shared(); }

  SharedMutexReaderLock(const SharedMutexReaderLock&) = delete;
  SharedMutexReaderLock& operator=(const SharedMutexReaderLock&) = delete;

  // As of the mutex.
  [[nodiscard]] bool poisoned() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mu_.poisoned();
  }

 private:
  BasicSharedMutex<kReaders>& mu_;
};

}  // namespace cohort

#endif  // COHORT_SYNC_SHARED_MUTEX_H_
