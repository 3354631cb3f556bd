// SPDX-License-Identifier: Apache-2.0
//
// What a BoundedSemaphore costs by itself: as much as a Semaphore.

#include <utility>

#include "benchmark/benchmark.h"
#include "cohort/sync/bounded_semaphore.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

void BM_BoundedSemaphore(benchmark::State& state) {
  cohort_testing::Shared<BoundedSemaphore> semaphore(std::in_place, 1);
  for (auto _ : state) {
    semaphore->acquire();
    benchmark::DoNotOptimize(semaphore->release());
  }
}
BENCHMARK(BM_BoundedSemaphore);

// A release that is an error.
void BM_BoundedSemaphoreReleaseOfTooMuch(benchmark::State& state) {
  cohort_testing::Shared<BoundedSemaphore> semaphore(std::in_place, 1);
  for (auto _ : state) benchmark::DoNotOptimize(semaphore->release());
}
BENCHMARK(BM_BoundedSemaphoreReleaseOfTooMuch);

}  // namespace
}  // namespace cohort
