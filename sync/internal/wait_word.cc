// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/internal/wait_word.h"

#include <climits>

#include "cohort/os/robust.h"

namespace cohort::sync_internal {
namespace {

constexpr int kLooks = 250;

}  // namespace

int LooksBeforeSleep(Deadline deadline) {
  if (!os::RobustThread::Self().may_spin()) return 0;
  return deadline > Deadline::Now() ? kLooks : 0;
}

void SleepOn(std::atomic<uint32_t>& word, uint32_t seen, os::Slices& slices) {
  if ((seen & kSleepers) == 0 &&
      !word.compare_exchange_strong(seen, seen | kSleepers,
                                    std::memory_order_relaxed)) {
    return;
  }
  os::RobustThread::Self().RefreshCpus();
  os::FutexWait(word, seen | kSleepers, slices.Next());
}

void WakeSome(std::atomic<uint32_t>& word, int count) {
  // kSleepers has stayed: those that are woken may be killed before they act,
  // and then the next changer has to wake the others.
  if (os::FutexWake(word, count) >= count) return;
  uint32_t seen = word.load(std::memory_order_relaxed);
  if ((seen & kSleepers) != 0 &&
      word.compare_exchange_strong(seen, seen & ~kSleepers,
                                   std::memory_order_relaxed)) {
    // Others may have changed the state to and fro since that wake-up, and left
    // sleepers to the mark just removed. One of them could meet a state that
    // lets two go on, so all are woken.
    os::FutexWake(word, INT_MAX);
  }
}

}  // namespace cohort::sync_internal
