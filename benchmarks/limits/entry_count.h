// SPDX-License-Identifier: Apache-2.0
//
// Two atomic read-modify-writes of one word: one to go in, one to come out. The
// least for whatever counts who is inside. Nobody waits here, and who dies
// inside is counted for ever.

#ifndef COHORT_BENCHMARKS_LIMITS_ENTRY_COUNT_H_
#define COHORT_BENCHMARKS_LIMITS_ENTRY_COUNT_H_

#include <atomic>
#include <cstdint>

namespace cohort_benchmarks {

class EntryCount final {
 public:
  void Enter() { inside_.fetch_add(1, std::memory_order_acquire); }
  void Leave() { inside_.fetch_sub(1, std::memory_order_release); }

  // One load.
  [[nodiscard]] bool Entered() const {
    return inside_.load(std::memory_order_acquire) != 0;
  }

 private:
  std::atomic<uint32_t> inside_ = 0;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_ENTRY_COUNT_H_
