// SPDX-License-Identifier: Apache-2.0
//
// What an Event costs by itself. Its peers and its limit run the same work in
// //benchmarks.

#include "benchmark/benchmark.h"
#include "cohort/sync/event.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

void BM_EventSetAndClear(benchmark::State& state) {
  Shared<Event> event;
  for (auto _ : state) {
    event->set();
    event->clear();
  }
}
BENCHMARK(BM_EventSetAndClear);

void BM_EventIsSet(benchmark::State& state) {
  Shared<Event> event;
  for (auto _ : state) benchmark::DoNotOptimize(event->is_set());
}
BENCHMARK(BM_EventIsSet);

// There and back between two processes, with an event each way.
void BM_EventPingPong(benchmark::State& state) {
  struct Arena {
    alignas(64) Event ping;
    alignas(64) Event pong;
    bool stop;
  };
  Shared<Arena> arena;
  Child echo = Child::Fork([&] {
    for (;;) {
      arena->ping.wait();
      arena->ping.clear();
      if (arena->stop) return;
      arena->pong.set();
    }
  });
  for (auto _ : state) {
    arena->ping.set();
    arena->pong.wait();
    arena->pong.clear();
  }
  arena->stop = true;
  arena->ping.set();
  (void)echo.Wait();
}
BENCHMARK(BM_EventPingPong)->UseRealTime();

}  // namespace
}  // namespace cohort
