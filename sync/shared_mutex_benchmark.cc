// SPDX-License-Identifier: Apache-2.0
//
// What a SharedMutex costs by itself. Its peers and its limit run the same work
// in //benchmarks.

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/sync/shared_mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

struct Arena {
  SharedMutex mu;
  int64_t guarded;
  alignas(64) std::atomic<bool> stop;
};

// Measures `work` while `count` other processes do nothing but `rival`.
void Among(benchmark::State& state, Arena& arena, int64_t count,
           const std::function<void()>& rival,
           const std::function<void()>& work) {
  std::vector<Child> rivals;
  for (int i = 0; i < count; ++i) {
    rivals.push_back(Child::Fork([&] {
      while (!arena.stop) rival();
    }));
  }
  for (auto _ : state) work();
  arena.stop = true;
  for (Child& child : rivals) child.Wait();
}

// One section of a reader. Zero rivals is the price of admission.
void BM_SharedMutexRead(benchmark::State& state) {
  Shared<Arena> arena;
  for (auto _ : state) {
    SharedMutexReaderLock lock(arena->mu);
    benchmark::DoNotOptimize(arena->guarded);
  }
}
BENCHMARK(BM_SharedMutexRead);

void BM_SharedMutexReadAmongReaders(benchmark::State& state) {
  Shared<Arena> arena;
  auto read = [&] {
    SharedMutexReaderLock lock(arena->mu);
    benchmark::DoNotOptimize(arena->guarded);
  };
  Among(state, *arena, state.range(0), read, read);
}
BENCHMARK(BM_SharedMutexReadAmongReaders)
    ->ArgName("rivals")
    ->Arg(1)
    ->Arg(3)
    ->UseRealTime();

// One section of a writer, where nobody has read since the last.
void BM_SharedMutexWrite(benchmark::State& state) {
  Shared<Arena> arena;
  for (auto _ : state) {
    SharedMutexLock lock(arena->mu);
    ++arena->guarded;
  }
}
BENCHMARK(BM_SharedMutexWrite);

// One of each in turn: the writer looks at all slots.
void BM_SharedMutexReadThenWrite(benchmark::State& state) {
  Shared<Arena> arena;
  for (auto _ : state) {
    {
      SharedMutexReaderLock lock(arena->mu);
      benchmark::DoNotOptimize(arena->guarded);
    }
    SharedMutexLock lock(arena->mu);
    ++arena->guarded;
  }
}
BENCHMARK(BM_SharedMutexReadThenWrite);

void BM_SharedMutexReadAmongWriters(benchmark::State& state) {
  Shared<Arena> arena;
  Among(
      state, *arena, state.range(0),
      [&] {
        SharedMutexLock lock(arena->mu);
        ++arena->guarded;
      },
      [&] {
        SharedMutexReaderLock lock(arena->mu);
        benchmark::DoNotOptimize(arena->guarded);
      });
}
BENCHMARK(BM_SharedMutexReadAmongWriters)
    ->ArgName("rivals")
    ->Arg(1)
    ->UseRealTime();

void BM_SharedMutexWriteAmongReaders(benchmark::State& state) {
  Shared<Arena> arena;
  Among(
      state, *arena, state.range(0),
      [&] {
        SharedMutexReaderLock lock(arena->mu);
        benchmark::DoNotOptimize(arena->guarded);
      },
      [&] {
        SharedMutexLock lock(arena->mu);
        ++arena->guarded;
      });
}
BENCHMARK(BM_SharedMutexWriteAmongReaders)
    ->ArgName("rivals")
    ->Arg(1)
    ->Arg(6)
    ->UseRealTime();

}  // namespace
}  // namespace cohort
