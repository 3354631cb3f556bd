// SPDX-License-Identifier: Apache-2.0
//
// The 32-bit word that every crash-safe lock of this library is made of, and
// the slow halves of taking and freeing it. The fast halves are one
// compare-exchange each and stand in the lock types.
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

// How often in this process a sleeper's slice ended while the word did not say
// kWaiters: nobody was bound to wake it. Stays 0 where nobody is killed.
[[nodiscard]] uint64_t Rescues();

[[nodiscard]] inline uint32_t HolderOf(const std::atomic<uint32_t>& word) {
  return word.load(std::memory_order_relaxed) & kHolder;
}

}  // namespace cohort::sync_internal

#endif  // COHORT_SYNC_INTERNAL_LOCK_WORD_H_
