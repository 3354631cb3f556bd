// SPDX-License-Identifier: Apache-2.0
//
// oneTBB in the workloads of our rows: threads, which need no process border,
// die together and share everything. Needs libtbb-dev.

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <atomic>
#include <cstddef>
#include <vector>

#include "cohort/benchmarks/internal/guest_program.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/os/cpu.h"

namespace cohort_benchmarks {
namespace {

int Increment(int x) { return x + 1; }
int (*volatile increment)(int) = Increment;

// One task at a time: enqueued, run by a worker, its result seen.
absl::StatusOr<double> PoolApply() {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  constexpr int kTasks = 20'000;
  tbb::task_arena arena(2);
  arena.initialize();
  std::atomic<int> result = 0;
  int64_t begin = 0;
  for (int i = -kTasks / 20; i < kTasks; ++i) {
    if (i == 0) begin = Now();
    result.store(-1);
    arena.enqueue([&result] { result.store(increment(1)); });
    while (result.load() < 0) cohort::os::CpuRelax();
  }
  return static_cast<double>(Now() - begin) / kTasks;
}

absl::StatusOr<double> PoolSubmit() {
  constexpr int kTasks = 200'000;
  std::vector<int> results(kTasks);
  tbb::task_group group;
  const int64_t begin = Now();
  for (int i = 0; i < kTasks; ++i) {
    group.run([&results, i] { results[i] = increment(i); });
  }
  group.wait();
  return kTasks * 1e9 / static_cast<double>(Now() - begin);
}

template <typename Partitioner>
absl::StatusOr<double> PoolMap() {
  constexpr int kElements = 1'000'000;
  std::vector<int> results(kElements);
  const int64_t begin = Now();
  tbb::parallel_for(
      tbb::blocked_range<int>(0, kElements),
      [&](const tbb::blocked_range<int>& range) {
        int (*const function)(int) = increment;
        for (int i = range.begin(); i < range.end(); ++i) {
          results[i] = function(i);
        }
      },
      Partitioner());
  return kElements * 1e9 / static_cast<double>(Now() - begin);
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return ServeFigures(argc, argv,
                      {{"pool_apply", PoolApply},
                       {"pool_submit", PoolSubmit},
                       {"pool_map", PoolMap<tbb::auto_partitioner>},
                       {"pool_map_by_one", PoolMap<tbb::simple_partitioner>}});
}
