// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/barrier.h"

#include <bit>
#include <climits>
#include <optional>

#include "absl/status/status.h"
#include "cohort/os/cpu.h"
#include "cohort/os/futex.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort::sync_internal {
namespace {

// The state. Changed by compare-exchange of the whole.
//
//   bits 0-30   round: goes up by one when a round ends, however it ends.
//   bit  31     kSleepers: somebody may sleep on the lower half. Set by waiters;
//               removed by whoever ends the round and then wakes all.
//   bits 32-41  arrived: how many are in the round, the last included while it
//               runs the action.
//   bits 42-44  why the last broken round broke.
//   bit  45     kBroken: nobody can arrive. Removed by reset().
//   bits 46-63  calm: so many rounds before this one went through, one after the
//               other; the one before those broke, or is too long ago.
//
// So an arrival, which is the most frequent, does not disturb the word that the
// others sleep on. The lower half lies first:
static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kRound = 0x7fffffff;
constexpr uint64_t kArrivedOne = uint64_t{1} << 32;
constexpr uint64_t kArrived = uint64_t{0x3ff} << 32;
constexpr int kWhyShift = 42;
constexpr uint64_t kWhy = uint64_t{7} << kWhyShift;
constexpr uint64_t kBroken = uint64_t{1} << 45;
constexpr uint64_t kCalmOne = uint64_t{1} << 46;
constexpr uint64_t kCalm = ~uint64_t{0} << 46;

// A slot: who is inside, and the kernel's mark if it died there.
//
//   bits 0-31   as a lock word (sync/internal/lock_word.h): thread id, or the
//               owner-died mark, set by the kernel; 0 is a free slot.
//   bits 32-59  the round that the thread is in, or wants to be in.
//   bits 60-63  what became of that round, where the state is about to forget
//               it: 0 is to be seen there. Set by whoever makes it forget.
constexpr uint64_t kOwnerDied = 0x40000000;
constexpr uint64_t kHolder = 0x3fffffff;
constexpr int kSlotRoundShift = 32;
constexpr uint32_t kSlotRound = 0x0fffffff;
constexpr int kEndShift = 60;

enum End : uint64_t {
  kOpen = 0,  // Not over; or look into the state.
  // Why a round broke.
  kAborted = 1,
  kDied = 2,
  kTimedOut = 3,
  kReset = 4,
  kActionThrew = 5,
  // It did not.
  kThrough = 8,
};

using State = std::atomic<uint64_t>;
using Slot = std::atomic<uint64_t>;

uint32_t RoundOf(uint64_t state) { return state & kSlotRound; }
uint32_t ArrivedOf(uint64_t state) {
  return static_cast<uint32_t>((state & kArrived) / kArrivedOne);
}
uint64_t CalmOf(uint64_t state) { return state / kCalmOne; }
End WhyOf(uint64_t state) { return End((state & kWhy) >> kWhyShift); }

uint64_t SlotOf(uint64_t tid, uint32_t round) {
  return tid | uint64_t{round} << kSlotRoundShift;
}
uint32_t RoundOfSlot(uint64_t slot) {
  return static_cast<uint32_t>(slot >> kSlotRoundShift) & kSlotRound;
}
End EndOfSlot(uint64_t slot) { return End(slot >> kEndShift); }

std::atomic<uint32_t>& LowerHalf(std::atomic<uint64_t>& word) {
  return reinterpret_cast<std::atomic<uint32_t>&>(word);
}

// The state after this round: through, or broken.
uint64_t After(uint64_t state, End end) {
  uint64_t next = (state + 1) & kRound;
  if (end == kThrough) {
    next |= state & (kWhy | kCalm);
    next += kCalmOne;
  } else {
    next |= uint64_t{end} << kWhyShift;
    if (end != kReset) next |= kBroken;
  }
  return next;
}

// What became of `round`, as the state tells; kOpen if it does not.
End EndOf(uint64_t state, uint32_t round) {
  const uint32_t ago = (RoundOf(state) - round) & kSlotRound;
  if (ago == 0) return kOpen;
  if (ago <= CalmOf(state)) return kThrough;
  return ago == CalmOf(state) + 1 ? WhyOf(state) : kOpen;
}

// Whether any slot has a dead thread's mark, of whatever round.
bool AnyDead(const BarrierParts& parts) {
  uint64_t all = parts.runner.word.load(std::memory_order_relaxed);
  for (const Slot& slot : parts.slots) {
    all |= slot.load(std::memory_order_relaxed);
  }
  return (all & kOwnerDied) != 0;
}

// Before the state forgets: tells each thread that is late the end of its own
// round, and frees the slots of those that died in a round before this one.
// Returns true iff somebody has died in this one.
bool Settle(const BarrierParts& parts, uint64_t state) {
  bool dead = false;
  auto settle = [&](Slot& slot) {
    uint64_t seen = slot.load(std::memory_order_acquire);
    for (;;) {
      if ((seen & (kHolder | kOwnerDied)) == 0) return;
      const bool died = (seen & kOwnerDied) != 0;
      const uint32_t round = RoundOfSlot(seen);
      const uint32_t ago = (RoundOf(state) - round) & kSlotRound;
      if (ago == 0) {
        dead = dead || died;
        return;
      }
      // A round that is yet to come, for a state that is old: somebody else
      // ended the round, and the caller will see that.
      if (ago > kSlotRound / 2) return;
      uint64_t next = 0;
      if (!died) {
        const End end = EndOf(state, round);
        // Told already, or not in any round.
        if (EndOfSlot(seen) != kOpen || end == kOpen) return;
        next = seen | uint64_t{end} << kEndShift;
      }
      if (slot.compare_exchange_weak(seen, next, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
        return;
      }
    }
  };
  for (Slot& slot : parts.slots) settle(slot);
  settle(parts.runner.word);
  return dead;
}

void WakeSleepers(State& state, uint64_t was) {
  if ((was & kSleepers) != 0) os::FutexWake(LowerHalf(state), INT_MAX);
}

// Tries to end the round that `state` is in, and wakes its sleepers. `state`
// becomes what it is then, also if somebody else has changed it first.
bool EndRound(const BarrierParts& parts, uint64_t& state, End end) {
  const uint64_t was = state;
  uint64_t next = After(state, end);
  if (end != kThrough) {
    (void)Settle(parts, state);
  } else if ((state & kCalm) == kCalm) [[unlikely]] {
    // Nobody needs the older ones any more.
    (void)Settle(parts, state);
    next = (next & ~kCalm) + kCalmOne;
  }
  if (!parts.state.compare_exchange_strong(
          state, next, std::memory_order_acq_rel, std::memory_order_acquire)) {
    return false;
  }
  state = next;
  WakeSleepers(parts.state, was);
  return true;
}

// If somebody has died in the round of `state`, tries to break it.
bool BreakForTheDead(const BarrierParts& parts, uint64_t& state) {
  if (!AnyDead(parts)) return false;
  if (!Settle(parts, state)) return false;
  (void)EndRound(parts, state, kDied);
  return true;
}

absl::Status Broken(End why) {
  switch (why) {
    case kAborted:
      return absl::AbortedError(
          "barrier: broken by abort(); reset() makes it whole");
    case kDied:
      return absl::AbortedError(
          "barrier: a party died inside; replace it, then reset()");
    case kTimedOut:
      return absl::AbortedError(
          "barrier: broken by the time-out of another party; reset() makes it "
          "whole");
    case kReset:
      return absl::AbortedError("barrier: reset during the wait; arrive again");
    case kActionThrew:
      return absl::AbortedError(
          "barrier: the action of another party threw; reset() makes it whole");
    default:
      os::Fatal(
          "Barrier: its state was overwritten; it was constructed again while "
          "in use, or the memory is used for something else");
  }
}

absl::Status TimeOver() {
  return absl::DeadlineExceededError(
      "barrier: not all parties have arrived in time; it is broken now, "
      "reset() makes it whole");
}

// Sleeps for at most a slice, until the round of `state` is over.
void Sleep(const BarrierParts& parts, uint64_t& state, os::Slices& slices) {
  if ((state & kSleepers) == 0 &&
      !parts.state.compare_exchange_strong(state, state | kSleepers,
                                           std::memory_order_acq_rel,
                                           std::memory_order_acquire)) {
    return;
  }
  os::RobustThread::Self().RefreshCpus();
  os::FutexWait(LowerHalf(parts.state),
                static_cast<uint32_t>(state | kSleepers), slices.Next());
  state = parts.state.load(std::memory_order_acquire);
}

// Waits for the end of `round`, in which the caller has arrived with `slot`.
absl::Status AwaitEnd(const BarrierParts& parts, const Slot& slot,
                      uint32_t round, Deadline deadline) {
  uint64_t state = parts.state.load(std::memory_order_acquire);
  std::optional<os::Slices> slices;
  for (;;) {
    for (int looks = LooksBeforeSleep(deadline);
         looks > 0 && RoundOf(state) == round; --looks) {
      BetweenLooks();
      state = parts.state.load(std::memory_order_acquire);
    }
    // First what was said to this thread alone: then the state may have
    // forgotten, and the round have come round again.
    End end = EndOfSlot(slot.load(std::memory_order_acquire));
    if (end == kOpen && RoundOf(state) != round) {
      end = EndOf(state, round);
      if (end == kOpen) return Broken(kOpen);
    }
    if (end == kThrough) return absl::OkStatus();
    if (end != kOpen) return Broken(end);
    if (BreakForTheDead(parts, state)) continue;
    if (deadline.Passed()) {
      if (EndRound(parts, state, kTimedOut)) return TimeOver();
      continue;
    }
    if (!slices) slices.emplace(deadline);
    Sleep(parts, state, *slices);
  }
}

// Takes a free slot for `round`, near the one that a thread arriving as the
// `hint`-th would take. It stays pending. Returns null if there is none.
Slot* Claim(const BarrierParts& parts, os::RobustThread& thread, uint32_t round,
            uint32_t hint) {
  const auto count = static_cast<uint32_t>(parts.slots.size());
  for (uint32_t i = 0; i < count; ++i) {
    Slot& slot = parts.slots[(hint + i) % count];
    if (slot.load(std::memory_order_relaxed) != 0) continue;
    thread.Pend(LowerHalf(slot));
    uint64_t free = 0;
    if (slot.compare_exchange_strong(free, SlotOf(thread.tid(), round),
                                     std::memory_order_acq_rel,
                                     std::memory_order_relaxed)) {
      return &slot;
    }
  }
  thread.Unpend();
  return nullptr;
}

void Free(Slot*& slot, os::RobustThread& thread) {
  if (slot == nullptr) return;
  slot->store(0, std::memory_order_release);
  slot = nullptr;
  thread.Unpend();
}

}  // namespace

absl::StatusOr<int> BarrierArrive(const BarrierParts& parts, Deadline deadline,
                                  BarrierTurn* turn) {
  os::RobustThread& thread = os::RobustThread::Self();
  Slot* slot = nullptr;
  std::optional<int> looks;
  std::optional<os::Slices> slices;
  // All that follows is written to: the line is fetched once, not twice.
  os::PrefetchForWrite(&parts.state);
  uint64_t state = parts.state.load(std::memory_order_acquire);
  for (;;) {
    if ((state & kBroken) != 0) {
      Free(slot, thread);
      return Broken(WhyOf(state));
    }
    const uint32_t arrived = ArrivedOf(state);
    const uint32_t round = RoundOf(state);
    if (arrived + 1 < parts.parties) {
      if (slot == nullptr) {
        slot = Claim(parts, thread, round, arrived);
      } else if (RoundOfSlot(slot->load(std::memory_order_relaxed)) != round) {
        slot->store(SlotOf(thread.tid(), round), std::memory_order_release);
      }
      if (slot != nullptr) {
        if (!parts.state.compare_exchange_strong(state, state + kArrivedOne,
                                                 std::memory_order_acq_rel,
                                                 std::memory_order_acquire)) {
          continue;
        }
        const absl::Status end = AwaitEnd(parts, *slot, round, deadline);
        Free(slot, thread);
        if (!end.ok()) return end;
        return static_cast<int>(arrived);
      }
    } else {
      // The last one needs no slot: its arrival ends the round, or it has that
      // of the runner.
      Free(slot, thread);
      if (BreakForTheDead(parts, state)) continue;
      if (arrived + 1 == parts.parties) {
        if (turn == nullptr) {
          if (EndRound(parts, state, kThrough)) {
            return static_cast<int>(arrived);
          }
          continue;
        }
        if (turn->Take(round)) {
          if (parts.state.compare_exchange_strong(state, state + kArrivedOne,
                                                  std::memory_order_acq_rel,
                                                  std::memory_order_acquire)) {
            turn->Begin();
            return static_cast<int>(arrived);
          }
          turn->Drop();
          continue;
        }
      } else if ((parts.runner.word.load(std::memory_order_relaxed) &
                  kHolder) == thread.tid()) {
        os::Fatal("Barrier: its action arrives at the barrier itself");
      }
    }
    // One too many: all have arrived, and their action runs; or the action of a
    // broken round still does; or those who are through have not left yet.
    if (!looks) looks = LooksBeforeSleep(deadline);
    if (--*looks > 0) {
      BetweenLooks();
      state = parts.state.load(std::memory_order_acquire);
      continue;
    }
    if (BreakForTheDead(parts, state)) continue;
    if (deadline.Passed()) {
      if (arrived == parts.parties) {
        return absl::DeadlineExceededError(
            "barrier: the round before was not over in time");
      }
      if (EndRound(parts, state, kTimedOut)) return TimeOver();
      continue;
    }
    if (!slices) slices.emplace(deadline);
    Sleep(parts, state, *slices);
  }
}

bool BarrierTurn::Take(uint32_t round) {
  os::RobustThread& thread = os::RobustThread::Self();
  thread.Pend(LowerHalf(parts_.runner.word));
  uint64_t free = 0;
  const bool taken = parts_.runner.word.compare_exchange_strong(
      free, SlotOf(thread.tid(), round), std::memory_order_acq_rel,
      std::memory_order_relaxed);
  if (taken) thread.Push(parts_.runner.node);
  thread.Unpend();
  round_ = round;
  return taken;
}

void BarrierTurn::Drop() {
  os::RobustThread& thread = os::RobustThread::Self();
  thread.Pend(LowerHalf(parts_.runner.word));
  if (!thread.Unlink(parts_.runner.node)) {
    os::Fatal("Barrier: its memory was overwritten while its action ran");
  }
  parts_.runner.word.store(0, std::memory_order_release);
  thread.Unpend();
}

absl::StatusOr<int> BarrierTurn::Finish() {
  mine_ = false;
  uint64_t state = parts_.state.load(std::memory_order_acquire);
  while (EndOfSlot(parts_.runner.word.load(std::memory_order_acquire)) ==
             kOpen &&
         RoundOf(state) == round_) {
    if (EndRound(parts_, state, kThrough)) {
      Drop();
      return static_cast<int>(parts_.parties) - 1;
    }
  }
  End why = EndOfSlot(parts_.runner.word.load(std::memory_order_acquire));
  if (why == kOpen) why = EndOf(state, round_);
  Drop();
  return Broken(why);
}

BarrierTurn::~BarrierTurn() {
  if (!mine_) return;
  uint64_t state = parts_.state.load(std::memory_order_acquire);
  while (EndOfSlot(parts_.runner.word.load(std::memory_order_acquire)) ==
             kOpen &&
         RoundOf(state) == round_) {
    if (EndRound(parts_, state, kActionThrew)) break;
  }
  Drop();
}

void BarrierAbort(const BarrierParts& parts) {
  uint64_t state = parts.state.load(std::memory_order_acquire);
  while ((state & kBroken) == 0) {
    if (EndRound(parts, state, kAborted)) return;
  }
}

void BarrierReset(const BarrierParts& parts) {
  uint64_t state = parts.state.load(std::memory_order_acquire);
  for (;;) {
    if ((state & kBroken) != 0) {
      if (parts.state.compare_exchange_weak(state, state & ~kBroken,
                                            std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
        return;
      }
    } else if ((state & kArrived) == 0 || EndRound(parts, state, kReset)) {
      return;
    }
  }
}

bool BarrierBroken(uint64_t state) { return (state & kBroken) != 0; }
int BarrierWaiting(uint64_t state) {
  return static_cast<int>(ArrivedOf(state));
}

}  // namespace cohort::sync_internal
