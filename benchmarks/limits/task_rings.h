// SPDX-License-Identifier: Apache-2.0
//
// A worker process fed by one ring and emptied by another: a task is the index
// of a function and its argument. No task can be lost because nobody may die,
// and nobody sleeps.

#ifndef COHORT_BENCHMARKS_LIMITS_TASK_RINGS_H_
#define COHORT_BENCHMARKS_LIMITS_TASK_RINGS_H_

#include "absl/status/statusor.h"

namespace cohort_benchmarks {

// Tasks per second, of which up to `in_flight` (at most 1024) are under way: 1
// measures round trips.
absl::StatusOr<double> TaskRingsPerSecond(int (*function)(int), int tasks,
                                          int in_flight);

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_LIMITS_TASK_RINGS_H_
