// SPDX-License-Identifier: Apache-2.0
//
// What a Semaphore costs by itself. Its peers and its limit run the same work
// in //benchmarks.

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/sync/semaphore.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Gate;
using cohort_testing::Shared;

// One permit of `permits` taken and given back while `rivals` other processes
// do nothing but the same. Zero rivals is the price of admission.
void BM_Semaphore(benchmark::State& state) {
  struct Arena {
    explicit Arena(int64_t permits) : semaphore(permits) {}

    Semaphore semaphore;
    alignas(64) std::atomic<bool> stop = false;
  };
  Shared<Arena> arena(std::in_place, state.range(1));
  std::vector<Child> rivals;
  for (int i = 0; i < state.range(0); ++i) {
    rivals.push_back(Child::Fork([&] {
      while (!arena->stop) SemaphoreLock lock(arena->semaphore);
    }));
  }
  for (auto _ : state) SemaphoreLock lock(arena->semaphore);
  arena->stop = true;
  for (Child& rival : rivals) rival.Wait();
}
BENCHMARK(BM_Semaphore)
    ->ArgNames({"rivals", "permits"})
    ->Args({0, 1})
    ->Args({1, 1})
    ->Args({1, 2})
    ->Args({3, 2})
    ->UseRealTime();

// The limit of the row without rivals.
void BM_TwoReadModifyWrites(benchmark::State& state) {
  Shared<std::atomic<uint32_t>> word;
  for (auto _ : state) {
    word->fetch_add(1, std::memory_order_acquire);
    word->fetch_sub(1, std::memory_order_release);
  }
}
BENCHMARK(BM_TwoReadModifyWrites);

// Asking the kernel about so many holders, none of which is dead.
void BM_SemaphoreReclaim(benchmark::State& state) {
  struct Arena {
    Semaphore semaphore{128};
    Gate gate;
  };
  Shared<Arena> arena(std::in_place);
  std::vector<Child> holders;
  for (int i = 0; i < state.range(0); ++i) {
    holders.push_back(Child::Fork([&] {
      SemaphoreLock lock(arena->semaphore);
      arena->gate.Pass();
    }));
    holders.back().AwaitAsleepInFutex();
  }
  for (auto _ : state) benchmark::DoNotOptimize(arena->semaphore.reclaim());
  arena->gate.Open();
  for (Child& holder : holders) holder.Wait();
}
BENCHMARK(BM_SemaphoreReclaim)->ArgName("holders")->Arg(0)->Arg(1)->Arg(64);

}  // namespace
}  // namespace cohort
