// SPDX-License-Identifier: Apache-2.0
//
// A process from its start to its end by bare system calls.

#ifndef COHORT_BENCHMARKS_LIMITS_RAW_PROCESS_H_
#define COHORT_BENCHMARKS_LIMITS_RAW_PROCESS_H_

#include "absl/status/status.h"

namespace cohort_benchmarks {

// fork(2), _exit(2) in the child, waitpid(2).
absl::Status ForkAndWait();

// posix_spawn(3) of `path` with the one argument, waitpid(2). The program must
// end with status 0.
absl::Status SpawnAndWait(const char* path, const char* argument);

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_RAW_PROCESS_H_
