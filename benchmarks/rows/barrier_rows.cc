// SPDX-License-Identifier: Apache-2.0
//
// The row barrier/round_2p: two processes that do nothing but meet.

#include <cstdlib>

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/spin_barrier.h"
#include "cohort/benchmarks/peers/pthread_barrier.h"
#include "cohort/sync/barrier.h"

namespace cohort_benchmarks {
namespace {

struct OurBarrier {
  cohort::Barrier barrier{2};
};

absl::StatusOr<double> OurRound() {
  SharedObject<OurBarrier> ours;
  return RoundNanoseconds([&] {
    if (!ours->barrier.arrive_and_wait().ok()) abort();
  });
}

template <typename Barrier>
absl::StatusOr<double> SpinRound() {
  SharedObject<Barrier> barrier;
  return RoundNanoseconds([&] { barrier->ArriveAndWait(); });
}

absl::StatusOr<double> PthreadRound() {
  SharedObject<PthreadBarrier> barrier;
  return RoundNanoseconds([&] { barrier->arrive_and_wait(); });
}

Row BarrierRound() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurRound;
  row.limit_name = "spin barrier: a counter, a round number";
  row.limit = SpinRound<SpinBarrier>;
  row.peers = {
      {"spin barrier for two, one word", SpinRound<OneWordBarrier>},
      {"pthread barrier pshared", PthreadRound},
      {"Python Barrier", Python("barrier_round")},
  };
  row.goals = {AtMost(1.3, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv, {{"barrier/round_2p", BarrierRound}});
}
