// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/internal/permit_ledger.h"

#include <algorithm>
#include <chrono>

#include "cohort/os/futex.h"

namespace cohort::sync_internal {
namespace {

// A call whose time is over still waits so long for a rival that is in the
// middle of its own call: that one is a few instructions from the end, or it
// has been stopped there.
constexpr std::chrono::milliseconds kPatience(10);

// All waiters together look for dead holders no more often than this.
constexpr uint32_t kSweepEvery = 20;  // ms

// Under the lock. Returns what the word holds then: a second look might not see
// the mark, which WakeSome() takes away without the lock.
uint32_t Mark(std::atomic<uint32_t>& word) {
  const uint32_t marked = word.load(std::memory_order_relaxed) | kSleepers;
  word.store(marked, std::memory_order_relaxed);
  return marked;
}

}  // namespace

PermitSlot* PermitLedgerHead::Find(Slots slots, uint64_t who) {
  PermitSlot* vacant = nullptr;
  uint32_t at = Home(slots, who);
  for (uint32_t seen = 0; seen < slots.size; ++seen) {
    PermitSlot& slot = slots.at[at];
    if (slot.who.load(std::memory_order_relaxed) == who) return &slot;
    if (vacant == nullptr && slot.count.load(std::memory_order_relaxed) == 0) {
      vacant = &slot;
    }
    if (++at == slots.size) at = 0;
  }
  // Only here is a slot given away, so nobody ever has two.
  return vacant;
}

void PermitLedgerHead::Rebuild(Slots slots) {
  uint64_t held = 0;
  for (uint32_t i = 0; i < slots.size; ++i) {
    held += slots.at[i].count.load(std::memory_order_relaxed);
  }
  // What was owed to sleepers is unknown, so the marks are set.
  const auto free =
      static_cast<uint32_t>(permits_ - std::min<uint64_t>(held, permits_));
  free_.store(free | kSleepers, std::memory_order_relaxed);
  room_.store((room_.load(std::memory_order_relaxed) + 1) | kSleepers,
              std::memory_order_relaxed);
  // Who has died there may hold permits as well: the next to wait looks at once.
  swept_.store(swept_.load(std::memory_order_relaxed) - kSweepEvery,
               std::memory_order_relaxed);
}

bool PermitLedgerHead::Enter(Slots slots, Deadline deadline) {
  if (!deadline.infinite()) {
    deadline = std::max(deadline, Deadline::After(kPatience));
  }
  const Acquired how = lock_.Lock(deadline);
  if (how == Acquired::kOwnerDied) Rebuild(slots);
  return how != Acquired::kTimedOut;
}

bool PermitLedgerHead::SweepIsDue() {
  const auto now = static_cast<uint32_t>(os::NowNanoseconds() / 1'000'000);
  if (now - swept_.load(std::memory_order_relaxed) < kSweepEvery) return false;
  swept_.store(now, std::memory_order_relaxed);
  return true;
}

uint32_t PermitLedgerHead::Sweep(Slots slots, uint64_t me, Deadline deadline) {
  uint32_t home_again = 0;
  for (uint32_t i = 0; i < slots.size; ++i) {
    PermitSlot& slot = slots.at[i];
    if (slot.count.load(std::memory_order_relaxed) == 0) continue;
    const uint64_t who = slot.who.load(std::memory_order_relaxed);
    // The kernel is asked without the lock. A dead process stays dead: if the
    // slot is still its own then, so is what it holds.
    if (who == me || os::ProcessIdentity::FromBits(who).CheckLiveness() !=
                         os::Liveness::kDead) {
      continue;
    }
    if (!Enter(slots, deadline)) break;
    const uint32_t held = slot.count.load(std::memory_order_relaxed);
    if (slot.who.load(std::memory_order_relaxed) != who || held == 0) {
      lock_.Unlock();
      continue;
    }
    GiveAndUnlock(os::RobustThread::Self(), slot, held, held);
    home_again += held;
  }
  return home_again;
}

bool PermitLedgerHead::Await(Slots slots, uint64_t me, Deadline deadline) {
  // Whoever has slept on a word may have been given a wake-up that was the only
  // one: it leaves the mark there, and if it waits for something else now, it
  // passes the wake-up on.
  std::atomic<uint32_t>* slept_on = nullptr;
  os::Slices slices(deadline);
  for (;;) {
    for (int looks = LooksBeforeSleep(deadline); looks > 0 && value() == 0;
         --looks) {
      BetweenLooks();
    }
    if (!Enter(slots, deadline)) {
      // Without the lock nobody can tell whether the wake-up was of use.
      if (slept_on != nullptr) os::FutexWake(*slept_on, 1);
      return false;
    }
    if (slept_on != nullptr) Mark(*slept_on);
    PermitSlot* const slot = Find(slots, me);
    const uint32_t free = free_.load(std::memory_order_relaxed);
    if (slot != nullptr && (free & kCount) != 0) {
      slot->who.store(me, std::memory_order_relaxed);
      TakeAndUnlock(os::RobustThread::Self(), *slot, free);
      return true;
    }
    std::atomic<uint32_t>& word = slot != nullptr ? free_ : room_;
    const bool over = deadline.Passed();
    const bool sweep = SweepIsDue();
    const uint32_t seen = over ? 0 : Mark(word);
    lock_.Unlock();
    if (slept_on != nullptr && slept_on != &word) WakeSome(*slept_on, 1);
    if (sweep && Sweep(slots, me, deadline) != 0) continue;
    if (over) return false;
    os::FutexWait(word, seen, slices.Next());
    slept_on = &word;
  }
}

uint32_t PermitLedgerHead::ReleaseElsewhere(Slots slots, uint64_t me,
                                            uint32_t n) {
  PermitSlot* const slot = Find(slots, me);
  if (slot == nullptr || slot->who.load(std::memory_order_relaxed) != me) {
    lock_.Unlock();
    return 0;
  }
  const uint32_t held = slot->count.load(std::memory_order_relaxed);
  if (held < n) {
    lock_.Unlock();
  } else {
    GiveAndUnlock(os::RobustThread::Self(), *slot, held, n);
  }
  return held;
}

uint32_t PermitLedgerHead::Held(Slots slots) {
  const uint64_t me = os::ProcessIdentity::Self().bits();
  (void)Enter(slots, Deadline::Infinite());
  const PermitSlot* const slot = Find(slots, me);
  const bool mine =
      slot != nullptr && slot->who.load(std::memory_order_relaxed) == me;
  const uint32_t held = mine ? slot->count.load(std::memory_order_relaxed) : 0;
  lock_.Unlock();
  return held;
}

uint32_t PermitLedgerHead::Reclaim(Slots slots) {
  // Even where nobody dead holds anything, one may have died on the way.
  (void)Enter(slots, Deadline::Infinite());
  lock_.Unlock();
  return Sweep(slots, os::ProcessIdentity::Self().bits(), Deadline::Infinite());
}

void PermitLedgerHead::Wake(uint32_t free, uint32_t room, uint32_t n) {
  if ((free & kSleepers) != 0) WakeSome(free_, static_cast<int>(n));
  if ((room & kSleepers) != 0) WakeSome(room_, 1);
}

}  // namespace cohort::sync_internal
