// SPDX-License-Identifier: Apache-2.0
//
// `cohort::UsableCpus` says how many processors this process can keep busy: how
// many workers are worth starting.
//
//   const int workers = cohort::UsableCpus();
//
// `std::thread::hardware_concurrency` counts what the machine has, although a
// container may be given a part of it only.

#ifndef COHORT_PROCESS_CPU_BUDGET_H_
#define COHORT_PROCESS_CPU_BUDGET_H_

#include <string>

namespace cohort {

// Returns the number of processors of the calling thread's affinity mask, or
// what the CPU quotas of its control groups amount to (rounded up) where that
// is less; at least 1. Honours the quota of every group from the process's own
// up to the root, of cgroup v2 and of v1. What can't be read sets no limit.
//
// Contract
//   Placement:      a function; no object.
//   Thread-safety:  any thread.
//   Process-safety: the answer is the calling thread's own.
//   Fork-safety:    safe in a child.
//   Crash-safety:   no state.
//   Signal-safety:  none.
//   Errors:         none; unreadable files mean no limit.
//   Ordering:       none.
//   Cost:           reads some ten small files: tens of microseconds. Ask once.
//   Reference:      sched_getaffinity(2); cpu.max and cpu.cfs_quota_us in the
//                   kernel's cgroup documents.
[[nodiscard]] int UsableCpus();

namespace process_internal {

// What the quotas allow, read from the file tree below `root` ("" is the real
// one); 0 is no limit.
int CpuQuota(const std::string& root);

}  // namespace process_internal
}  // namespace cohort

#endif  // COHORT_PROCESS_CPU_BUDGET_H_
