// SPDX-License-Identifier: Apache-2.0
//
// The cheapest thing that excludes: one atomic exchange to take it, one store
// to free it. It spins, is unfair, and a dead holder holds it for ever.

#ifndef COHORT_BENCHMARKS_LIMITS_EXCHANGE_LOCK_H_
#define COHORT_BENCHMARKS_LIMITS_EXCHANGE_LOCK_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

class ExchangeLock final {
 public:
  void lock() {
    while (held_.exchange(1, std::memory_order_acquire) != 0) {
      cohort::os::CpuRelax();
    }
  }
  void unlock() { held_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t> held_ = 0;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_EXCHANGE_LOCK_H_
