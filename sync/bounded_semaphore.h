// SPDX-License-Identifier: Apache-2.0
//
// `cohort::BoundedSemaphore` is a `Semaphore` whose caller is told, by a
// status, that it has released more than it held. Its permits come home when
// their holder dies, as those of a `Semaphore` do.
//
//   struct Garage {
//     cohort::BoundedSemaphore seats{4};
//     ...
//   };
//
//   garage->seats.acquire();
//   absl::Status left = garage->seats.release();
//   left = garage->seats.release();         // FailedPrecondition: "... holds 0
//                                           // permits and releases 1".
//
// Where that is a bug of the program, sync/semaphore.h ends it instead, and has
// a guard for scopes.

#ifndef COHORT_SYNC_BOUNDED_SEMAPHORE_H_
#define COHORT_SYNC_BOUNDED_SEMAPHORE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "cohort/os/deadline.h"
#include "cohort/sync/internal/permit_ledger.h"

namespace cohort {

// BoundedSemaphore
//
// |        | acquire()       | release(n)           | a process that holds   |
// |        |                 |                      | k permits dies         |
// |--------+-----------------+----------------------+------------------------|
// | 0 free | blocks          | n free; nothing, and | k free, as soon as     |
// | f free | f - 1 free, one | an error, where the  | somebody waits, tries, |
// |        | more held       | process holds fewer  | or calls reclaim()     |
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 2080 bytes, aligned to 8; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. The threads of
//                   a process share what it holds.
//   Process-safety: likewise, among all processes of one PID and one time
//                   namespace that map the same bytes.
//   Fork-safety:    a child of fork() does not hold what its parent holds.
//   Crash-safety:   as of Semaphore.
//   Signal-safety:  none; keep it out of handlers. Waits resume after one ran.
//   Errors:         "not now" is false. FailedPrecondition: the process holds
//                   less than it releases; then nothing is released. Fatal: a
//                   number of permits below 0 or above max().
//   Ordering:       what a process did before it released, or died, is visible
//                   to whoever acquires later.
//   Cost:           as of Semaphore.
//   Reference:      Python's BoundedSemaphore and its ValueError;
//                   docs/design/semaphore.md.
class BoundedSemaphore final {
 public:
  // How many processes may hold permits at the same time. One more waits, as
  // if there were no permit.
  static constexpr int kHolders = 128;

  // The largest number of permits.
  [[nodiscard]] static constexpr ptrdiff_t max() {
    return sync_internal::PermitLedgerHead::kMaxPermits;
  }

  // No permits, so every acquire() blocks. All-zero bytes are such a semaphore.
  constexpr BoundedSemaphore() : BoundedSemaphore(0) {}

  // All `permits` are free. Requires 0 <= permits <= max(). Nothing needs
  // destruction.
  explicit constexpr BoundedSemaphore(ptrdiff_t permits)
      : ledger_(Checked(permits)) {}

  BoundedSemaphore(const BoundedSemaphore&) = delete;
  BoundedSemaphore& operator=(const BoundedSemaphore&) = delete;

  // Takes a permit; blocks until there is one.
  void acquire() { (void)ledger_.Acquire(Deadline::Infinite()); }

  // Takes a permit if there is one. Returns true iff it did. Waits for nothing
  // but a rival in the middle of its own call, and for some 10 ms at most.
  [[nodiscard]] bool try_acquire() { return ledger_.Acquire(Deadline::Now()); }

  // Takes a permit; blocks until there is one or `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC) is over; at least one attempt. Returns true iff it did.
  [[nodiscard]] bool try_acquire_until(Deadline deadline) {
    return ledger_.Acquire(deadline);
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration. A time
  // of zero or less makes one attempt.
  template <typename Duration>
  [[nodiscard]] bool try_acquire_for(const Duration& wait) {
    return try_acquire_until(Deadline::After(wait));
  }

  // Gives back `n` permits and wakes as many waiters, if any. All are given
  // back, or none and FailedPrecondition says how many the process holds.
  // Requires 0 <= n <= max(), else it is fatal.
  absl::Status release(ptrdiff_t n = 1) {
    if (n < 0 || n > max()) [[unlikely]] {
      return Refuse(n, held());
    }
    const uint32_t held = ledger_.Release(static_cast<uint32_t>(n));
    if (held < n) [[unlikely]] {
      return Refuse(n, held);
    }
    return absl::OkStatus();
  }

  // Gives back at once what dead processes hold, and returns how many permits
  // that were. Waiters do so by themselves; this is for who knows of a death.
  ptrdiff_t reclaim() { return ledger_.Reclaim(); }

  // How many permits are free at this moment, how many the calling process
  // holds, and how many there are. What a dead process holds is not free until
  // somebody has noticed.
  [[nodiscard]] ptrdiff_t value() const { return ledger_.value(); }
  [[nodiscard]] ptrdiff_t held() { return ledger_.Held(); }
  [[nodiscard]] ptrdiff_t permits() const { return ledger_.permits(); }

 private:
  static constexpr uint32_t Checked(ptrdiff_t permits) {
    if (permits < 0 || permits > max()) BadPermits();
    return static_cast<uint32_t>(permits);
  }
  [[noreturn]] static void BadPermits();
  static absl::Status Refuse(ptrdiff_t n, ptrdiff_t held);

  sync_internal::PermitLedger<kHolders> ledger_;
};
static_assert(sizeof(BoundedSemaphore) == 2080 &&
                  alignof(BoundedSemaphore) == 8,
              "shared ABI");

}  // namespace cohort

#endif  // COHORT_SYNC_BOUNDED_SEMAPHORE_H_
