// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Barrier` lets a fixed number of parties, in one process or many, meet
// round after round: each waits until all have arrived, then all go on. If one
// of them dies while it waits there, the others are told.
//
//   struct Sweep { cohort::Barrier step{4}; ... };   // Made in shared memory.
//
//   for (int t = 0; t < kSteps; ++t) {
//     Compute(sweep, t);
//     absl::StatusOr<int> index =
//         sweep->step.arrive_and_wait_for(absl::Minutes(1));
//     if (!index.ok()) return index.status();   // As have all four.
//     if (*index == 0) Report(t);               // One of the four.
//   }
//
// A round ends for all of its parties alike: all are through, or all get an
// error. After an error the barrier is *broken*: everybody who arrives gets the
// error at once, until somebody calls reset().
//
// With an action, one of the parties runs it when all have arrived and before
// any goes on. It is given on arrival, by each party the same, since a function
// cannot be kept in memory that several programs map:
//
//   index = sweep->step.arrive_and_wait_for(absl::Minutes(1),
//                                           [&] { Swap(sweep); });
//
// A process that dies elsewhere, or when its round was already over, is not known
// to the barrier: wait with a time limit, or watch the processes and abort(). A
// new party may come in its place. Where each party comes once and nobody needs
// to know who is missing, take sync/latch.h; threads of a single process may
// take std::barrier.

#ifndef COHORT_SYNC_BARRIER_H_
#define COHORT_SYNC_BARRIER_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "cohort/os/check.h"
#include "cohort/os/deadline.h"
#include "cohort/os/robust.h"

namespace cohort {
namespace sync_internal {

// Where the kernel marks the death of the party that runs the action: what user
// code does meanwhile uses up the pending slot of its robust list.
struct BarrierRunner {
  std::atomic<uint64_t> word = 0;              // As a slot.
  [[maybe_unused]] uint64_t reserved[2] = {};  // Zero.
  os::RobustNode node;
};
static_assert(sizeof(BarrierRunner) == 40, "shared ABI");

// A barrier of whatever size. Bits: sync/barrier.cc.
struct BarrierParts {
  std::atomic<uint64_t>& state;
  std::span<std::atomic<uint64_t>> slots;
  BarrierRunner& runner;
  uint32_t parties;
};

// The turn of the party that runs the action. Where it ends without Finish(),
// by an exception that leaves the action, the round is broken.
class [[nodiscard]] BarrierTurn final {
 public:
  explicit BarrierTurn(const BarrierParts& parts) : parts_(parts) {}
  ~BarrierTurn();
  BarrierTurn(const BarrierTurn&) = delete;
  BarrierTurn& operator=(const BarrierTurn&) = delete;

  // Tries to become the one that runs the action of `round`.
  bool Take(uint32_t round);
  void Drop();

  // Whether the caller has arrived as the last, and runs the action.
  bool mine() const { return mine_; }
  void Begin() { mine_ = true; }
  // Lets all parties go on.
  absl::StatusOr<int> Finish();

 private:
  const BarrierParts& parts_;
  uint32_t round_ = 0;
  bool mine_ = false;
};

// With a `turn` that is mine() afterwards the result means nothing yet.
absl::StatusOr<int> BarrierArrive(const BarrierParts& parts, Deadline deadline,
                                  BarrierTurn* turn);
void BarrierAbort(const BarrierParts& parts);
void BarrierReset(const BarrierParts& parts);
bool BarrierBroken(uint64_t state);
int BarrierWaiting(uint64_t state);

}  // namespace sync_internal

// BasicBarrier, Barrier
//
// |         | arrive_and_wait()      | abort() | reset()    | a thread inside |
// |         |                        |         |            | dies            |
// |---------+------------------------+---------+------------+-----------------|
// | Filling | the last: all through, | Broken  | Filling;   | Broken; if the  |
// |         | Filling; else waits;   |         | who waits: | last has come   |
// |         | time over: Broken      |         | error      | before: no one  |
// |         |                        |         |            | notices         |
// | Running | a party too many waits | Broken  | Filling;   | Broken          |
// | action  | for the next round     |         | all: error |                 |
// | Broken  | error at once          | Broken  | Filling    | Broken          |
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 384 bytes for 32 parties, aligned to 64; its bytes
//                   are an ABI between builds. Never move or copy it; don't
//                   unmap it while a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. More threads
//                   than parties may come: whoever is there fills the round.
//   Process-safety: likewise, among all processes of one PID namespace that
//                   map the same bytes.
//   Fork-safety:    a child of fork() is no party of what its parent waits for.
//   Crash-safety:   a thread that dies inside, by SIGKILL too, breaks the round
//                   that it was in if that is not over yet. The others know by
//                   the kernel's mark, at the latest 100 ms after it; whoever
//                   arrives last sees it at once.
//   Signal-safety:  none; keep it out of handlers. Waits resume after one ran.
//   Errors:         DeadlineExceeded for the one whose time was over, Aborted
//                   for all others of a broken round, with the reason. Misuse is
//                   fatal: one line on stderr, then abort().
//   Ordering:       what a party wrote before it arrived is visible to the
//                   action, and to all that go on; what the action wrote, to
//                   all that go on.
//   Cost:           the last to arrive makes one read-modify-write, the others
//                   two each, and no system call while nobody sleeps. A sleeper
//                   looks up every 100 ms.
//   Reference:      Python's multiprocessing.Barrier; std::barrier;
//                   get_robust_list(2); docs/design/barrier.md.
template <int kParties>
class alignas(64) BasicBarrier final {
  static_assert(kParties >= 1 && kParties <= 1000);

 public:
  // For so many parties. Requires 1 to kParties, else it is fatal. All-zero
  // bytes are no barrier: using them is fatal.
  constexpr explicit BasicBarrier(int parties) : parties_(Checked(parties)) {}

  BasicBarrier(const BasicBarrier&) = delete;
  BasicBarrier& operator=(const BasicBarrier&) = delete;

  // The largest number of parties.
  [[nodiscard]] static constexpr int max() noexcept { return kParties; }

  // Arrives, and blocks until all parties have. Returns which one the caller was
  // in this round, from 0 to parties() - 1: each gets another number.
  [[nodiscard]] absl::StatusOr<int> arrive_and_wait() {
    return arrive_and_wait_until(Deadline::Infinite());
  }

  // Likewise until `deadline` (absolute, in ns of CLOCK_MONOTONIC). If that is
  // over first, this breaks the barrier for all, and returns DeadlineExceeded;
  // but where all parties have arrived already, and the caller is one too many,
  // nothing is broken.
  [[nodiscard]] absl::StatusOr<int> arrive_and_wait_until(Deadline deadline) {
    return sync_internal::BarrierArrive(Parts(), deadline, nullptr);
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration. With a
  // time of zero or less it breaks the barrier unless it is the last to arrive.
  template <typename Duration>
  [[nodiscard]] absl::StatusOr<int> arrive_and_wait_for(const Duration& wait) {
    return arrive_and_wait_until(Deadline::After(wait));
  }

  // Likewise; the last to arrive calls `action()`, and then all go on. If it
  // throws or its runner dies, the barrier is broken; an exception passes on to
  // the caller. If the round is broken while it runs, as by a time-out, it runs
  // to its end and all have the error. No two actions of a barrier run at once.
  // It must not arrive at the same barrier.
  template <typename Action>
  requires requires(Action& action) { action(); }
  [[nodiscard]] absl::StatusOr<int> arrive_and_wait(Action&& action) {
    return arrive_and_wait_until(Deadline::Infinite(),
                                 std::forward<Action>(action));
  }
  template <typename Action>
  [[nodiscard]] absl::StatusOr<int> arrive_and_wait_until(Deadline deadline,
                                                          Action&& action) {
    const sync_internal::BarrierParts parts = Parts();
    sync_internal::BarrierTurn turn(parts);
    absl::StatusOr<int> index =
        sync_internal::BarrierArrive(parts, deadline, &turn);
    if (!turn.mine()) return index;
    std::forward<Action>(action)();
    return turn.Finish();
  }
  template <typename Duration, typename Action>
  [[nodiscard]] absl::StatusOr<int> arrive_and_wait_for(const Duration& wait,
                                                        Action&& action) {
    return arrive_and_wait_until(Deadline::After(wait),
                                 std::forward<Action>(action));
  }

  // Breaks it: who waits gets Aborted, and so does who comes, until reset(). For
  // a party that cannot go on. Does nothing if it is broken already.
  void abort() { sync_internal::BarrierAbort(Parts()); }

  // Makes it whole and empty, whatever it was; who waits gets Aborted.
  void reset() { sync_internal::BarrierReset(Parts()); }

  // As of now, so for a look or a message: others may change it at once. How
  // many have arrived and wait; whether it is broken.
  [[nodiscard]] int waiting() const {
    return sync_internal::BarrierWaiting(
        state_.load(std::memory_order_relaxed));
  }
  [[nodiscard]] bool broken() const {
    return sync_internal::BarrierBroken(state_.load(std::memory_order_acquire));
  }

  // The number that the constructor was given.
  [[nodiscard]] int parties() const { return static_cast<int>(parties_); }

 private:
  static constexpr uint32_t Checked(int parties) {
    if (parties < 1 || parties > kParties) {
      os::Fatal("Barrier: made for no party, or for more than its type allows");
    }
    return static_cast<uint32_t>(parties);
  }

  sync_internal::BarrierParts Parts() {
    os::Check(
        parties_ - 1 < uint32_t{kParties},
        "Barrier: these bytes were never made one; all-zero bytes have no "
        "parties");
    // Those that a round needs, and as many for those that still leave the one
    // before; no more, for the last to arrive looks at each.
    const std::size_t slots =
        std::min(std::size_t{2} * parties_, std::size_t{kParties});
    return {state_, {slots_, slots}, runner_, parties_};
  }

  // The state and the first slots share a cache line: whoever arrives writes
  // both, and the last looks at all slots.
  std::atomic<uint64_t> state_ = 0;  // Bits of both: sync/barrier.cc.
  const uint32_t parties_;
  [[maybe_unused]] uint32_t reserved_ = 0;  // Zero.
  std::atomic<uint64_t> slots_[kParties] = {};
  alignas(64) sync_internal::BarrierRunner runner_;
};

using Barrier = BasicBarrier<32>;
static_assert(sizeof(Barrier) == 384 && alignof(Barrier) == 64, "shared ABI");

}  // namespace cohort

#endif  // COHORT_SYNC_BARRIER_H_
