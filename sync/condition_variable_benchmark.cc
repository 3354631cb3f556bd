// SPDX-License-Identifier: Apache-2.0
//
// What a ConditionVariable costs by itself. Its peers and its limits run the
// same work in //benchmarks.

#include "benchmark/benchmark.h"
#include "cohort/os/deadline.h"
#include "cohort/sync/condition_variable.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

// There and back between two processes on one condition variable.
void BM_ConditionVariableHandOff(benchmark::State& state) {
  struct Table {
    Mutex mu;
    ConditionVariable changed;
    int turn;
    bool stop;
  };
  Shared<Table> table;
  Child other = Child::Fork([&] {
    MutexLock lock(table->mu);
    for (;;) {
      while (table->turn != 1) table->changed.wait(lock);
      table->turn = 0;
      table->changed.notify_one();
      if (table->stop) return;
    }
  });
  for (auto _ : state) {
    MutexLock lock(table->mu);
    table->turn = 1;
    table->changed.notify_one();
    while (table->turn != 0) table->changed.wait(lock);
  }
  {
    MutexLock lock(table->mu);
    table->stop = true;
    table->turn = 1;
    table->changed.notify_one();
  }
  (void)other.Wait();
}
BENCHMARK(BM_ConditionVariableHandOff)->UseRealTime();

void BM_ConditionVariableNotifyNobody(benchmark::State& state) {
  Shared<ConditionVariable> changed;
  for (auto _ : state) changed->notify_one();
}
BENCHMARK(BM_ConditionVariableNotifyNobody);

// A wait that is over at once: registering, leaving, and the mutex.
void BM_ConditionVariableWaitOfNoTime(benchmark::State& state) {
  struct Table {
    Mutex mu;
    ConditionVariable changed;
  };
  Shared<Table> table;
  MutexLock lock(table->mu);
  for (auto _ : state) {
    benchmark::DoNotOptimize(table->changed.wait_until(lock, Deadline::Now()));
  }
}
BENCHMARK(BM_ConditionVariableWaitOfNoTime);

}  // namespace
}  // namespace cohort
