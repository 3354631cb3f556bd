// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/shared_mutex.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cohort/os/check.h"
#include "cohort/os/membarrier.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort::sync_internal {
namespace {

static_assert(offsetof(SharedMutexSlot, node) +
                  offsetof(os::RobustNode, next) ==
              os::kRobustDistance);
static_assert(offsetof(SharedMutexGate, node) +
                  offsetof(os::RobustNode, next) ==
              os::kRobustDistance);
static_assert(kSleepers == kWaiters);

// Who waits for any slot sleeps on one, and looks at the others so often.
constexpr std::chrono::milliseconds kLookAround{20};

struct Parts {
  SharedMutexSlot& porch;
  SharedMutexGate& gate;
  std::span<SharedMutexSlot> slots;
};

// Frees a word that the caller holds and has pending.
void Free(std::atomic<uint32_t>& word, const os::RobustThread& thread) {
  if (word.fetch_sub(thread.tid(), std::memory_order_release) != thread.tid()) {
    WakeNext(word);
  }
}

void UnlockGate(SharedMutexGate& gate, os::RobustThread& thread) {
  thread.Pend(gate.word);
  (void)thread.Unlink(gate.node);
  Free(gate.word, thread);
  thread.Unpend();
}

bool Reads(const Parts& parts, uint32_t tid) {
  for (const SharedMutexSlot& slot : parts.slots) {
    if (HolderOf(slot.word) == tid) return true;
  }
  return false;
}

// Who waits for readers, or behind one who does, must not be one of them.
void CheckDoesNotRead(const Parts& parts, uint32_t tid) {
  if (Reads(parts, tid)) {
    os::Fatal("SharedMutex: lock() by a thread that reads it");
  }
}

// Takes the gate and links it. Both who comes first and who waited longest are
// at the gate; all others stay in the porch, so the latter has one rival at a
// time.
bool LockGate(const Parts& parts, os::RobustThread& thread, Deadline deadline) {
  SharedMutexGate& gate = parts.gate;
  SharedMutexSlot& porch = parts.porch;
  thread.Pend(gate.word);
  uint32_t free = 0;
  bool taken = porch.word.load(std::memory_order_relaxed) == 0 &&
               gate.word.compare_exchange_strong(free, thread.tid(),
                                                 std::memory_order_acquire,
                                                 std::memory_order_relaxed);
  if (taken) {
    thread.Push(gate.node);
    thread.Unpend();
  } else {
    CheckDoesNotRead(parts, thread.tid());
    thread.Pend(porch.word);
    if (LockWordSlow(porch.word, thread, deadline) == Acquired::kTimedOut) {
      thread.Unpend();
      return false;
    }
    thread.Push(porch.node);
    thread.Pend(gate.word);
    taken = LockWordSlow(gate.word, thread, deadline) != Acquired::kTimedOut;
    if (taken) thread.Push(gate.node);
    thread.Pend(porch.word);
    (void)thread.Unlink(porch.node);
    Free(porch.word, thread);
    thread.Unpend();
    if (!taken) return false;
  }
  // Whoever frees the gate opens it first: found closed, its holder has died.
  const uint32_t state = gate.state.load(std::memory_order_relaxed);
  if (state == kDraining || state == kWriting) {
    // A death between these two finds the same state again.
    if (state == kWriting) gate.poisoned = 1;
    gate.state.store(kReading, std::memory_order_release);
  }
  return true;
}

// Takes any slot and leaves it pending; null if none is free.
SharedMutexSlot* TakeSlot(const Parts& parts, os::RobustThread& thread) {
  const size_t count = parts.slots.size();
  const size_t home = HomeOf(thread.tid(), count);
  for (size_t i = 0; i < count; ++i) {
    SharedMutexSlot& slot = parts.slots[(home + i) % count];
    uint32_t seen = slot.word.load(std::memory_order_relaxed);
    while ((seen & kHolder) == 0) {
      thread.Pend(slot.word);
      // The mark of a reader that died goes; that somebody waits stays.
      if (slot.word.compare_exchange_weak(
              seen, thread.tid() | (seen & kWaiters), std::memory_order_seq_cst,
              std::memory_order_relaxed)) {
        return &slot;
      }
    }
  }
  thread.Unpend();
  return nullptr;
}

// Takes a slot while holding the gate.
SharedMutexSlot* AwaitSlot(const Parts& parts, os::RobustThread& thread,
                           Deadline deadline) {
  for (;;) {
    SharedMutexSlot* slot = TakeSlot(parts, thread);
    if (slot != nullptr) return slot;
    // Newcomers shall not take the one that becomes free.
    parts.gate.state.store(kDraining, std::memory_order_seq_cst);
    os::BarrierForAll();
    slot = &parts.slots[HomeOf(thread.tid(), parts.slots.size())];
    thread.Pend(slot->word);
    if (LockWordSlow(slot->word, thread,
                     deadline.Earlier(Deadline::After(kLookAround))) !=
        Acquired::kTimedOut) {
      return slot;
    }
    thread.Unpend();
    if (deadline.Passed()) return nullptr;
  }
}

// Waits until every reader has left. Called with the gate held and closed, so
// none enters: one that marks a slot now gives it back. A reader frees its slot
// by a plain store and then looks at the gate, which can wipe out the mark of
// who sleeps there. The barrier is why it then sees the gate closed and wakes.
bool Drain(const Parts& parts, uint32_t tid, Deadline deadline) {
  bool barrier = false;
  for (SharedMutexSlot& slot : parts.slots) {
    const uint32_t holder = slot.word.load(std::memory_order_seq_cst) & kHolder;
    if (holder == 0) continue;
    if (!barrier) {
      CheckDoesNotRead(parts, tid);
      os::BarrierForAll();
      barrier = true;
    }
    if (!AwaitWord(slot.word, deadline,
                   [](uint32_t word) { return (word & kHolder) == 0; })) {
      return false;
    }
  }
  return true;
}

// Enters with a slot that this thread has taken and still has pending, or gives
// it back and returns false.
bool EnterOrLeave(SharedMutexGate& gate, SharedMutexSlot& slot,
                  os::RobustThread& thread) {
  uint32_t state = gate.state.load(std::memory_order_seq_cst);
  if (state == kReading ||
      (state == kNoReaders &&
       (gate.state.compare_exchange_strong(state, kReading) ||
        state == kReading))) {
    thread.Push(slot.node);
    thread.Unpend();
    return true;
  }
  // Marked or not: the reader before may have wiped out the mark of who sleeps
  // here, and died before it woke it, when the slot was no longer free.
  slot.word.fetch_sub(thread.tid(), std::memory_order_release);
  WakeNext(slot.word);
  thread.Unpend();
  return false;
}

}  // namespace

bool LockSharedSlow(SharedMutexSlot& porch, SharedMutexGate& gate,
                    std::span<SharedMutexSlot> slots, bool taken,
                    Deadline deadline) {
  os::RobustThread& thread = os::RobustThread::Self();
  const Parts parts{porch, gate, slots};
  if (taken &&
      EnterOrLeave(gate, slots[HomeOf(thread.tid(), slots.size())], thread)) {
    return true;
  }
  thread.Unpend();
  if (HolderOf(gate.word) == thread.tid() || Reads(parts, thread.tid())) {
    if (deadline == Deadline::Now()) return false;
    os::Fatal(HolderOf(gate.word) == thread.tid()
                  ? "SharedMutex: lock_shared() by its writer"
                  : "SharedMutex: lock_shared() by a thread that reads it");
  }
  const uint32_t state = gate.state.load(std::memory_order_relaxed);
  if (state == kReading || state == kNoReaders) {
    SharedMutexSlot* const slot = TakeSlot(parts, thread);
    if (slot != nullptr && EnterOrLeave(gate, *slot, thread)) return true;
  }
  // A writer is there, or no slot is free: through the gate, behind whoever
  // waits there.
  if (!LockGate(parts, thread, deadline)) return false;
  SharedMutexSlot* const slot = AwaitSlot(parts, thread, deadline);
  if (slot != nullptr) {
    thread.Push(slot->node);
    thread.Unpend();
  }
  if (gate.state.load(std::memory_order_relaxed) != kReading) {
    gate.state.store(kReading, std::memory_order_release);
  }
  UnlockGate(gate, thread);
  return slot != nullptr;
}

void UnlockSharedSlow(std::span<SharedMutexSlot> slots) {
  os::RobustThread& thread = os::RobustThread::Self();
  for (SharedMutexSlot& slot : slots) {
    if (HolderOf(slot.word) != thread.tid()) continue;
    thread.Pend(slot.word);
    if (!thread.Unlink(slot.node)) continue;
    Free(slot.word, thread);
    thread.Unpend();
    return;
  }
  os::Fatal("SharedMutex: unlock_shared() by a thread that does not read it");
}

void LeaveSlot(SharedMutexSlot& slot) {
  os::RobustThread& thread = os::RobustThread::Self();
  if (HolderOf(slot.word) != thread.tid()) {
    os::Fatal(
        "SharedMutex: its bytes were overwritten while this thread read; it "
        "was constructed again, or the memory is used for something else");
  }
  Free(slot.word, thread);
  thread.Unpend();
}

void WakeAfterRead(SharedMutexSlot& slot) { WakeNext(slot.word); }

bool LockExclusive(SharedMutexSlot& porch, SharedMutexGate& gate,
                   std::span<SharedMutexSlot> slots, Deadline deadline) {
  os::RobustThread& thread = os::RobustThread::Self();
  const Parts parts{porch, gate, slots};
  if (HolderOf(gate.word) == thread.tid()) {
    os::Fatal("SharedMutex: locked again by its writer");
  }
  if (!LockGate(parts, thread, deadline)) return false;
  if (gate.state.exchange(kDraining, std::memory_order_seq_cst) == kReading &&
      !Drain(parts, thread.tid(), deadline)) {
    gate.state.store(kReading, std::memory_order_release);
    UnlockGate(gate, thread);
    return false;
  }
  gate.state.store(kWriting, std::memory_order_seq_cst);
  return true;
}

bool TryLockExclusive(SharedMutexSlot& porch, SharedMutexGate& gate,
                      std::span<SharedMutexSlot> slots) {
  // Readers shall not be held up by attempts that come to nothing.
  if (HolderOf(gate.word) != 0) return false;
  // Found closed, its holder has just given up, or died: readers may be there.
  if (gate.state.load(std::memory_order_relaxed) != kNoReaders) {
    for (const SharedMutexSlot& slot : slots) {
      if (HolderOf(slot.word) != 0) return false;
    }
  }
  return LockExclusive(porch, gate, slots, Deadline::Now());
}

void UnlockExclusive(SharedMutexGate& gate) {
  os::RobustThread& thread = os::RobustThread::Self();
  thread.Pend(gate.word);
  if (!thread.Unlink(gate.node)) {
    os::Fatal("SharedMutex: unlocked by another than its writer");
  }
  gate.state.store(kNoReaders, std::memory_order_release);
  Free(gate.word, thread);
  thread.Unpend();
}

}  // namespace cohort::sync_internal
