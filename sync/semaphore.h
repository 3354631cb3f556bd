// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Semaphore` lets no more than a given number of holders in at a time,
// over all processes that map it. Its permits come home: when a process dies,
// whatever permits it held are free again. The caller chooses the memory; the
// semaphore allocates nothing there and leaves nothing behind after a crash.
//
//   struct Garage {
//     cohort::Semaphore seats{4};
//     ...
//   };
//
//   // `garage` points into shared memory.
//   cohort::SemaphoreLock seat(garage->seats);
//   Park(*garage);
//
// Or by hand, as with std::counting_semaphore:
//
//   if (garage->seats.try_acquire_for(std::chrono::seconds(1))) {
//     Park(*garage);
//     garage->seats.release();
//   }
//
// A permit is held by a process, not by a thread: one thread may release what
// another has acquired. To signal from process to process, where one acquires
// what another releases, take sync/counting_semaphore.h. Where a release too
// many is to be an error and no crash, take sync/bounded_semaphore.h. Threads
// of a single process should prefer std::counting_semaphore.

#ifndef COHORT_SYNC_SEMAPHORE_H_
#define COHORT_SYNC_SEMAPHORE_H_

#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/sync/internal/permit_ledger.h"

namespace cohort {
namespace sync_internal {

// One line on stderr, then abort().
[[noreturn]] void BadPermits();
[[noreturn]] void BadRelease(ptrdiff_t n);

constexpr uint32_t CheckedPermits(ptrdiff_t permits) {
  if (permits < 0 || permits > ptrdiff_t{PermitLedgerHead::kMaxPermits}) {
    BadPermits();
  }
  return static_cast<uint32_t>(permits);
}

}  // namespace sync_internal

// Semaphore
//
// |        | acquire()       | release(n)           | a process that holds   |
// |        |                 |                      | k permits dies         |
// |--------+-----------------+----------------------+------------------------|
// | 0 free | blocks          | n free; fatal where  | k free, as soon as     |
// | f free | f - 1 free, one | the calling process  | somebody waits, tries, |
// |        | more held       | holds fewer than n   | or calls reclaim()     |
//
// "Fatal" is one line on stderr, then abort(): a bug that no result can mend.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 32 + 16 * kHolders bytes, aligned to 8; its bytes
//                   are an ABI between builds. Never move or copy it; don't
//                   unmap it while a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. The threads of
//                   a process share what it holds.
//   Process-safety: likewise, among all processes of one PID and one time
//                   namespace that map the same bytes. In another namespace
//                   the id of a holder means a stranger: a live holder may be
//                   taken for dead and lose its permits.
//   Fork-safety:    a child of fork() does not hold what its parent holds.
//   Crash-safety:   permits come home when all threads of the holder have
//                   ended, by SIGKILL too; a waiter notices within 100 ms, a
//                   try only where nobody has looked for 20 ms. execve() is no
//                   end: the next program holds them until it ends, and may
//                   release them. A core dump is written first.
//   Signal-safety:  none; keep it out of handlers. Waits resume after one ran.
//   Errors:         none is returned. "Not now" is false; misuse is fatal.
//   Ordering:       what a process did before it released, or died, is visible
//                   to whoever acquires later.
//   Cost:           acquire() + release() with no rival: four
//                   read-modify-writes, no system call. A waiter looks up every
//                   100 ms; all waiters together ask the kernel about each
//                   holder at most every 20 ms, which takes 10 us.
//   Reference:      docs/design/semaphore.md.
//
// `kHolders` is how many processes may hold permits at the same time. One more
// waits, as if there were no permit.
template <int kHolders>
class ABSL_LOCKABLE BasicSemaphore final {
 public:
  // The largest number of permits.
  [[nodiscard]] static constexpr ptrdiff_t max() {
    return sync_internal::PermitLedgerHead::kMaxPermits;
  }

  // No permits, so every acquire() blocks. All-zero bytes are such a semaphore.
  constexpr BasicSemaphore() : BasicSemaphore(0) {}

  // All `permits` are free. Requires 0 <= permits <= max(). Nothing needs
  // destruction.
  explicit constexpr BasicSemaphore(ptrdiff_t permits)
      : ledger_(sync_internal::CheckedPermits(permits)) {}

  BasicSemaphore(const BasicSemaphore&) = delete;
  BasicSemaphore& operator=(const BasicSemaphore&) = delete;

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

  // Gives back `n` permits and wakes as many waiters, if any. Requires that the
  // calling process holds as many, and 0 <= n.
  void release(ptrdiff_t n = 1) {
    if (n < 0 || n > max() ||
        ledger_.Release(static_cast<uint32_t>(n)) < static_cast<uint32_t>(n))
        [[unlikely]] {
      sync_internal::BadRelease(n);
    }
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
  sync_internal::PermitLedger<kHolders> ledger_;
};

using Semaphore = BasicSemaphore<128>;
static_assert(sizeof(Semaphore) == 2080 && alignof(Semaphore) == 8,
              "shared ABI");

// Holds one permit of a `Semaphore` for the length of a scope. Others may hold
// theirs at the same time, so for the analysis of locks it is a shared one.
template <int kHolders>
class ABSL_SCOPED_LOCKABLE [[nodiscard]] SemaphoreLock final {
 public:
  explicit SemaphoreLock(BasicSemaphore<kHolders>& semaphore)
      ABSL_SHARED_LOCK_FUNCTION(semaphore)
      : semaphore_(semaphore) {
    semaphore_.acquire();
  }
  ~SemaphoreLock() ABSL_UNLOCK_FUNCTION() { semaphore_.release(); }

  SemaphoreLock(const SemaphoreLock&) = delete;
  SemaphoreLock& operator=(const SemaphoreLock&) = delete;

 private:
  BasicSemaphore<kHolders>& semaphore_;
};

}  // namespace cohort

#endif  // COHORT_SYNC_SEMAPHORE_H_
