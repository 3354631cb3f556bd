// SPDX-License-Identifier: Apache-2.0
//
// Waiting for a 32-bit word in shared memory to reach a state, and the half of
// the hand-shake that tells whoever changes it that somebody sleeps there. What
// an event, a latch or a barrier waits by; locks have sync/internal/lock_word.h.
//
//   AwaitWord(word, deadline, [](uint32_t state) { return state == kOpen; });
//
//   const uint32_t was = word.exchange(kOpen);      // Removes kSleepers too...
//   if ((was & kSleepers) != 0) os::FutexWake(word, INT_MAX);   // ...so wakes.
//
//   bits 0-30  the state, whose meaning is the caller's.
//   bit  31    kSleepers: somebody may sleep here, expecting the rest of the
//              word as it stands. Set by waiters; removed by whoever changes
//              the state and then wakes *all*. Who wakes fewer has to keep it:
//              WakeSome(). May be stale, then it costs one vain system call.
//
// A changer that is killed between the two steps leaves sleepers that nobody
// wakes: they look again at the end of their slice.

#ifndef COHORT_SYNC_INTERNAL_WAIT_WORD_H_
#define COHORT_SYNC_INTERNAL_WAIT_WORD_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/cpu.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"

namespace cohort::sync_internal {

inline constexpr uint32_t kSleepers = 0x80000000;

// How often a waiter looks before it sleeps: all together takes about as long as
// falling asleep and being woken. None where nobody else can run meanwhile, and
// none where the wait is over at once.
[[nodiscard]] int LooksBeforeSleep(Deadline deadline);

// What a waiter does between two looks. Each look takes the line from somebody
// who may be about to write to it: with one pause instead of two, a hand-off
// under a mutex takes twice as long.
inline void BetweenLooks() {
  os::CpuRelax();
  os::CpuRelax();
}

// Falls asleep on `word` until it changes from `seen`, somebody wakes it, or
// the slice ends; sets kSleepers first. May return at once.
void SleepOn(std::atomic<uint32_t>& word, uint32_t seen, os::Slices& slices);

// What a changer owes that kept kSleepers: wakes at most `count` sleepers, and
// removes the mark where fewer slept. Whoever has slept has to set the mark
// again when it goes on or gives up: it may have had the wake-up of another.
void WakeSome(std::atomic<uint32_t>& word, int count);

// Blocks until `done(state)` returns true, and returns true, or until
// `deadline` and returns false; asks at least once. `done` may change the word
// itself, as the acquisition of a permit does.
template <typename Done>
[[nodiscard]] bool AwaitWord(std::atomic<uint32_t>& word, Deadline deadline,
                             Done done) {
  uint32_t seen = word.load(std::memory_order_acquire);
  if (done(seen & ~kSleepers)) return true;
  os::Slices slices(deadline);
  for (;;) {
    for (int looks = LooksBeforeSleep(deadline); looks > 0; --looks) {
      BetweenLooks();
      seen = word.load(std::memory_order_acquire);
      if (done(seen & ~kSleepers)) return true;
    }
    if (deadline.Passed()) return false;
    SleepOn(word, seen, slices);
    seen = word.load(std::memory_order_acquire);
    if (done(seen & ~kSleepers)) return true;
  }
}

}  // namespace cohort::sync_internal

#endif  // COHORT_SYNC_INTERNAL_WAIT_WORD_H_
