// SPDX-License-Identifier: Apache-2.0
//
// The rows semaphore/* and counting_semaphore/*: a permit taken and given back
// with nobody else there, and permits handed to and fro between two processes.

#include <utility>

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/entry_count.h"
#include "cohort/benchmarks/limits/spin_turns.h"
#include "cohort/benchmarks/peers/posix_semaphore.h"
#include "cohort/sync/counting_semaphore.h"
#include "cohort/sync/semaphore.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kTimes = 3'000'000;

template <typename Semaphore>
struct OnePermit {
  Semaphore semaphore{1};
};

template <typename Semaphore>
double Uncontended() {
  using One = OnePermit<Semaphore>;
  return NanosecondsEach<One>(kTimes, [](One& one) {
    one.semaphore.acquire();
    one.semaphore.release();
  });
}

double CountedUncontended() {
  return NanosecondsEach<EntryCount>(kTimes, [](EntryCount& count) {
    count.Enter();
    count.Leave();
  });
}

// Ours, for one goal or the other; the rest of the row is the same.
Row UncontendedRow(Player ours, double factor) {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = std::move(ours);
  row.limit_name = "two atomic read-modify-writes";
  row.limit = CountedUncontended;
  row.peers = {
      {"sem_t pshared", Uncontended<PosixSemaphore>},
      {"Boost.Interprocess", Boost("semaphore_uncontended")},
      {"Python Semaphore", Python("semaphore_uncontended")},
  };
  row.goals = {AtMost(factor, "limit")};
  return row;
}

Row SemaphoreUncontended() {
  return UncontendedRow(Uncontended<cohort::Semaphore>, 2.5);
}

Row CountingSemaphoreUncontended() {
  return UncontendedRow(Uncontended<cohort::CountingSemaphore>, 1.05);
}

template <typename Semaphore>
absl::StatusOr<double> PingPong() {
  struct Two {
    Semaphore there{0};
    alignas(128) Semaphore back{0};
  };
  SharedObject<Two> two;
  return OneWayNanoseconds(
      [&](int64_t) {
        two->there.release();
        two->back.acquire();
        return true;
      },
      [&](int64_t) {
        two->there.acquire();
        two->back.release();
        return true;
      });
}

absl::StatusOr<double> SpinPingPong() {
  SharedObject<SpinTurns> turns;
  return OneWayNanoseconds([&](int64_t i) { return turns->Ask(i); },
                           [&](int64_t i) { return turns->Answer(i); });
}

Row CountingSemaphorePingPong() {
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = PingPong<cohort::CountingSemaphore>;
  row.limit_name = "spin: one word each way";
  row.limit = SpinPingPong;
  row.peers = {
      {"sem_t pshared", PingPong<PosixSemaphore>},
      {"Boost.Interprocess", Boost("semaphore_pingpong")},
      {"Python Semaphore", Python("semaphore_pingpong")},
  };
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(
      argc, argv,
      {{"semaphore/uncontended", SemaphoreUncontended},
       {"counting_semaphore/uncontended", CountingSemaphoreUncontended},
       {"counting_semaphore/pingpong", CountingSemaphorePingPong}});
}
