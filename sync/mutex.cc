// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/mutex.h"

#include <cstddef>

#include "cohort/os/check.h"
#include "cohort/sync/internal/lock_word.h"

namespace cohort {

using sync_internal::Acquired;
using sync_internal::kHolder;

bool Mutex::TryLockSlow() {
  const uint32_t seen = word_.word.load(std::memory_order_relaxed);
  if ((seen & kHolder) != 0) return false;
  os::RobustThread& thread = os::RobustThread::Self();
  thread.Pend(word_.word);
  return LockSlow(thread, Deadline::Now());
}

bool Mutex::try_lock_until(Deadline deadline) {
  os::RobustThread& thread = os::RobustThread::Self();
  thread.list().CheckIdle();
  thread.Pend(word_.word);
  return LockSlow(thread, deadline);
}

bool Mutex::LockSlow(os::RobustThread& thread, Deadline deadline) {
  static_assert(offsetof(Mutex, node_) + offsetof(os::RobustNode, next) -
                    offsetof(Mutex, word_) ==
                os::kRobustDistance);
  if (sync_internal::HolderOf(word_.word) == thread.tid()) {
    os::Fatal(
        thread.Holds(node_)
            ? "Mutex: locked again by its holder"
            : "Mutex: its holder has the id of this thread but is another "
              "one; processes of two PID namespaces share it");
  }
  switch (sync_internal::LockWordSlow(word_, thread, deadline)) {
    case Acquired::kTimedOut:
      thread.Unpend();
      return false;
    case Acquired::kOwnerDied:
      // The owner-died mark is gone from the word by now. A death between that
      // and this store brings it back: the word holds our id.
      poisoned_ = 1;
      break;
    case Acquired::kClean:
      break;
  }
  thread.Push(node_);
  thread.Unpend();
  return true;
}

void Mutex::UnlockSlow(os::RobustThread& thread) {
  // Asked before anything is changed: another may hold it by now.
  if (sync_internal::HolderOf(word_.word) != thread.tid()) {
    os::Fatal(
        "Mutex: its word was overwritten while this thread held it; it was "
        "constructed again, or the memory is used for something else");
  }
  // One subtraction, and it is free. The mark that somebody waits stays.
  const uint32_t was = word_.word.fetch_sub(thread.tid());
  const uint32_t watch = word_.watch.load();
  if ((was & sync_internal::kWaiters) != 0 ||
      (watch & sync_internal::kWatch) != sync_internal::kShut) {
    sync_internal::WakeNext(word_);
  }
  thread.Unpend();
}

void Mutex::NotTheHolder() {
  os::Fatal("Mutex: unlocked by another than its holder");
}

}  // namespace cohort
