// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Event` is a flag in memory that several processes map: some set and
// clear it, others sleep until it is set. It stays set until it is cleared, so
// whoever comes late does not wait.
//
//   struct Job {
//     cohort::Event done;
//     int64_t result = 0;
//   };
//
//   // `job` points into shared memory. One process:
//   job->result = Compute();
//   job->done.set();
//
//   // Any number of others:
//   job->done.wait();
//   Use(job->result);
//
// A wait ends with a set() that comes after its begin, also where a clear()
// follows at once: set() and then clear() let everybody pass who waits now and
// nobody later.
//
// What happens once and for all is a Latch (sync/latch.h); waiting for a state
// of data under a mutex is for a ConditionVariable (sync/condition_variable.h);
// signals that are counted are a CountingSemaphore
// (sync/counting_semaphore.h): two set() in a row are as one.

#ifndef COHORT_SYNC_EVENT_H_
#define COHORT_SYNC_EVENT_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/deadline.h"

namespace cohort {

// Event
//
// |       | set()            | clear() | wait()         | setter dies in set() |
// |-------+------------------+---------+----------------+----------------------|
// | Clear | Set; all waiters | --      | sleeps until a | Clear, or Set and    |
// |       | return           |         | set()          | waiters return late  |
// | Set   | --               | Clear   | returns        | Set                  |
//
// It belongs to nobody, so nobody's death changes it. "Late" is at the end of
// the slice of their sleep, 20 to 100 ms, or at the next set().
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 4 bytes, aligned to 4; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time.
//   Process-safety: likewise, among all processes that map the same bytes, of
//                   any PID namespace.
//   Fork-safety:    a child sees the same event. No process has state of it.
//   Crash-safety:   set() and clear() are done by one step each. A waiter that
//                   dies is just gone; waiters of a setter that dies before it
//                   wakes them return late.
//   Signal-safety:  set(), clear() and is_set(), whatever the handler
//                   interrupted; `errno` is kept. Waits resume after a handler,
//                   and end if it has set the event.
//   Errors:         none. A time that is over is false; nothing is misuse.
//   Ordering:       what a process did before set(), also one that found the
//                   event set, is visible to who then waited for it, saw it set
//                   or cleared it.
//   Cost:           set() and clear() are one read-modify-write each and no
//                   system call where nobody sleeps; is_set() is a load.
//                   A sleeper looks up every 100 ms.
//   Reference:      Python's threading.Event, whose wait may miss a set() that
//                   is cleared at once; futex(2); docs/design/event.md.
class Event final {
 public:
  // Starts clear. All-zero bytes are such an event: a fresh page needs no
  // construction, and nothing needs destruction.
  constexpr Event() = default;

  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // Sets it, and lets every waiter return.
  void set() {
    // The mark is the sign, so that the flags of one `lock or` tell of it.
    const uint32_t now = word_.fetch_or(kSet, std::memory_order_release) | kSet;
    if (static_cast<int32_t>(now) < 0) [[unlikely]] {
      WakeAll();
    }
  }

  // Clears it: later waits sleep. Those under way still see a set() that came
  // before.
  void clear() {
    uint32_t seen = word_.load(std::memory_order_acquire);
    while ((seen & kSet) != 0 &&
           !word_.compare_exchange_weak(
               seen, (seen & kMark) | ((seen + kSet) & ~kMark),
               std::memory_order_acquire)) {
    }
  }

  // Returns true iff it is set; stale when it returns, as another may clear it.
  [[nodiscard]] bool is_set() const {
    return (word_.load(std::memory_order_acquire) & kSet) != 0;
  }

  // Blocks until the event is set, or has been since the call.
  void wait() { (void)wait_until(Deadline::Infinite()); }

  // Likewise, but no longer than until `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC); looks at least once. Returns true iff it was set.
  [[nodiscard]] bool wait_until(Deadline deadline);

  // Likewise for so long: a std::chrono::duration or an absl::Duration. A time
  // of zero or less looks once.
  template <typename Duration>
  [[nodiscard]] bool wait_for(const Duration& wait) {
    return wait_until(Deadline::After(wait));
  }

 private:
  // Bits of `word_`:
  //   0      set.
  //   1-30   how often it was cleared while it was set, modulo 2^30. A waiter
  //          that finds another number than at its begin has missed a set().
  //   31     the mark of sync/internal/wait_word.h: somebody may sleep. Set by
  //          waiters; clear() keeps it; a set() removes it after it woke all.
  //          May be stale, then it costs one vain system call.
  static constexpr uint32_t kSet = 1;
  static constexpr uint32_t kMark = 0x80000000;

  void WakeAll();

  std::atomic<uint32_t> word_ = 0;
};
static_assert(sizeof(Event) == 4, "shared ABI");
static_assert(alignof(Event) == 4, "shared ABI");

}  // namespace cohort

#endif  // COHORT_SYNC_EVENT_H_
