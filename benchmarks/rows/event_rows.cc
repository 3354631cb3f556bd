// SPDX-License-Identifier: Apache-2.0
//
// The rows event/*, with nobody asleep: a set and a clear, and a look.

#include <cstdlib>

#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/entry_count.h"
#include "cohort/sync/event.h"

namespace cohort_benchmarks {
namespace {

using cohort::Event;

constexpr int64_t kTimes = 3'000'000;
constexpr int64_t kLooks = 30'000'000;

Row EventSetClear() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    return NanosecondsEach<Event>(kTimes, [](Event& event) {
      event.set();
      event.clear();
    });
  };
  row.limit_name = "two atomic read-modify-writes";
  row.limit = [] {
    return NanosecondsEach<EntryCount>(kTimes, [](EntryCount& count) {
      count.Enter();
      count.Leave();
    });
  };
  row.peers = {{"Python Event", Python("event_set_clear")}};
  row.goals = {AtMost(1.1, "limit")};
  return row;
}

Row EventIsSet() {
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    return NanosecondsEach<Event>(kLooks, [](const Event& event) {
      if (event.is_set()) abort();
    });
  };
  row.limit_name = "an atomic load";
  row.limit = [] {
    return NanosecondsEach<EntryCount>(kLooks, [](const EntryCount& count) {
      if (count.Entered()) abort();
    });
  };
  row.peers = {{"Python Event", Python("event_is_set")}};
  row.goals = {AtMost(1, "")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(
      argc, argv,
      {{"event/set_clear", EventSetClear}, {"event/is_set", EventIsSet}});
}
