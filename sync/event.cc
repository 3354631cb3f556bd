// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/event.h"

#include <climits>

#include "cohort/os/futex.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort {

bool Event::wait_until(Deadline deadline) {
  static_assert(kMark == sync_internal::kSleepers);
  constexpr uint32_t kClears = ~(kMark | kSet);
  const uint32_t begin = word_.load(std::memory_order_acquire);
  if ((begin & kSet) != 0) return true;
  return sync_internal::AwaitWord(word_, deadline, [&](uint32_t state) {
    return (state & kSet) != 0 || ((state ^ begin) & kClears) != 0;
  });
}

void Event::WakeAll() {
  os::FutexWake(word_, INT_MAX);
  // The mark has stayed until here: had this setter been killed before it woke
  // anybody, the next would have done so. While the word is as it was, set,
  // nobody has gone to sleep since.
  uint32_t seen = word_.load(std::memory_order_relaxed);
  if ((seen & kSet) != 0) {
    word_.compare_exchange_strong(seen, seen & ~kMark,
                                  std::memory_order_relaxed);
  }
}

}  // namespace cohort
