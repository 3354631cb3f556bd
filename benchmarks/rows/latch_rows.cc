// SPDX-License-Identifier: Apache-2.0
//
// The row latch/wait_open: what it costs to pass a latch that has opened. The
// peer is for the threads of one process only.

#include <cstdlib>
#include <latch>

#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/limits/entry_count.h"
#include "cohort/sync/latch.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kTimes = 30'000'000;

template <typename Latch>
struct Open {
  Latch latch{0};
};

template <typename Latch>
double WaitOpen() {
  return NanosecondsEach<Open<Latch>>(
      kTimes, [](Open<Latch>& open) { open.latch.wait(); });
}

Row LatchWaitOpen() {
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = WaitOpen<cohort::Latch>;
  row.limit_name = "an atomic load";
  row.limit = [] {
    return NanosecondsEach<EntryCount>(kTimes, [](const EntryCount& count) {
      if (count.Entered()) abort();
    });
  };
  row.peers = {{"std::latch (threads)", WaitOpen<std::latch>}};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv, {{"latch/wait_open", LatchWaitOpen}});
}
