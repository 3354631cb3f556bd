// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Latch` is a count that goes down to zero, once, in memory that
// several processes map: who waits goes on when it is there. It is std::latch,
// with time limits.
//
//   struct Startup { cohort::Latch ready{4}; };   // Made in shared memory.
//
//   startup->ready.count_down();                  // Each of four workers.
//
//   if (!startup->ready.wait_for(absl::Seconds(10))) {  // Who needs all four.
//     return absl::DeadlineExceededError("a worker did not come up");
//   }
//
// It says *that* so many have counted, not who. A process that dies before it
// counts never will, and nothing tells: wait with a time limit, or watch the
// processes too. For round after round, and to learn of a death among those who
// wait, take sync/barrier.h; for a condition that comes and goes, sync/event.h.
// Threads of a single process may take std::latch.

#ifndef COHORT_SYNC_LATCH_H_
#define COHORT_SYNC_LATCH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "cohort/os/check.h"
#include "cohort/os/deadline.h"

namespace cohort {

// Latch
//
// |        | count_down(n)          | wait()  | try_wait() | a party dies     |
// |--------+------------------------+---------+------------+------------------|
// | Closed | Closed, or Open if n   | blocks  | false      | Closed; what it  |
// |        | was the rest;          |         |            | counted stays,   |
// |        | above the rest: fatal  |         |            | the rest is open |
// |        |                        |         |            | to anybody       |
// | Open   | fatal, unless n is 0   | returns | true       | Open             |
//
// "Fatal" is one line on stderr, then abort(); the latch stays as it was.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 4 bytes, aligned to 4; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time.
//   Process-safety: likewise, among all processes that map the same bytes.
//   Fork-safety:    holds nothing of a process: a child of fork() counts as
//                   anybody does.
//   Crash-safety:   a death leaves the count before or after the dying one's
//                   step, nothing between. If it dies after the step that opens
//                   and before it has woken the sleepers, they look by
//                   themselves within 100 ms.
//   Signal-safety:  count_down() and try_wait(); waits resume after a handler.
//   Errors:         none is returned. "Not now" is false; misuse is fatal.
//   Ordering:       what was written before a count_down() is visible to whoever
//                   returns from a wait, or from a true try_wait().
//   Cost:           count_down(): one read-modify-write; the one that opens
//                   makes a system call if somebody sleeps. A wait on an open
//                   one: a load.
//   Reference:      std::latch; docs/design/latch.md.
class Latch final {
 public:
  // The largest count.
  [[nodiscard]] static constexpr std::ptrdiff_t max() noexcept {
    return std::numeric_limits<int32_t>::max();
  }

  // Opens after `count`; at once if that is 0, as are all-zero bytes. Requires
  // a count from 0 to max(), else it is fatal.
  constexpr explicit Latch(std::ptrdiff_t count) : word_(Checked(count)) {}

  Latch(const Latch&) = delete;
  Latch& operator=(const Latch&) = delete;

  // Takes `n` off the count, and opens at zero. Requires that `n` is not
  // negative and that so much is left, else it is fatal.
  void count_down(std::ptrdiff_t n = 1);

  // Whether it is open. Never blocks, and never errs.
  [[nodiscard]] bool try_wait() const {
    return (word_.load(std::memory_order_acquire) & kCount) == 0;
  }

  // Blocks until it is open.
  void wait() { (void)wait_until(Deadline::Infinite()); }

  // Blocks until it is open or `deadline` (absolute, in ns of CLOCK_MONOTONIC)
  // is over; looks at least once. Returns true iff it is open.
  [[nodiscard]] bool wait_until(Deadline deadline) {
    return try_wait() || WaitSlow(deadline);
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration.
  template <typename Duration>
  [[nodiscard]] bool wait_for(const Duration& wait) {
    return wait_until(Deadline::After(wait));
  }

  // count_down(n), then wait().
  void arrive_and_wait(std::ptrdiff_t n = 1) {
    count_down(n);
    wait();
  }

 private:
  // Bits of the word: 0-30 what is left of the count, changed by count_down()
  // alone; 31 sync_internal::kSleepers (sync/internal/wait_word.h).
  static constexpr uint32_t kCount = 0x7fffffff;

  static constexpr uint32_t Checked(std::ptrdiff_t count) {
    if (count < 0 || count > max()) {
      os::Fatal("Latch: made with a count below 0 or above 2^31 - 1");
    }
    return static_cast<uint32_t>(count);
  }

  bool WaitSlow(Deadline deadline);

  std::atomic<uint32_t> word_;
};
static_assert(sizeof(Latch) == 4, "shared ABI");
static_assert(alignof(Latch) == 4, "shared ABI");

}  // namespace cohort

#endif  // COHORT_SYNC_LATCH_H_
