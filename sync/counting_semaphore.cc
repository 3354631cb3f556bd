// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/counting_semaphore.h"

#include "cohort/os/check.h"
#include "cohort/os/futex.h"

namespace cohort {

using sync_internal::kSleepers;

bool CountingSemaphore::Await(Deadline deadline) {
  // Whoever has slept may have been given a wake-up that was the only one, so
  // the permit that it takes, or leaves with its time over, says kSleepers:
  // other sleepers must not depend on its luck.
  uint32_t keep = 0;
  os::Slices slices(deadline);
  for (;;) {
    uint32_t seen = word_.load(std::memory_order_relaxed);
    for (int looks = sync_internal::LooksBeforeSleep(deadline);; --looks) {
      while ((seen & kCount) != 0) {
        if (word_.compare_exchange_weak(seen, (seen - 1) | keep,
                                        std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
          return true;
        }
      }
      if (looks <= 0) break;
      sync_internal::BetweenLooks();
      seen = word_.load(std::memory_order_relaxed);
    }
    if (deadline.Passed()) {
      if ((seen & keep) == keep) return false;
      if (word_.compare_exchange_strong(seen, seen | keep,
                                        std::memory_order_relaxed)) {
        return false;
      }
      continue;
    }
    sync_internal::SleepOn(word_, seen, slices);
    keep = kSleepers;
  }
}

void CountingSemaphore::ReleaseMany(ptrdiff_t n) {
  if (n < 0) os::Fatal("CountingSemaphore: less than 0 permits released");
  if (n == 0) return;
  uint32_t seen = word_.load(std::memory_order_relaxed);
  do {
    if (n > max() - static_cast<ptrdiff_t>(seen & kCount)) {
      os::Fatal("CountingSemaphore: released to more than max() permits");
    }
  } while (!word_.compare_exchange_weak(seen, seen + static_cast<uint32_t>(n),
                                        std::memory_order_release,
                                        std::memory_order_relaxed));
  if ((seen & kSleepers) != 0) {
    sync_internal::WakeSome(word_, static_cast<int>(n));
  }
}

void CountingSemaphore::BadCount() {
  os::Fatal("CountingSemaphore: permits not between 0 and max()");
}

void CountingSemaphore::TooMany() {
  word_.fetch_sub(1, std::memory_order_relaxed);
  os::Fatal("CountingSemaphore: released to more than max() permits");
}

}  // namespace cohort
