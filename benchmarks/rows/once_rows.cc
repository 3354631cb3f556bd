// SPDX-License-Identifier: Apache-2.0
//
// The row once/done: what it costs to find that it has been done. The peers are
// for the threads of one process only.

#include <cstdlib>
#include <mutex>

#include "absl/base/call_once.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/entry_count.h"
#include "cohort/sync/once.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kTimes = 30'000'000;

void Nothing() {}

Row OnceDone() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    return NanosecondsEach<cohort::Once>(
        kTimes, [](cohort::Once& once) { once.call(Nothing); });
  };
  row.limit_name = "an atomic load";
  row.limit = [] {
    return NanosecondsEach<EntryCount>(kTimes, [](const EntryCount& count) {
      if (count.Entered()) abort();
    });
  };
  row.peers = {
      {"std::call_once (threads)",
       [] {
         return NanosecondsEach<std::once_flag>(
             kTimes,
             [](std::once_flag& once) { std::call_once(once, Nothing); });
       }},
      {"absl::call_once (threads)",
       [] {
         return NanosecondsEach<absl::once_flag>(
             kTimes,
             [](absl::once_flag& once) { absl::call_once(once, Nothing); });
       }},
  };
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv, {{"once/done", OnceDone}});
}
