// SPDX-License-Identifier: Apache-2.0
//
// A `Row` of the benchmark table: one workload, played by us, by the physical
// limit and by the peers, in turn (A B C A B C ...), so that a drift of the
// machine hits all of them alike.
//
//   cohort_benchmarks::Row Uncontended() {
//     Row row;
//     row.unit = "ns";
//     row.better = Better::kLower;
//     row.ours = [] { return TimeOurLock(); };
//     row.limit_name = "xchg";
//     row.limit = [] { return TimeExchange(); };
//     row.peers = {{"pthread pshared", [] { return TimePthread(); }}};
//     row.goals = {AtMost(1.35, "limit")};
//     return row;
//   }
//   int main(int argc, char** argv) {
//     return RunRows(argc, argv, {{"mutex/uncontended", Uncontended}});
//   }
//
// A program of rows takes `--list`, or `--row=NAME --repetitions=N` with any
// number of `--skip=PLAYER`, and says on standard output, one JSON object per
// line, whom it measures and each figure when it has it. `tools/bench` runs the
// programs, takes medians and prints the table: a player that hangs or dies
// costs its own figure only.

#ifndef COHORT_BENCHMARKS_INTERNAL_ROW_H_
#define COHORT_BENCHMARKS_INTERNAL_ROW_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort_benchmarks {

// Plays the workload once and returns the figure in the row's unit, or says why
// there is none. A failure ends the player's part in the row.
using Player = std::function<absl::StatusOr<double>()>;

enum class Better { kLower, kHigher };

// What GOALS ask of our figure, in terms of another figure of the same row.
struct Goal {
  bool at_most = true;
  double factor = 0;
  std::string against;  // "limit", a peer's name, or "" for the unit itself.
};
Goal AtMost(double factor, std::string against);
Goal AtLeast(double factor, std::string against);

struct Row {
  std::string unit;  // "ns", "1/s" or "B/s".
  Better better = Better::kLower;
  Player ours;
  std::string limit_name;
  Player limit;
  std::vector<std::pair<std::string, Player>> peers;
  std::vector<Goal> goals;  // All must hold.
};

// `make` is called only where the row is wanted, and after main() has begun.
struct NamedRow {
  std::string name;
  std::function<Row()> make;
};

// Returns the exit status for main(): 2 for a wrong command line, else 0.
int RunRows(int argc, char** argv, const std::vector<NamedRow>& rows);

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_INTERNAL_ROW_H_
