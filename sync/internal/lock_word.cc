// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/internal/lock_word.h"

#include <bit>
#include <cstddef>

#include "cohort/os/cpu.h"
#include "cohort/os/futex.h"
#include "cohort/os/membarrier.h"

namespace cohort::sync_internal {
namespace {

// A spinning waiter looks at the word at once, after kFirstPause pauses, after
// twice as many, and so on up to kMaxPause. Each look takes the line from the
// holder, which works the faster the rarer they are. All looks together take
// about as long as falling asleep and being woken: a longer section is cheaper
// to sleep through.
constexpr int kFirstPause = 8;
constexpr int kMaxPause = 32;
constexpr int kLooks = 16;

std::atomic<uint64_t> rescues = 0;

// Takes the word if nobody holds it. `keep` are the bits that it holds then.
bool TakeIfFree(std::atomic<uint32_t>& word, uint32_t& seen, uint32_t tid,
                uint32_t keep) {
  while ((seen & kHolder) == 0) {
    if (word.compare_exchange_weak(seen, tid | (seen & kWaiters) | keep,
                                   std::memory_order_acquire,
                                   std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

// `mark(seen)` sets kWaiters in a word that another holds; false if the word
// does not hold `seen` any more. `shut()` says whether whoever frees the word
// looks at that mark alone.
template <typename Mark, typename Shut>
Acquired LockSlow(std::atomic<uint32_t>& word, os::RobustThread& thread,
                  Deadline deadline, Mark mark, Shut shut) {
  const uint32_t tid = thread.tid();
  // Whoever has slept may have been given a wake-up that was the only one, so
  // the lock that it takes, or leaves with its time over, says kWaiters: other
  // sleepers must not depend on its luck.
  uint32_t keep = 0;
  os::Slices slices(deadline);
  for (;;) {
    uint32_t seen = word.load(std::memory_order_relaxed);
    const bool spin = thread.may_spin() && deadline > Deadline::Now();
    for (int look = spin ? 0 : kLooks, pause = kFirstPause;; ++look) {
      if (TakeIfFree(word, seen, tid, keep)) {
        return (seen & kOwnerDied) != 0 ? Acquired::kOwnerDied
                                        : Acquired::kClean;
      }
      if (look >= kLooks) break;
      for (int i = 0; i < pause; ++i) os::CpuRelax();
      if (pause < kMaxPause) pause *= 2;
      seen = word.load(std::memory_order_relaxed);
    }
    const bool over = deadline.Passed();
    if (over && keep == 0) return Acquired::kTimedOut;
    if ((seen & kWaiters) == 0 && !mark(seen)) continue;
    if (over) return Acquired::kTimedOut;
    thread.RefreshCpus();
    keep = kWaiters;
    const os::FutexEnd end =
        os::FutexWait(word, seen | kWaiters, slices.Next());
    // Who leaves when its time is over may just have been looked for in vain,
    // and the mark been removed: then nothing was missing.
    if (end == os::FutexEnd::kTimedOut && !deadline.Passed() &&
        (word.load(std::memory_order_relaxed) & kWaiters) == 0 && shut()) {
      rescues.fetch_add(1, std::memory_order_relaxed);
    }
  }
}

// A compare-exchange of both halves.
bool Exchange(WatchedWord& both, uint32_t word, uint32_t watch,
              uint32_t new_word, uint32_t new_watch) {
  using Bits [[gnu::may_alias]] = uint64_t;
  static_assert(std::endian::native == std::endian::little);
  static_assert(offsetof(WatchedWord, word) == 0 && sizeof(both) == 8);
  Bits expected = word | uint64_t{watch} << 32;
  return __atomic_compare_exchange_n(reinterpret_cast<Bits*>(&both), &expected,
                                     new_word | uint64_t{new_watch} << 32,
                                     /*weak=*/false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED);
}

bool Mark(WatchedWord& both, uint32_t seen) {
  uint32_t watch = both.watch.load(std::memory_order_relaxed);
  if ((watch & kWatch) == kShut) {
    if (!both.watch.compare_exchange_strong(watch, watch + kOpening)) {
      return false;
    }
    watch += kOpening;
  }
  if ((watch & kWatch) == kOpening) {
    // Also where another is about to do the same: it may be dead.
    os::BarrierForAll();
    const uint32_t open = watch - kOpening + kOpen;
    if (!both.watch.compare_exchange_strong(watch, open)) return false;
    watch = open;
  }
  return Exchange(both, seen, watch, seen | kWaiters, watch);
}

}  // namespace

Acquired LockWordSlow(std::atomic<uint32_t>& word, os::RobustThread& thread,
                      Deadline deadline) {
  return LockSlow(
      word, thread, deadline,
      [&](uint32_t seen) {
        return word.compare_exchange_strong(seen, seen | kWaiters,
                                            std::memory_order_relaxed);
      },
      [] { return true; });
}

Acquired LockWordSlow(WatchedWord& word, os::RobustThread& thread,
                      Deadline deadline) {
  return LockSlow(
      word.word, thread, deadline,
      [&](uint32_t seen) { return Mark(word, seen); },
      [&] {
        return (word.watch.load(std::memory_order_relaxed) & kWatch) == kShut;
      });
}

uint64_t Rescues() { return rescues.load(std::memory_order_relaxed); }

void WakeNext(std::atomic<uint32_t>& word) {
  // kWaiters has stayed: the one that is woken may be killed before it acts,
  // while a third takes the lock; that third one's unlock has to wake the next.
  if (os::FutexWake(word, 1) > 0) return;
  uint32_t idle = kWaiters;
  if (word.compare_exchange_strong(idle, 0, std::memory_order_relaxed)) {
    // Others may have taken and freed the lock since that wake-up, and left a
    // sleeper to the bit just removed.
    os::FutexWake(word, 1);
  }
}

void WakeNext(WatchedWord& word) {
  // As above. The watch has stayed open, too.
  if (os::FutexWake(word.word, 1) > 0) return;
  const uint32_t watch = word.watch.load(std::memory_order_relaxed);
  const uint32_t shut =
      (watch & kWatch) == kShut ? watch : (watch | kWatch) + 1;
  if (Exchange(word, kWaiters, watch, 0, shut) ||
      Exchange(word, 0, watch, 0, shut)) {
    os::FutexWake(word.word, 1);
  }
}

}  // namespace cohort::sync_internal
