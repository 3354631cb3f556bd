// SPDX-License-Identifier: Apache-2.0
//
// `PermitLedger` says which process holds how many of a fixed number of
// permits, in shared memory, and gives back what a dead process held. What
// sync/semaphore.h and sync/bounded_semaphore.h are made of; they differ in
// what a release of too much means.
//
//   PermitLedger<128> ledger(4);
//   if (ledger.Acquire(deadline)) {
//     ...
//     ledger.Release(1);
//   }
//
// The truth is one count for each holder. How many permits are free follows
// from these: it stands in a cache, which the first to get the lock after a
// death makes anew. So a death leaves no two words that disagree.

#ifndef COHORT_SYNC_INTERNAL_PERMIT_LEDGER_H_
#define COHORT_SYNC_INTERNAL_PERMIT_LEDGER_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/deadline.h"
#include "cohort/os/process_identity.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/short_lock.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort::sync_internal {

// What one process holds. Written under the lock only.
struct PermitSlot {
  // Whose `count` is (os/process_identity.h). Stays when that becomes 0, and
  // changes only while it is.
  std::atomic<uint64_t> who = 0;
  // Its store makes an acquire, a release or a reclaim true.
  std::atomic<uint32_t> count = 0;
  [[maybe_unused]] uint32_t reserved = 0;  // Zero.
};
static_assert(sizeof(PermitSlot) == 16, "shared ABI");

// A ledger but for its slots, so that the code does not depend on their number.
class PermitLedgerHead final {
 public:
  struct Slots {
    PermitSlot* at;
    uint32_t size;
  };

  // More would leave no bit between the permits and kSleepers.
  static constexpr uint32_t kMaxPermits = (uint32_t{1} << 30) - 1;

  constexpr explicit PermitLedgerHead(uint32_t permits)
      : free_(permits), permits_(permits) {}
  PermitLedgerHead(const PermitLedgerHead&) = delete;
  PermitLedgerHead& operator=(const PermitLedgerHead&) = delete;

  [[nodiscard]] bool Acquire(Slots slots, Deadline deadline);
  [[nodiscard]] uint32_t Release(Slots slots, uint32_t n);
  [[nodiscard]] uint32_t Held(Slots slots);
  uint32_t Reclaim(Slots slots);
  [[nodiscard]] uint32_t value() const {
    return free_.load(std::memory_order_relaxed) & kCount;
  }
  [[nodiscard]] uint32_t permits() const { return permits_; }

 private:
  static constexpr uint32_t kCount = ~kSleepers;

  // Where the search for the slot of a process begins. The ids of processes
  // that were started together differ in their low bits.
  static uint32_t Home(Slots slots, uint64_t who) {
    return static_cast<uint32_t>(who & 0x3fffff) % slots.size;
  }
  // The slot of `who`, else one that it can have, else null.
  static PermitSlot* Find(Slots slots, uint64_t who);

  // The three steps under the lock; the last two free it.
  void Rebuild(Slots slots);
  void TakeAndUnlock(os::RobustThread& thread, PermitSlot& slot, uint32_t free);
  void GiveAndUnlock(os::RobustThread& thread, PermitSlot& slot, uint32_t held,
                     uint32_t n);

  [[nodiscard]] bool Enter(Slots slots, Deadline deadline);
  [[nodiscard]] bool SweepIsDue();
  uint32_t Sweep(Slots slots, uint64_t me, Deadline deadline);
  bool Await(Slots slots, uint64_t me, Deadline deadline);
  uint32_t ReleaseElsewhere(Slots slots, uint64_t me, uint32_t n);
  void Wake(uint32_t free, uint32_t room, uint32_t n);

  ShortLock lock_;

  // Bits 0-30: permits less all counts; a cache. Bit 31: kSleepers, of those
  // that wait for a permit. Written under the lock, but for WakeSome().
  std::atomic<uint32_t> free_;

  // Bits 0-30: changes whenever a slot becomes vacant that somebody waits for.
  // Bit 31: kSleepers, of those that wait for a slot. Written as `free_` is.
  std::atomic<uint32_t> room_ = 0;

  uint32_t permits_;  // Constant.

  // When somebody last looked for dead holders, in ms, modulo 2^32.
  std::atomic<uint32_t> swept_ = 0;
  [[maybe_unused]] uint32_t reserved_[3] = {};  // Zero.
};
static_assert(sizeof(PermitLedgerHead) == 32, "shared ABI");

// PermitLedger
//
// |           | Acquire()       | Release(n)          | a process that holds |
// |           |                 |                     | k permits dies       |
// |-----------+-----------------+---------------------+----------------------|
// | 0 free    | waits; false    | n free              | k free, as soon as   |
// | f free    | f - 1 free, one | f + n free; holding | somebody waits, asks |
// |           | more held       | fewer: nothing      |                      |
// | no vacant | waits; false    | as above            | a slot is vacant,    |
// | slot      |                 |                     | likewise             |
//
// Contract
//   Placement:      any MAP_SHARED mapping. 32 + 16 * kHolders bytes, aligned
//                   to 8.
//   Thread-safety:  every member.
//   Process-safety: every member, in one PID and time namespace.
//   Fork-safety:    a child of fork() holds nothing.
//   Crash-safety:   any step may be the last one of its process.
//   Signal-safety:  none.
//   Errors:         false, or how much is held. No misuse is detected.
//   Ordering:       what was done before a Release(), or a death, is visible to
//                   whoever acquires later.
//   Cost:           Acquire() + Release() with no rival: four
//                   read-modify-writes.
//   Reference:      docs/design/semaphore.md.
template <int kHolders>
class PermitLedger final {
  static_assert(kHolders >= 1 && kHolders <= (1 << 20));

 public:
  constexpr explicit PermitLedger(uint32_t permits) : head_(permits) {}

  // Takes a permit for the calling process, waiting until `deadline`, or some
  // milliseconds longer where a rival is stopped in the middle of its call.
  // Returns true iff it did.
  [[nodiscard]] bool Acquire(Deadline deadline) {
    return head_.Acquire(slots(), deadline);
  }

  // Gives back `n` permits that the calling process holds, or none where it
  // holds fewer. Returns how many it held.
  [[nodiscard]] uint32_t Release(uint32_t n) {
    return head_.Release(slots(), n);
  }

  // How many permits the calling process holds.
  [[nodiscard]] uint32_t Held() { return head_.Held(slots()); }

  // Gives back what dead processes hold. Returns how many permits that were.
  uint32_t Reclaim() { return head_.Reclaim(slots()); }

  // How many permits are free, and how many there are.
  [[nodiscard]] uint32_t value() const { return head_.value(); }
  [[nodiscard]] uint32_t permits() const { return head_.permits(); }

 private:
  PermitLedgerHead::Slots slots() { return {slots_, kHolders}; }

  PermitLedgerHead head_;
  PermitSlot slots_[kHolders];
};

// The paths without a rival stand here to be inlined.

inline void PermitLedgerHead::TakeAndUnlock(os::RobustThread& thread,
                                            PermitSlot& slot, uint32_t free) {
  // A release, so that `who` is written before.
  slot.count.store(slot.count.load(std::memory_order_relaxed) + 1,
                   std::memory_order_release);
  free_.store(free - 1, std::memory_order_relaxed);
  lock_.UnlockStayPending(thread);
  thread.Unpend();
}

inline void PermitLedgerHead::GiveAndUnlock(os::RobustThread& thread,
                                            PermitSlot& slot, uint32_t held,
                                            uint32_t n) {
  slot.count.store(held - n, std::memory_order_release);
  const uint32_t free = free_.load(std::memory_order_relaxed) + n;
  free_.store(free, std::memory_order_relaxed);
  uint32_t room = 0;
  if (held == n) {
    room = room_.load(std::memory_order_relaxed);
    if ((room & kSleepers) != 0) [[unlikely]] {
      room_.store((room + 1) | kSleepers, std::memory_order_relaxed);
    }
  }
  lock_.UnlockStayPending(thread);
  thread.Unpend();
  if (((free | room) & kSleepers) != 0) [[unlikely]] {
    Wake(free, room, n);
  }
}

inline bool PermitLedgerHead::Acquire(Slots slots, Deadline deadline) {
  const uint64_t me = os::ProcessIdentity::Self().bits();
  os::RobustThread& thread = os::RobustThread::Self();
  const Acquired how = lock_.TryLock();
  if (how != Acquired::kTimedOut) [[likely]] {
    if (how == Acquired::kOwnerDied) [[unlikely]] {
      Rebuild(slots);
    }
    PermitSlot& home = slots.at[Home(slots, me)];
    const uint32_t free = free_.load(std::memory_order_relaxed);
    if (home.who.load(std::memory_order_relaxed) == me && (free & kCount) != 0)
        [[likely]] {
      TakeAndUnlock(thread, home, free);
      return true;
    }
    lock_.Unlock();
  }
  return Await(slots, me, deadline);
}

inline uint32_t PermitLedgerHead::Release(Slots slots, uint32_t n) {
  const uint64_t me = os::ProcessIdentity::Self().bits();
  os::RobustThread& thread = os::RobustThread::Self();
  if (lock_.Lock() == Acquired::kOwnerDied) [[unlikely]] {
    Rebuild(slots);
  }
  PermitSlot& home = slots.at[Home(slots, me)];
  const uint32_t held = home.count.load(std::memory_order_relaxed);
  if (home.who.load(std::memory_order_relaxed) != me || held < n) [[unlikely]] {
    return ReleaseElsewhere(slots, me, n);
  }
  GiveAndUnlock(thread, home, held, n);
  return held;
}

}  // namespace cohort::sync_internal

#endif  // COHORT_SYNC_INTERNAL_PERMIT_LEDGER_H_
