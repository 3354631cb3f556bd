// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Deadline` is a point on the monotonic clock until which a call may
// wait. Durations stop at the user's edge: what waits in several steps makes
// one deadline at its entry, so the steps together take no longer than the
// whole.
//
//   Deadline deadline = Deadline::After(absl::Milliseconds(5));
//   if (mu.try_lock_until(deadline)) ...
//
// Suspend time does not count; a step of the wall clock has no effect.
//
// Contract
//   Placement:      anywhere; 8 bytes, trivially copyable.
//   Thread-safety:  as an int.
//   Process-safety: the same number means the same instant in every process of
//                   one machine and time namespace.
//   Fork-safety:    keeps its meaning in the child.
//   Crash-safety:   no state.
//   Signal-safety:  every member.
//   Errors:         none; what does not fit saturates.
//   Ordering:       none.
//   Cost:           After() and Passed() read the clock once, without a system
//                   call; an infinite or spent deadline reads no clock.
//   Reference:      clock_gettime(2), CLOCK_MONOTONIC.

#ifndef COHORT_OS_DEADLINE_H_
#define COHORT_OS_DEADLINE_H_

#include <chrono>
#include <compare>
#include <cstdint>
#include <limits>

namespace cohort {
namespace os {

// CLOCK_MONOTONIC in nanoseconds.
[[nodiscard]] int64_t NowNanoseconds();

}  // namespace os

class Deadline final {
 public:
  // A time point of the steady clock, which is CLOCK_MONOTONIC: whatever waits
  // until a Deadline takes one, as std::unique_lock's constructor may pass it.
  template <typename Duration>
  // NOLINTNEXTLINE(google-explicit-constructor)
  Deadline(std::chrono::time_point<std::chrono::steady_clock, Duration> at)
      : Deadline(At(at.time_since_epoch())) {}

  // Never passes.
  [[nodiscard]] static constexpr Deadline Infinite() {
    return Deadline(std::numeric_limits<int64_t>::max());
  }

  // Has passed: the waiting call tries exactly once.
  [[nodiscard]] static constexpr Deadline Now() { return Deadline(0); }

  // At this CLOCK_MONOTONIC time.
  [[nodiscard]] static constexpr Deadline AtNanoseconds(int64_t nanoseconds) {
    return Deadline(nanoseconds < 0 ? 0 : nanoseconds);
  }

  // So much later than now; a time of zero or less has passed already.
  template <typename Rep, typename Period>
  [[nodiscard]] static Deadline After(
      const std::chrono::duration<Rep, Period>& wait) {
    // A comparison in floating point cannot overflow as the cast would.
    const std::chrono::duration<long double, std::nano> wide(wait);
    if (!(wide.count() > 0)) return Now();
    if (wide.count() >= kLongestWait) return Infinite();
    return AfterNanoseconds(static_cast<int64_t>(wide.count()));
  }

  // Likewise for a duration that ToChronoNanoseconds() converts, which must
  // saturate: absl::Duration does.
  template <typename Duration>
  requires requires(const Duration& wait) { ToChronoNanoseconds(wait); }
  [[nodiscard]] static Deadline After(const Duration& wait) {
    return After(std::chrono::nanoseconds(ToChronoNanoseconds(wait)));
  }

  // Infinite, as a wait without a limit is.
  constexpr Deadline() : Deadline(std::numeric_limits<int64_t>::max()) {}

  [[nodiscard]] constexpr int64_t nanoseconds() const { return nanoseconds_; }
  [[nodiscard]] constexpr bool infinite() const {
    return nanoseconds_ == std::numeric_limits<int64_t>::max();
  }

  // Returns true iff the instant is now or was before.
  [[nodiscard]] bool Passed() const {
    if (infinite()) return false;
    return nanoseconds_ == 0 || os::NowNanoseconds() >= nanoseconds_;
  }

  [[nodiscard]] constexpr Deadline Earlier(Deadline other) const {
    return nanoseconds_ <= other.nanoseconds_ ? *this : other;
  }

  friend constexpr auto operator<=>(Deadline, Deadline) = default;

 private:
  // A wait this long, 292 years less one day, is taken as for ever.
  static constexpr long double kLongestWait = 9.2232e18L;

  constexpr explicit Deadline(int64_t nanoseconds)
      : nanoseconds_(nanoseconds) {}

  static Deadline AfterNanoseconds(int64_t wait);

  template <typename Duration>
  static Deadline At(const Duration& since_epoch) {
    const std::chrono::duration<long double, std::nano> wide(since_epoch);
    if (!(wide.count() > 0)) return Now();
    if (wide.count() >= kLongestWait) return Infinite();
    return AtNanoseconds(
        std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch)
            .count());
  }

  int64_t nanoseconds_;
};

}  // namespace cohort

#endif  // COHORT_OS_DEADLINE_H_
