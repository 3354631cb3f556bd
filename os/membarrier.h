// SPDX-License-Identifier: Apache-2.0
//
// Half of a fence: one side of a hand-shake runs a full memory barrier on
// behalf of the other, which then needs none. For pairs of which one side is
// frequent and the other rare.
//
//   // Frequent:                            // Rare:
//   word.store(0, release);                 watch.store(1);
//   std::atomic_signal_fence(seq_cst);      os::BarrierForAll();
//   if (watch.load() != 0) Wake();          if (word.load() != 0) Sleep();
//
// Not both can miss what the other stored, provided that the process of the
// frequent side had joined.

#ifndef COHORT_OS_MEMBARRIER_H_
#define COHORT_OS_MEMBARRIER_H_

namespace cohort::os {

// Lets BarrierForAll() of any process reach all threads of this one, from now
// on; children of fork() inherit it, execve() ends it. False where the kernel
// refuses: then this process needs fences of its own. Takes a microsecond in a
// process with one thread and some 10 ms in others, but only once.
[[nodiscard]] bool JoinBarriers();

// Returns when each thread of each process that has joined was at a full memory
// barrier since the call. Where the kernel refuses that to the caller, waits a
// millisecond: far longer than any processor keeps a store to itself.
void BarrierForAll();

}  // namespace cohort::os

#endif  // COHORT_OS_MEMBARRIER_H_
