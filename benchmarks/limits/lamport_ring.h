// SPDX-License-Identifier: Apache-2.0
//
// Lamport's ring for one producer and one consumer, each of which keeps a copy
// of the other's index and reads the real one only where the copy says that it
// cannot go on. It spins, and nothing of it survives a kill.

#ifndef COHORT_BENCHMARKS_LIMITS_LAMPORT_RING_H_
#define COHORT_BENCHMARKS_LIMITS_LAMPORT_RING_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

template <typename T, uint64_t kSlots>
class LamportRing final {
 public:
  void Push(const T& value) {
    const uint64_t at = produced_.index.load(std::memory_order_relaxed);
    while (at - produced_.other == kSlots) {
      produced_.other = consumed_.index.load(std::memory_order_acquire);
      if (at - produced_.other == kSlots) cohort::os::CpuRelax();
    }
    slots_[at % kSlots] = value;
    produced_.index.store(at + 1, std::memory_order_release);
  }

  // Returns false where it is empty.
  bool TryPop(T& value) {
    const uint64_t at = consumed_.index.load(std::memory_order_relaxed);
    if (at == consumed_.other) {
      consumed_.other = produced_.index.load(std::memory_order_acquire);
      if (at == consumed_.other) return false;
    }
    value = slots_[at % kSlots];
    consumed_.index.store(at + 1, std::memory_order_release);
    return true;
  }

  void Pop(T& value) {
    while (!TryPop(value)) cohort::os::CpuRelax();
  }

 private:
  struct alignas(128) Side {
    std::atomic<uint64_t> index = 0;
    uint64_t other = 0;  // The other side's index, as last seen.
  };
  Side produced_;
  Side consumed_;
  alignas(128) std::array<T, kSlots> slots_ = {};
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_LAMPORT_RING_H_
