// SPDX-License-Identifier: Apache-2.0
//
// What a pool itself costs: functions that do nothing.

#include <cstddef>
#include <numeric>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/os/or_die.h"
#include "cohort/pool/process_pool.h"
#include "cohort/process/init.h"

namespace cohort {
namespace {

int Increment(int x) { return x + 1; }

// One call at a time, there and back.
void BM_Apply(benchmark::State& state) {
  ProcessPool pool = OrDie(ProcessPool::Create({.workers = 1}));
  for (auto _ : state)
    benchmark::DoNotOptimize(OrDie(pool.Apply(Increment, 1)));
}
BENCHMARK(BM_Apply)->UseRealTime();

// Many calls under way, then all results.
void BM_SubmitAndGet(benchmark::State& state) {
  ProcessPool pool = OrDie(ProcessPool::Create({.workers = 1}));
  const size_t count = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    std::vector<Future<int>> futures;
    futures.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      futures.push_back(pool.Submit(Increment, static_cast<int>(i)));
    }
    benchmark::DoNotOptimize(OrDie(GetAll(std::move(futures))));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_SubmitAndGet)->Arg(10'000)->UseRealTime();

void BM_Map(benchmark::State& state) {
  ProcessPool pool = OrDie(ProcessPool::Create({.workers = 2}));
  std::vector<int> elements(1'000'000);
  std::iota(elements.begin(), elements.end(), 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(OrDie(pool.Map(
        Increment, elements, {.chunk = static_cast<size_t>(state.range(0))})));
  }
  state.SetItemsProcessed(state.iterations() * 1'000'000);
}
BENCHMARK(BM_Map)->ArgName("chunk")->Arg(0)->Arg(1'000)->Arg(1)->UseRealTime();

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
