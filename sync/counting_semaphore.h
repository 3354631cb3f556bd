// SPDX-License-Identifier: Apache-2.0
//
// `cohort::CountingSemaphore` is std::counting_semaphore for memory that
// several processes map: a number of permits, which anybody may add and
// anybody may take. Its permits belong to nobody. What a process has taken
// stays taken when it dies, and what it has released stays released: that is
// what a signal from process to process needs.
//
//   struct Inbox {
//     cohort::CountingSemaphore filled;   // Zero permits.
//     ...
//   };
//
//   inbox->filled.release();              // In one process: there is one more.
//
//   if (inbox->filled.try_acquire_for(absl::Seconds(1))) {   // In another.
//     TakeOne(*inbox);
//   }
//
// For permits that a process has to give back, such as seats, connections or a
// share of the processors, take sync/semaphore.h: there a death gives them
// back. Threads of a single process should prefer std::counting_semaphore.

#ifndef COHORT_SYNC_COUNTING_SEMAPHORE_H_
#define COHORT_SYNC_COUNTING_SEMAPHORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cohort/os/deadline.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort {

// CountingSemaphore
//
// |           | acquire()       | release(n)        | a process dies          |
// |-----------+-----------------+-------------------+-------------------------|
// | 0 permits | blocks          | n permits         | as it was: before or    |
// | k permits | k - 1 permits   | k + n permits;    | after an acquire() or a |
// |           |                 | over max(): fatal | release(), not between  |
//
// "Fatal" is one line on stderr, then abort(): a bug that no result can mend.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 8 bytes, aligned to 4; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time.
//   Process-safety: likewise, among all processes that map the same bytes,
//                   also of several PID namespaces.
//   Fork-safety:    every member, in parent and child.
//   Crash-safety:   permits stay as they are. A waiter holds nothing. If
//                   release() dies before it has woken a waiter, or the waiter
//                   dies that it has woken, another one comes within 100 ms.
//   Signal-safety:  try_acquire() and release() may be called in a handler.
//                   Waits resume after one ran.
//   Errors:         none is returned. "Not now" is false; misuse is fatal.
//   Ordering:       what a thread did before release() is visible to whoever
//                   acquires that permit, or any later one.
//   Cost:           acquire() + release() with no rival: two read-modify-writes
//                   and two loads, no system call. A waiter looks up every
//                   100 ms.
//   Reference:      std::counting_semaphore; docs/design/counting_semaphore.md.
class CountingSemaphore final {
 public:
  // The largest number of permits.
  [[nodiscard]] static constexpr ptrdiff_t max() { return kMax; }

  // No permits. All-zero bytes are such a semaphore: a fresh page needs no
  // construction, and nothing needs destruction.
  constexpr CountingSemaphore() = default;

  // Requires 0 <= permits <= max().
  explicit constexpr CountingSemaphore(ptrdiff_t permits)
      : word_(Checked(permits)), guess_(Checked(permits)) {}

  CountingSemaphore(const CountingSemaphore&) = delete;
  CountingSemaphore& operator=(const CountingSemaphore&) = delete;

  // Takes a permit; blocks until there is one.
  void acquire() {
    if (!try_acquire()) (void)Await(Deadline::Infinite());
  }

  // Takes a permit if there is one. Returns true iff it did. Never fails while
  // there is one.
  [[nodiscard]] bool try_acquire();

  // Takes a permit; blocks until there is one or `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC) is over; at least one attempt. Returns true iff it did.
  [[nodiscard]] bool try_acquire_until(Deadline deadline) {
    return try_acquire() || Await(deadline);
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration. A time
  // of zero or less makes one attempt.
  template <typename Duration>
  [[nodiscard]] bool try_acquire_for(const Duration& wait) {
    return try_acquire_until(Deadline::After(wait));
  }

  // Adds `n` permits and wakes as many waiters, if any. Requires 0 <= n, and
  // that there are no more than max() then; all or none are added.
  void release(ptrdiff_t n = 1);

  // How many permits there are at this moment.
  [[nodiscard]] ptrdiff_t value() const {
    return word_.load(std::memory_order_relaxed) & kCount;
  }

 private:
  static constexpr uint32_t kCount = ~sync_internal::kSleepers;
  // One bit stays unused between the permits and kSleepers, so that the
  // addition of one too many is noticed before it does harm.
  static constexpr uint32_t kMax = (uint32_t{1} << 30) - 1;

  static constexpr uint32_t Checked(ptrdiff_t permits) {
    if (permits < 0 || permits > max()) BadCount();
    return static_cast<uint32_t>(permits);
  }
  [[noreturn]] static void BadCount();
  [[noreturn]] void TooMany();

  bool Await(Deadline deadline);
  void ReleaseMany(ptrdiff_t n);

  // Bits 0-30: the permits; changed by whoever takes or adds one, in one step.
  // Bit 31: kSleepers (sync/internal/wait_word.h), kept by both.
  std::atomic<uint32_t> word_ = 0;

  // What `word_` may well hold. A step that begins with this number, right or
  // wrong, need not wait until the word itself has been read.
  std::atomic<uint32_t> guess_ = 0;
};
static_assert(sizeof(CountingSemaphore) == 8, "shared ABI");

// The paths without a rival stand here to be inlined: they cost little more
// than their two read-modify-writes.

inline bool CountingSemaphore::try_acquire() {
  const uint32_t guess = guess_.load(std::memory_order_relaxed);
  uint32_t seen = guess;
  if ((seen & kCount) == 0) seen = word_.load(std::memory_order_relaxed);
  while ((seen & kCount) != 0) {
    if (word_.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire,
                                    std::memory_order_relaxed)) [[likely]] {
      if (seen != guess) [[unlikely]] {
        guess_.store(seen, std::memory_order_relaxed);
      }
      return true;
    }
  }
  // Who asks again and again shall not write.
  if (guess != 0) guess_.store(0, std::memory_order_relaxed);
  return false;
}

inline void CountingSemaphore::release(ptrdiff_t n) {
  if (n != 1) [[unlikely]] {
    return ReleaseMany(n);
  }
  const uint32_t was = word_.fetch_add(1, std::memory_order_release);
  if (was >= kMax) [[unlikely]] {
    if ((was & kCount) >= kMax) TooMany();
    sync_internal::WakeSome(word_, 1);
  }
}

}  // namespace cohort

#endif  // COHORT_SYNC_COUNTING_SEMAPHORE_H_
