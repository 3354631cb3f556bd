// SPDX-License-Identifier: Apache-2.0
//
// The 32-bit word that every crash-safe lock of this library is made of, and
// the slow halves of taking and freeing it. The fast halves stand in the lock
// types.
//
//   bits 0-29  thread id of the holder, 0 when free; set by the holder, removed
//              by the holder or, at its death, by the kernel. Never stale.
//   bit  30    kOwnerDied: the last holder died. Set by the kernel, removed by
//              the next holder.
//   bit  31    kWaiters: somebody may sleep. Set by waiters; kept by whoever
//              frees or takes the lock; removed only after a wake-up that found
//              nobody. May be stale, then it costs one vain system call.
//
// Every member expects that the caller has the word pending (os/robust.h).

#ifndef COHORT_SYNC_INTERNAL_LOCK_WORD_H_
#define COHORT_SYNC_INTERNAL_LOCK_WORD_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"

namespace cohort::sync_internal {

inline constexpr uint32_t kWaiters = 0x80000000;
inline constexpr uint32_t kOwnerDied = 0x40000000;
inline constexpr uint32_t kHolder = 0x3fffffff;

enum class Acquired {
  kClean,
  kOwnerDied,  // Held too, and the last holder died holding it.
  kTimedOut,   // Not held.
};

// Takes the word, waiting until `deadline`: spins where the holder can be
// running, then sleeps in slices.
[[nodiscard]] Acquired LockWordSlow(std::atomic<uint32_t>& word,
                                    os::RobustThread& thread,
                                    Deadline deadline);

// The holder frees the word by subtracting its thread id, so that kWaiters
// stays. Where that was set it then owes this: wakes one waiter.
void WakeNext(std::atomic<uint32_t>& word);

// A lock word that its holder may free by a plain store of 0, which costs half
// as much as an atomic step but can wipe out a kWaiters that comes at the same
// moment. Whoever wants to set kWaiters in a word that another holds therefore
// opens the watch first, runs a barrier for everybody, and sets it by a
// compare-exchange of all 8 bytes. The holder
//
//   1. reads the watch and the word;
//   2. if the watch is shut and the word holds its fenced_tid() and no mark:
//      stores 0 there and, last, reads the watch again: if it has changed, a
//      mark may have been wiped out, and the holder owes WakeNext();
//   3. if not: subtracts its id, and owes WakeNext() if kWaiters was set or the
//      watch is open.
//
// That barrier is why 2. cannot miss a watch that was opened for a mark that it
// wiped out. Whoever takes a free word may set kWaiters in the same step: it
// will see the mark itself.
struct alignas(8) WatchedWord {
  std::atomic<uint32_t> word = 0;
  // 4 * generation + one of the three below. The generation grows whenever the
  // watch is shut, so that no barrier counts for a later opening.
  std::atomic<uint32_t> watch = 0;
};
inline constexpr uint32_t kWatch = 3;
inline constexpr uint32_t kShut = 0;
inline constexpr uint32_t kOpening = 1;  // Opened; its barrier is to come.
inline constexpr uint32_t kOpen = 2;     // And that has been run.

// As above. WakeNext() shuts the watch together with the removal of kWaiters.
[[nodiscard]] Acquired LockWordSlow(WatchedWord& word, os::RobustThread& thread,
                                    Deadline deadline);
void WakeNext(WatchedWord& word);

// How often in this process a sleeper's slice ended while the word did not say
// kWaiters, nor was the watch open: nobody was bound to wake it. Stays 0 where
// nobody is killed.
[[nodiscard]] uint64_t Rescues();

[[nodiscard]] inline uint32_t HolderOf(const std::atomic<uint32_t>& word) {
  return word.load(std::memory_order_relaxed) & kHolder;
}

}  // namespace cohort::sync_internal

#endif  // COHORT_SYNC_INTERNAL_LOCK_WORD_H_
