// SPDX-License-Identifier: Apache-2.0
//
// The rows shared_mutex/*: an empty critical section, of a reader and of a
// writer, nobody else there.

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/entry_count.h"
#include "cohort/benchmarks/limits/exchange_lock.h"
#include "cohort/benchmarks/peers/pthread_rwlock.h"
#include "cohort/sync/shared_mutex.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kSections = 3'000'000;

template <typename Lock>
double Read() {
  return NanosecondsEach<Lock>(kSections, [](Lock& lock) {
    lock.lock_shared();
    lock.unlock_shared();
  });
}

double CountedRead() {
  return NanosecondsEach<EntryCount>(kSections, [](EntryCount& count) {
    count.Enter();
    count.Leave();
  });
}

Row ReadUncontended() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = Read<cohort::SharedMutex>;
  row.limit_name = "two atomic read-modify-writes";
  row.limit = CountedRead;
  row.peers = {
      {"pthread rwlock pshared", Read<PthreadRwlock>},
      {"Boost.Interprocess", Boost("shared_mutex_read")},
  };
  row.goals = {AtMost(1.1, "limit")};
  return row;
}

template <typename Lock>
double Write() {
  return NanosecondsEach<Lock>(kSections, [](Lock& lock) {
    lock.lock();
    lock.unlock();
  });
}

Row WriteUncontended() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = Write<cohort::SharedMutex>;
  row.limit_name = "xchg: exchange + release store";
  row.limit = Write<ExchangeLock>;
  row.peers = {
      {"pthread rwlock pshared", Write<PthreadRwlock>},
      {"Boost.Interprocess", Boost("shared_mutex_write")},
  };
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv,
                 {{"shared_mutex/read_uncontended", ReadUncontended},
                  {"shared_mutex/write_uncontended", WriteUncontended}});
}
