// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/latch.h"

#include <climits>

#include "cohort/os/futex.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort {

using sync_internal::kSleepers;

void Latch::count_down(std::ptrdiff_t n) {
  static_assert(kCount == ~kSleepers);
  os::Check(n >= 0, "Latch: counted down by a negative number");
  uint32_t seen = word_.load(std::memory_order_relaxed);
  for (;;) {
    const uint32_t left = seen & kCount;
    // Not subtracted first and checked then: the others keep a latch that is
    // whole.
    os::Check(n <= static_cast<std::ptrdiff_t>(left),
              "Latch: counted down by more than was left");
    const uint32_t next = left - static_cast<uint32_t>(n);
    // kSleepers stays until the last one, who wakes them all.
    if (word_.compare_exchange_weak(
            seen, next == 0 ? 0 : next | (seen & kSleepers),
            std::memory_order_release, std::memory_order_relaxed)) {
      if (next == 0 && (seen & kSleepers) != 0) os::FutexWake(word_, INT_MAX);
      return;
    }
  }
}

bool Latch::WaitSlow(Deadline deadline) {
  return sync_internal::AwaitWord(word_, deadline,
                                  [](uint32_t left) { return left == 0; });
}

}  // namespace cohort
