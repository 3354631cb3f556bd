// SPDX-License-Identifier: Apache-2.0
//
// What a RecursiveMutex costs by itself.

#include "absl/base/thread_annotations.h"
#include "benchmark/benchmark.h"
#include "cohort/sync/recursive_mutex.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Shared;

void BM_RecursiveMutex(benchmark::State& state) {
  Shared<RecursiveMutex> mu;
  for (auto _ : state) RecursiveMutexLock lock(*mu);
}
BENCHMARK(BM_RecursiveMutex);

// By its holder.
void BM_RecursiveMutexAgain(benchmark::State& state)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  RecursiveMutexLock outer(*mu);
  for (auto _ : state) RecursiveMutexLock lock(*mu);
}
BENCHMARK(BM_RecursiveMutexAgain);

void BM_RecursiveMutexLetGoOfAll(benchmark::State& state)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  mu->lock_all(3);
  for (auto _ : state) mu->lock_all(mu->unlock_all());
  (void)mu->unlock_all();
}
BENCHMARK(BM_RecursiveMutexLetGoOfAll);

}  // namespace
}  // namespace cohort
