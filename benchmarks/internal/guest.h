// SPDX-License-Identifier: Apache-2.0
//
// A `Guest` is a peer that lives in a program of its own: another language, or
// a library that need not be installed. The program is started when its first
// figure is asked for and then plays once per line that it reads, so that it
// can take its turn among the players of a row.
//
//   row.peers = {{"Python Pool", Python("pool_apply")}};
//
// The program prints `ready`, then for each line of input a number or a line
// `error: REASON`. It ends at the end of its input.

#ifndef COHORT_BENCHMARKS_INTERNAL_GUEST_H_
#define COHORT_BENCHMARKS_INTERNAL_GUEST_H_

#include <string>
#include <vector>

#include "cohort/benchmarks/internal/row.h"

namespace cohort_benchmarks {

// A player that runs `command`, whose first word is a path.
Player Guest(std::vector<std::string> command);

// The programs of benchmarks/peers/. They are looked for in the folder that the
// environment names as COHORT_BENCHMARK_PEERS, else in `../peers` beside the
// program that asks. `figure` names what to measure.
Player Python(const std::string& figure);
Player Boost(const std::string& figure);
Player Tbb(const std::string& figure);

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_INTERNAL_GUEST_H_
