// SPDX-License-Identifier: Apache-2.0
//
// Barriers for two that spin; they wait for the dead for ever. `SpinBarrier` is
// the usual one: whoever comes second counts the round up, on a line of its
// own, where whoever came first looks. `OneWordBarrier` waits on the count
// itself, which serves two but no more.

#ifndef COHORT_BENCHMARKS_LIMITS_SPIN_BARRIER_H_
#define COHORT_BENCHMARKS_LIMITS_SPIN_BARRIER_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

class SpinBarrier final {
 public:
  void ArriveAndWait() {
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (came_.fetch_add(1, std::memory_order_acq_rel) % 2 == 1) {
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    while (round_.load(std::memory_order_acquire) == round) {
      cohort::os::CpuRelax();
    }
  }

 private:
  alignas(128) std::atomic<uint32_t> came_ = 0;
  alignas(128) std::atomic<uint32_t> round_ = 0;
};

class OneWordBarrier final {
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
