// SPDX-License-Identifier: Apache-2.0
//
// Two processes that give each other the turn by one word and sleep on it: the
// least that the kernel takes to wake somebody.

#ifndef COHORT_BENCHMARKS_LIMITS_FUTEX_TURNS_H_
#define COHORT_BENCHMARKS_LIMITS_FUTEX_TURNS_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace cohort_benchmarks {

class FutexTurns final {
 public:
  void Give(uint32_t to) {
    turn_.store(to, std::memory_order_release);
    syscall(SYS_futex, &turn_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
  void Take(uint32_t me) {
    for (;;) {
      const uint32_t seen = turn_.load(std::memory_order_acquire);
      if (seen == me) return;
      syscall(SYS_futex, &turn_, FUTEX_WAIT, seen, nullptr, nullptr, 0);
    }
  }

 private:
  std::atomic<uint32_t> turn_ = 0;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_FUTEX_TURNS_H_
