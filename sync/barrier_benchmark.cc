// SPDX-License-Identifier: Apache-2.0
//
// What a Barrier costs by itself. Its peers and its limit run the same work in
// //benchmarks.

#include <sched.h>

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "cohort/os/check.h"
#include "cohort/sync/barrier.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

// Each on a processor of its own: else the scheduler would be measured.
void Bind(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  sched_setaffinity(0, sizeof set, &set);
}

// Round after round among so many processes, which do nothing else.
template <typename Arrive>
void Rounds(benchmark::State& state, Arrive arrive) {
  const int parties = static_cast<int>(state.range(0));
  Shared<Barrier> barrier(std::in_place, parties);
  cpu_set_t before;
  sched_getaffinity(0, sizeof before, &before);
  std::vector<Child> others;
  for (int i = 1; i < parties; ++i) {
    others.push_back(Child::Fork([&, i] {
      Bind(i);
      while (arrive(*barrier).ok()) {
      }
    }));
  }
  if (parties > 1) Bind(0);
  for (auto _ : state) {
    os::Check(arrive(*barrier).ok(), "barrier_benchmark: a round broke");
  }
  barrier->abort();
  for (Child& other : others) other.Wait();
  sched_setaffinity(0, sizeof before, &before);
}

void BM_BarrierRound(benchmark::State& state) {
  Rounds(state, [](Barrier& barrier) { return barrier.arrive_and_wait(); });
}
BENCHMARK(BM_BarrierRound)->ArgName("parties")->Arg(1)->Arg(2)->UseRealTime();

void BM_BarrierRoundWithAction(benchmark::State& state) {
  Rounds(state,
         [](Barrier& barrier) { return barrier.arrive_and_wait([] {}); });
}
BENCHMARK(BM_BarrierRoundWithAction)
    ->ArgName("parties")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime();

}  // namespace
}  // namespace cohort
