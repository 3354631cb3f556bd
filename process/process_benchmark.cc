// SPDX-License-Identifier: Apache-2.0
//
// A process from the call of Start() to the return of Join(): encoding,
// handshake, one call of an empty function, exit, and the collected status.

#include "cohort/process/process.h"

#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/process/init.h"

namespace cohort {
namespace {

void Nothing() {}
void Take(const std::string&) {}

bool RunToEnd(absl::StatusOr<Process> process, benchmark::State& state) {
  absl::StatusOr<ExitStatus> end =
      process.ok() ? process->Join()
                   : absl::StatusOr<ExitStatus>(process.status());
  if (end.ok() && end->ok()) return true;
  state.SkipWithError(
      (end.ok() ? end->ToString() : end.status().ToString()).c_str());
  return false;
}

void StartToJoined(benchmark::State& state, StartMethod method) {
  for (auto _ : state) {
    if (!RunToEnd(Process::Start({.start_method = method}, Nothing), state)) {
      return;
    }
  }
}
void BM_Fork(benchmark::State& state) {
  StartToJoined(state, StartMethod::kFork);
}
BENCHMARK(BM_Fork)->UseRealTime()->Unit(benchmark::kMicrosecond);

void BM_Spawn(benchmark::State& state) {
  StartToJoined(state, StartMethod::kSpawn);
}
BENCHMARK(BM_Spawn)->UseRealTime()->Unit(benchmark::kMicrosecond);

// What arguments of this size add: up to 7 KiB travel in a message, more in a
// memory file.
void BM_SpawnWithArgument(benchmark::State& state) {
  const std::string argument(static_cast<size_t>(state.range(0)), 'a');
  for (auto _ : state) {
    if (!RunToEnd(Process::Start({.start_method = StartMethod::kSpawn}, Take,
                                 argument),
                  state)) {
      return;
    }
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_SpawnWithArgument)
    ->ArgName("bytes")
    ->Arg(1 << 10)
    ->Arg(64 << 10)
    ->Arg(16 << 20)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
