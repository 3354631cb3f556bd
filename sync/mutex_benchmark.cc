// SPDX-License-Identifier: Apache-2.0
//
// What a Mutex costs by itself. Its peers and its limit run the same work in
// //benchmarks.

#include <atomic>
#include <cstdint>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

// One critical section while `rivals` other processes do nothing but the same.
// Zero rivals is the price of admission.
void BM_Mutex(benchmark::State& state) {
  struct Arena {
    Mutex mu;
    int64_t guarded;
    alignas(64) std::atomic<bool> stop;
  };
  Shared<Arena> arena;
  std::vector<Child> rivals;
  for (int i = 0; i < state.range(0); ++i) {
    rivals.push_back(Child::Fork([&] {
      while (!arena->stop) {
        MutexLock lock(arena->mu);
        ++arena->guarded;
      }
    }));
  }
  for (auto _ : state) {
    MutexLock lock(arena->mu);
    ++arena->guarded;
  }
  arena->stop = true;
  for (Child& rival : rivals) rival.Wait();
}
BENCHMARK(BM_Mutex)->ArgName("rivals")->Arg(0)->Arg(1)->Arg(3)->UseRealTime();

void BM_MutexTryLock(benchmark::State& state) {
  Shared<Mutex> mu;
  for (auto _ : state) {
    if (mu->try_lock()) mu->unlock();
  }
}
BENCHMARK(BM_MutexTryLock);

// A second lock while the first is held, freed in the order of taking: the
// longer way of the robust list.
void BM_MutexUnlockedOutOfOrder(benchmark::State& state) {
  struct Two {
    Mutex first;
    alignas(64) Mutex second;
  };
  Shared<Two> two;
  for (auto _ : state) {
    two->first.lock();
    two->second.lock();
    two->first.unlock();
    two->second.unlock();
  }
}
BENCHMARK(BM_MutexUnlockedOutOfOrder);

}  // namespace
}  // namespace cohort
