// SPDX-License-Identifier: Apache-2.0
//
// What a CountingSemaphore costs by itself. Its peers and its limit run the
// same work in //benchmarks.

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/sync/counting_semaphore.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

// One permit taken and given back while `rivals` other processes do nothing but
// the same. Zero rivals is the price of admission.
void BM_CountingSemaphore(benchmark::State& state) {
  struct Arena {
    CountingSemaphore semaphore{1};
    alignas(64) std::atomic<bool> stop = false;
  };
  Shared<Arena> arena(std::in_place);
  std::vector<Child> rivals;
  for (int i = 0; i < state.range(0); ++i) {
    rivals.push_back(Child::Fork([&] {
      while (!arena->stop) {
        arena->semaphore.acquire();
        arena->semaphore.release();
      }
    }));
  }
  for (auto _ : state) {
    arena->semaphore.acquire();
    arena->semaphore.release();
  }
  arena->stop = true;
  for (Child& rival : rivals) rival.Wait();
}
BENCHMARK(BM_CountingSemaphore)
    ->ArgName("rivals")
    ->Arg(0)
    ->Arg(1)
    ->Arg(3)
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

// A signal there and one back.
void BM_CountingSemaphorePingPong(benchmark::State& state) {
  struct Two {
    CountingSemaphore there;
    alignas(64) CountingSemaphore back;
    std::atomic<bool> stop;
  };
  Shared<Two> two;
  Child peer = Child::Fork([&] {
    for (;;) {
      two->there.acquire();
      if (two->stop) return;
      two->back.release();
    }
  });
  for (auto _ : state) {
    two->there.release();
    two->back.acquire();
  }
  two->stop = true;
  two->there.release();
  peer.Wait();
}
BENCHMARK(BM_CountingSemaphorePingPong)->UseRealTime();

// A count that differs at each acquire: every guess is wrong.
void BM_CountingSemaphoreOfThree(benchmark::State& state) {
  Shared<CountingSemaphore> semaphore(std::in_place, 3);
  for (auto _ : state) {
    for (int i = 0; i < 3; ++i) semaphore->acquire();
    semaphore->release(3);
  }
}
BENCHMARK(BM_CountingSemaphoreOfThree);

}  // namespace
}  // namespace cohort
