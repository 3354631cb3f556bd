// SPDX-License-Identifier: Apache-2.0
//
// A map over shared memory by two processes that draw chunks from one counter:
// no arguments are copied, nobody can die, and nobody is told.

#ifndef COHORT_BENCHMARKS_LIMITS_CHUNKED_MAP_H_
#define COHORT_BENCHMARKS_LIMITS_CHUNKED_MAP_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace cohort_benchmarks {

// Calls of `function` per second: `elements` calls, drawn in chunks.
absl::StatusOr<double> ChunkedMapPerSecond(int (*function)(int), int elements,
                                           int chunk);

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_CHUNKED_MAP_H_
