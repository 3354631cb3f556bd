// SPDX-License-Identifier: Apache-2.0
//
// What a spinning wait needs to know about processors.
//
//   for (int i = 0; i < 100 && os::RivalsCanRun() && !ready; ++i) {
//     os::CpuRelax();
//   }

#ifndef COHORT_OS_CPU_H_
#define COHORT_OS_CPU_H_

namespace cohort::os {

// Tells the processor that this is a spinning loop: it yields to its hyper-twin
// and leaves the loop without a mis-speculation.
inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#else
#error "Cohort is for x86-64 and aarch64"
#endif
}

// Ask for the cache line at `at` ahead of its use; the first, as one that will
// be written. Hints, which read nothing: any address will do.
inline void PrefetchForWrite(const void* at) {
#if defined(__x86_64__)
  // Compilers take another instruction unless told that this processor has it;
  // all that lack it treat it as none.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
#else
  __builtin_prefetch(at, 1);
#endif
}
inline void PrefetchForRead(const void* at) { __builtin_prefetch(at, 0); }

// Returns how many processors the calling thread may run on (its affinity mask
// now); at least 1. One system call.
[[nodiscard]] int UsableCpus();

// Returns true where somebody else can run while the calling thread spins: it
// may run on several processors, or the program could when it started. A thread
// that was bound to one since, as those are that must answer fast, most likely
// has its rivals on others. One system call at most.
[[nodiscard]] bool RivalsCanRun();

}  // namespace cohort::os

#endif  // COHORT_OS_CPU_H_
