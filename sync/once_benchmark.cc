// SPDX-License-Identifier: Apache-2.0
//
// What a Once costs by itself.

#include <cstdint>

#include "benchmark/benchmark.h"
#include "cohort/sync/once.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Shared;

struct Arena {
  Once once;
  int64_t guarded;
};

void BM_OnceDone(benchmark::State& state) {
  Shared<Arena> arena;
  arena->once.call([] {});
  for (auto _ : state) benchmark::DoNotOptimize(arena->once.done());
}
BENCHMARK(BM_OnceDone);

void BM_OnceCallWhenDone(benchmark::State& state) {
  Shared<Arena> arena;
  arena->once.call([] {});
  for (auto _ : state) arena->once.call([&] { ++arena->guarded; });
}
BENCHMARK(BM_OnceCallWhenDone);

// The one time that it runs.
void BM_OnceFirstCall(benchmark::State& state) {
  Shared<Arena> arena;
  for (auto _ : state) {
    new (&arena->once) Once;
    arena->once.call([&] { ++arena->guarded; });
  }
}
BENCHMARK(BM_OnceFirstCall);

}  // namespace
}  // namespace cohort
