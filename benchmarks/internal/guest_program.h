// SPDX-License-Identifier: Apache-2.0
//
// The other side of `Guest` (guest.h), for guests that are written in C++.
//
//   int main(int argc, char** argv) {
//     return ServeFigures(argc, argv, {{"pool_apply", PoolApply}});
//   }

#ifndef COHORT_BENCHMARKS_INTERNAL_GUEST_PROGRAM_H_
#define COHORT_BENCHMARKS_INTERNAL_GUEST_PROGRAM_H_

#include <string>
#include <utility>
#include <vector>

#include "cohort/benchmarks/internal/row.h"

namespace cohort_benchmarks {

// Plays the figure that the first argument names, once per line of input.
// Returns the exit status for main().
int ServeFigures(int argc, char** argv,
                 const std::vector<std::pair<std::string, Player>>& figures);

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_INTERNAL_GUEST_PROGRAM_H_
