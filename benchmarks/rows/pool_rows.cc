// SPDX-License-Identifier: Apache-2.0
//
// The rows pool/*: calls of a function that does next to nothing, so that what
// is measured is the way there and back.

#include <sched.h>

#include <numeric>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/chunked_map.h"
#include "cohort/benchmarks/limits/task_rings.h"
#include "cohort/pool/process_pool.h"
#include "cohort/process/init.h"

namespace cohort_benchmarks {
namespace {

int Increment(int x) { return x + 1; }
// Called through this, so that no player has it inlined.
int (*volatile increment)(int) = Increment;

absl::Status WrongResult() { return absl::DataLossError("wrong result"); }

// --- pool/apply: one call at a time, one worker, both hot ---

int PinWorker() {
  PinTo(kSecondCpu);
  return sched_getcpu();
}

absl::StatusOr<double> OurApply() {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  absl::StatusOr<cohort::ProcessPool> pool =
      cohort::ProcessPool::Create({.workers = 1});
  if (!pool.ok()) return pool.status();
  if (auto cpu = pool->Apply(PinWorker); !cpu.ok()) return cpu.status();
  PinTo(kFirstCpu);
  int calls = 0;
  const auto call = [&] {
    const absl::StatusOr<int> result = pool->Apply(Increment, calls++);
    if (!result.ok()) return result.status();
    return *result == calls ? absl::OkStatus() : WrongResult();
  };
  if (auto warm = NanosecondsPerCall(20'000'000, call); !warm.ok()) return warm;
  return NanosecondsPerCall(200'000'000, call);
}

absl::StatusOr<double> RingsApply() {
  absl::StatusOr<double> rate = TaskRingsPerSecond(increment, 100'000, 1);
  if (rate.ok()) rate = 1e9 / *rate;
  return rate;
}

Row PoolApply() {
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurApply;
  row.limit_name = "two processes, two rings";
  row.limit = RingsApply;
  row.peers = {
      {"TBB task_arena (threads)", Tbb("pool_apply")},
      {"Python ProcessPoolExecutor", Python("executor_apply")},
      {"Python Pool", Python("pool_apply")},
  };
  row.goals = {AtMost(5, "limit")};
  return row;
}

// --- pool/submit: many calls under way, as many workers as processors ---

absl::StatusOr<double> OurSubmit() {
  constexpr int kCalls = 200'000;
  absl::StatusOr<cohort::ProcessPool> pool = cohort::ProcessPool::Create();
  if (!pool.ok()) return pool.status();
  std::vector<cohort::Future<int>> futures;
  futures.reserve(kCalls);
  const int64_t begin = Now();
  for (int i = 0; i < kCalls; ++i) {
    futures.push_back(pool->Submit(Increment, i));
  }
  for (int i = 0; i < kCalls; ++i) {
    absl::StatusOr<int> result = futures[i].Get();
    if (!result.ok()) return result.status();
    if (*result != i + 1) return WrongResult();
  }
  return kCalls * 1e9 / static_cast<double>(Now() - begin);
}

Row PoolSubmit() {
  Row row;
  row.unit = "1/s";
  row.better = Better::kHigher;
  row.ours = OurSubmit;
  row.limit_name = "two rings, 1024 in flight";
  row.limit = [] { return TaskRingsPerSecond(increment, 1'000'000, 1024); };
  row.peers = {
      {"TBB task_group (threads)", Tbb("pool_submit")},
      {"Python ProcessPoolExecutor", Python("executor_submit")},
  };
  row.goals = {AtLeast(5e6, "")};
  return row;
}

// --- pool/map_auto, pool/map_chunk1: one function over a vector ---

absl::StatusOr<double> OurMap(int elements, cohort::MapOptions options) {
  absl::StatusOr<cohort::ProcessPool> pool = cohort::ProcessPool::Create();
  if (!pool.ok()) return pool.status();
  std::vector<int> arguments(elements);
  std::iota(arguments.begin(), arguments.end(), 0);
  // The first calls find the workers cold.
  if (auto warm = pool->Map(Increment, std::vector<int>(1000)); !warm.ok()) {
    return warm.status();
  }
  const int64_t begin = Now();
  absl::StatusOr<std::vector<int>> results =
      pool->Map(Increment, arguments, options);
  const int64_t took = Now() - begin;
  if (!results.ok()) return results.status();
  for (int& argument : arguments) ++argument;
  if (*results != arguments) return WrongResult();
  return elements * 1e9 / static_cast<double>(took);
}

Row PoolMapAuto() {
  Row row;
  row.unit = "1/s";
  row.better = Better::kHigher;
  row.ours = [] { return OurMap(1'000'000, {}); };
  row.limit_name = "two processes, shared counter, chunks of 1000";
  row.limit = [] { return ChunkedMapPerSecond(increment, 1'000'000, 1000); };
  row.peers = {
      {"TBB parallel_for (threads)", Tbb("pool_map")},
      {"Python Pool", Python("pool_map")},
  };
  row.goals = {AtLeast(0.5, "limit")};
  return row;
}

Row PoolMapChunk1() {
  Row row;
  row.unit = "1/s";
  row.better = Better::kHigher;
  row.ours = [] { return OurMap(200'000, {.chunk = 1}); };
  row.limit_name = "two processes, shared counter, one by one";
  row.limit = [] { return ChunkedMapPerSecond(increment, 1'000'000, 1); };
  row.peers = {
      {"TBB parallel_for, grain 1 (threads)", Tbb("pool_map_by_one")},
      {"Python Pool", Python("pool_map_by_one")},
  };
  row.goals = {AtLeast(5e6, "")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv,
                 {{"pool/apply", PoolApply},
                  {"pool/submit", PoolSubmit},
                  {"pool/map_auto", PoolMapAuto},
                  {"pool/map_chunk1", PoolMapChunk1}});
}
