// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/internal/wait_word.h"

#include "cohort/os/robust.h"

namespace cohort::sync_internal {
namespace {

constexpr int kLooks = 500;

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

}  // namespace cohort::sync_internal
