// SPDX-License-Identifier: Apache-2.0
//
// A barrier for two that spin: one word counts who has come, and whoever came
// first in a round waits for the next one to be counted. It waits for the dead
// for ever. A round number on a line of its own, as such barriers often have,
// takes twice as long.

#ifndef COHORT_BENCHMARKS_LIMITS_SPIN_BARRIER_H_
#define COHORT_BENCHMARKS_LIMITS_SPIN_BARRIER_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

class SpinBarrier final {
 public:
  void ArriveAndWait() {
    const uint32_t before = came_.fetch_add(1, std::memory_order_acq_rel);
    if (before % 2 == 1) return;
    while (came_.load(std::memory_order_acquire) == before + 1) {
      cohort::os::CpuRelax();
    }
  }

 private:
  std::atomic<uint32_t> came_ = 0;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_SPIN_BARRIER_H_
