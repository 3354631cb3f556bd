// SPDX-License-Identifier: Apache-2.0
//
// The row recursive_mutex/uncontended: an empty critical section, not nested.

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/exchange_lock.h"
#include "cohort/benchmarks/peers/pthread_mutex.h"
#include "cohort/sync/recursive_mutex.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kSections = 3'000'000;

template <typename Lock>
double Uncontended() {
  return NanosecondsEach<Lock>(kSections, [](Lock& lock) {
    lock.lock();
    lock.unlock();
  });
}

double OurUncontended() {
  using cohort::RecursiveMutex;
  return NanosecondsEach<RecursiveMutex>(kSections, [](RecursiveMutex& mu) {
    cohort::RecursiveMutexLock lock(mu);
  });
}

Row RecursiveMutexUncontended() {
  HaveSecondThread();
  constexpr bool kRecursive = true;
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurUncontended;
  row.limit_name = "xchg: exchange + release store";
  row.limit = Uncontended<ExchangeLock>;
  row.peers = {
      {"pthread pshared",
       Uncontended<PthreadMutex</*kRobust=*/false, kRecursive>>},
      {"pthread robust",
       Uncontended<PthreadMutex</*kRobust=*/true, kRecursive>>},
      {"Boost.Interprocess", Boost("recursive_mutex_uncontended")},
      {"Python RLock", Python("recursive_mutex_uncontended")},
  };
  row.goals = {AtMost(1.4, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv,
                 {{"recursive_mutex/uncontended", RecursiveMutexUncontended}});
}
