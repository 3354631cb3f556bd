// SPDX-License-Identifier: Apache-2.0
//
// Sleeping on a 32-bit word that several processes map, and waking the
// sleepers.
//
//   os::Slices slices(deadline);
//   while (word.load() == kEmpty && !deadline.Passed()) {
//     os::FutexWait(word, kEmpty, slices.Next());
//   }
//
// No sleep of this library is longer than a slice: a wake-up can die with the
// process that owed it or with the one that got it, and whoever waits reads the
// shared state again at the end of each slice. A lock is not built here:
// sync/mutex.h has one.

#ifndef COHORT_OS_FUTEX_H_
#define COHORT_OS_FUTEX_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/deadline.h"

namespace cohort::os {

// How a sleep ended. Each may be spurious: read the word again.
enum class FutexEnd {
  kWoken,        // By FutexWake().
  kChanged,      // The word did not hold the expected value: no sleep at all.
  kTimedOut,     // The deadline is over.
  kInterrupted,  // A signal handler ran.
};

// Sleepers on one word can be told apart by bits of their own choice.
inline constexpr uint32_t kAllFutexBits = 0xffffffff;

// Sleeps while `word` holds `expected`, at most until `until`. The comparison
// and the falling asleep are one step as seen by FutexWake(). The word may lie
// in any mapping, also at a different address in each process. Only a
// FutexWake() that names one of `bits` ends it.
FutexEnd FutexWait(const std::atomic<uint32_t>& word, uint32_t expected,
                   Deadline until, uint32_t bits = kAllFutexBits);

// Wakes at most `count` sleepers, of those that sleep with one of `bits`, and
// returns how many it woke.
int FutexWake(std::atomic<uint32_t>& word, int count,
              uint32_t bits = kAllFutexBits);

// Cuts one long wait into sleeps of 20 ms, growing to 100 ms.
class Slices final {
 public:
  explicit Slices(Deadline overall) : overall_(overall) {}

  // The end of the next sleep, never after the end of the whole wait.
  [[nodiscard]] Deadline Next();

  // For tests: from now on no wait of this process, and of the children that it
  // forks, is cut. A wake-up that is lost is then a hang, not a delay.
  static void TurnOff();

 private:
  Deadline overall_;
  int64_t slice_ = 20'000'000;
};

}  // namespace cohort::os

#endif  // COHORT_OS_FUTEX_H_
