// SPDX-License-Identifier: Apache-2.0
//
// The rows condition_variable/*: two processes hand each other the turn, one of
// them asleep until it has it, or both awake and at it all the time.

#include <mutex>

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/futex_turns.h"
#include "cohort/benchmarks/limits/spin_turns.h"
#include "cohort/benchmarks/peers/pthread_condition.h"
#include "cohort/benchmarks/peers/pthread_mutex.h"
#include "cohort/sync/condition_variable.h"
#include "cohort/sync/mutex.h"

namespace cohort_benchmarks {
namespace {

using OurTurns =
    LockedTurns<cohort::Mutex, cohort::ConditionVariable, cohort::MutexLock>;
using PlainMutex = PthreadMutex</*kRobust=*/false>;
using PthreadTurns =
    LockedTurns<PlainMutex, PthreadCondition, std::unique_lock<PlainMutex>>;

Row HandOff() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = HandOffAsleepNanoseconds<OurTurns>;
  row.limit_name = "futex: one word, one wake-up";
  row.limit = HandOffAsleepNanoseconds<FutexTurns>;
  row.peers = {
      {"pthread cond pshared", HandOffAsleepNanoseconds<PthreadTurns>},
      {"Boost.Interprocess", Boost("condition_variable_handoff")},
      {"Python Condition", Python("condition_variable_handoff")},
  };
  row.goals = {AtMost(1.15, "limit")};
  return row;
}

absl::StatusOr<double> SpinHandOff() {
  SharedObject<SpinTurns> turns;
  return OneWayNanoseconds([&](int64_t i) { return turns->Ask(i); },
                           [&](int64_t i) { return turns->Answer(i); });
}

Row HandOffHot() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = HandOffHotNanoseconds<OurTurns>;
  row.limit_name = "spin: one word each way";
  row.limit = SpinHandOff;
  row.peers = {
      {"pthread cond pshared", HandOffHotNanoseconds<PthreadTurns>},
      {"Boost.Interprocess", Boost("condition_variable_handoff_hot")},
      {"Python Condition", Python("condition_variable_handoff_hot")},
  };
  row.goals = {AtMost(2, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv,
                 {{"condition_variable/handoff", HandOff},
                  {"condition_variable/handoff_hot", HandOffHot}});
}
