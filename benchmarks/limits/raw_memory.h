// SPDX-License-Identifier: Apache-2.0
//
// A page of shared memory from its making to its end by bare system calls.

#ifndef COHORT_BENCHMARKS_LIMITS_RAW_MEMORY_H_
#define COHORT_BENCHMARKS_LIMITS_RAW_MEMORY_H_

#include "absl/status/status.h"

namespace cohort_benchmarks {

// memfd_create(2), sized, mapped, touched, unmapped, closed: 4096 bytes.
absl::Status MakeAndDropMemfd();

// The same with a name: shm_open(3), and shm_unlink(3) at the end.
absl::Status MakeAndUnlinkShm();

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_RAW_MEMORY_H_
