// SPDX-License-Identifier: Apache-2.0
//
// The rows mutex/*: what it costs to exclude, with no rival and with one.

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/exchange_lock.h"
#include "cohort/benchmarks/peers/pthread_mutex.h"
#include "cohort/sync/mutex.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kSections = 3'000'000;

// An empty critical section; the lock lies in shared memory.
template <typename Lock>
double Uncontended() {
  return NanosecondsEach<Lock>(kSections, [](Lock& lock) {
    lock.lock();
    lock.unlock();
  });
}

double OurUncontended() {
  return NanosecondsEach<cohort::Mutex>(
      kSections, [](cohort::Mutex& mu) { cohort::MutexLock lock(mu); });
}

Row MutexUncontended() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurUncontended;
  row.limit_name = "xchg: exchange + release store";
  row.limit = Uncontended<ExchangeLock>;
  row.peers = {
      {"pthread pshared", Uncontended<PthreadMutex</*kRobust=*/false>>},
      {"pthread robust", Uncontended<PthreadMutex</*kRobust=*/true>>},
      {"Boost.Interprocess", Boost("mutex_uncontended")},
      {"Python Lock", Python("mutex_uncontended")},
  };
  row.goals = {AtMost(1.35, "limit")};
  return row;
}

template <typename Lock>
absl::StatusOr<double> Contended() {
  SharedObject<Lock> lock;
  return RivalsPerSecond([&](uint64_t& counter) {
    lock->lock();
    ++counter;
    lock->unlock();
  });
}

absl::StatusOr<double> OurContended() {
  SharedObject<cohort::Mutex> mu;
  return RivalsPerSecond([&](uint64_t& counter) {
    cohort::MutexLock lock(*mu);
    ++counter;
  });
}

absl::StatusOr<double> FetchAddContended() {
  return RivalsPerSecond([](uint64_t& counter) {
    __atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
  });
}

Row MutexContended() {
  HaveSecondThread();
  Row row;
  row.unit = "1/s";
  row.better = Better::kHigher;
  row.ours = OurContended;
  row.limit_name = "fetch_add";
  row.limit = FetchAddContended;
  row.peers = {
      {"pthread pshared", Contended<PthreadMutex</*kRobust=*/false>>},
      {"pthread robust", Contended<PthreadMutex</*kRobust=*/true>>},
      {"Boost.Interprocess", Boost("mutex_contended")},
  };
  row.goals = {AtLeast(1.7, "pthread pshared")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv,
                 {{"mutex/uncontended", MutexUncontended},
                  {"mutex/contended_2p", MutexContended}});
}
