// SPDX-License-Identifier: Apache-2.0
//
// The rows shared_value/*: what it costs to add one to a number in shared
// memory, under its lock and without.

#include <atomic>
#include <cstdint>

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/peers/pthread_mutex.h"
#include "cohort/ipc/shared_value.h"
#include "cohort/os/or_die.h"
#include "cohort/sync/mutex.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kIncrements = 3'000'000;

struct OurValue {
  cohort::SharedValue<int> hits =
      cohort::OrDie(cohort::SharedValue<int>::Create(0));
};

double OurIncrement() {
  return NanosecondsEach<OurValue>(kIncrements, [](OurValue& value) {
    cohort::OrDie(value.hits.With([](int& n) { ++n; }));
  });
}

double OurMutex() {
  return NanosecondsEach<cohort::Mutex>(
      kIncrements, [](cohort::Mutex& mu) { cohort::MutexLock lock(mu); });
}

template <bool kRobust>
struct Guarded {
  PthreadMutex<kRobust> mu;
  volatile int hits = 0;
};

template <bool kRobust>
double PthreadIncrement() {
  return NanosecondsEach<Guarded<kRobust>>(kIncrements,
                                           [](Guarded<kRobust>& value) {
                                             value.mu.lock();
                                             value.hits = value.hits + 1;
                                             value.mu.unlock();
                                           });
}

Row Increment() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurIncrement;
  row.limit_name = "cohort::Mutex: lock + unlock";
  row.limit = OurMutex;
  row.peers = {
      {"pthread pshared", PthreadIncrement</*kRobust=*/false>},
      {"pthread robust", PthreadIncrement</*kRobust=*/true>},
      {"Boost.Interprocess", Boost("value_increment")},
      {"Python Value", Python("value_increment")},
  };
  row.goals = {AtMost(1.3, "limit")};
  return row;
}

double OurAtomic() {
  return NanosecondsEach<OurValue>(kIncrements, [](OurValue& value) {
    value.hits.atomic().fetch_add(1, std::memory_order_relaxed);
  });
}

double FetchAdd() {
  return NanosecondsEach<std::atomic<int>>(
      kIncrements, [](std::atomic<int>& hits) {
        hits.fetch_add(1, std::memory_order_relaxed);
      });
}

Row Atomic() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurAtomic;
  row.limit_name = "fetch_add";
  row.limit = FetchAdd;
  row.goals = {AtMost(1.1, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(
      argc, argv,
      {{"shared_value/increment", Increment}, {"shared_value/atomic", Atomic}});
}
