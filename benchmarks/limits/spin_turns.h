// SPDX-License-Identifier: Apache-2.0
//
// Two processes that tell each other a number by one cache line each way, both
// spinning: the least that a word takes from one processor to another.

#ifndef COHORT_BENCHMARKS_LIMITS_SPIN_TURNS_H_
#define COHORT_BENCHMARKS_LIMITS_SPIN_TURNS_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

class SpinTurns final {
 public:
  // The i-th round trip, i from 0.
  bool Ask(int64_t i) {
    asked_.store(i + 1, std::memory_order_release);
    Await(answered_, i + 1);
    return true;
  }
  bool Answer(int64_t i) {
    Await(asked_, i + 1);
    answered_.store(i + 1, std::memory_order_release);
    return true;
  }

 private:
  static void Await(const std::atomic<int64_t>& word, int64_t value) {
    while (word.load(std::memory_order_acquire) != value) {
      cohort::os::CpuRelax();
    }
  }

  alignas(128) std::atomic<int64_t> asked_ = 0;
  alignas(128) std::atomic<int64_t> answered_ = 0;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_SPIN_TURNS_H_
