// SPDX-License-Identifier: Apache-2.0
//
// What a Latch costs by itself.

#include <new>
#include <utility>

#include "benchmark/benchmark.h"
#include "cohort/sync/latch.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Shared;

void BM_LatchCountDown(benchmark::State& state) {
  Shared<Latch> latch(std::in_place, Latch::max());
  for (auto _ : state) latch->count_down();
}
BENCHMARK(BM_LatchCountDown);

// A new one each time, opened without a sleeper.
void BM_LatchCountDownOpens(benchmark::State& state) {
  Shared<Latch> latch;
  for (auto _ : state) {
    new (latch.get()) Latch(1);
    latch->arrive_and_wait();
  }
}
BENCHMARK(BM_LatchCountDownOpens);

void BM_LatchWaitOpen(benchmark::State& state) {
  Shared<Latch> latch;
  for (auto _ : state) latch->wait();
}
BENCHMARK(BM_LatchWaitOpen);

}  // namespace
}  // namespace cohort
