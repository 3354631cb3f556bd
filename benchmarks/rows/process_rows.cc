// SPDX-License-Identifier: Apache-2.0
//
// The rows process/*: from the call that starts a child to the return of the
// one that collects its end. Ours include the handshake: the child has said
// that it decoded its call and runs it. The limits run nothing and say nothing.

#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/raw_process.h"
#include "cohort/process/init.h"
#include "cohort/process/process.h"

namespace cohort_benchmarks {
namespace {

// Makes main() return at once.
constexpr char kNothing[] = "--nothing";

void Nothing() {}

// Nanoseconds per child. Not pinned: a child may begin on the other processor.
template <typename StartAndWait>
absl::StatusOr<double> NanosecondsPerChild(int children, StartAndWait act) {
  const int64_t begin = Now();
  for (int i = 0; i < children; ++i) {
    if (absl::Status s = act(); !s.ok()) return s;
  }
  return static_cast<double>(Now() - begin) / children;
}

absl::Status StartAndJoin(cohort::StartMethod method) {
  absl::StatusOr<cohort::Process> child =
      cohort::Process::Start({.start_method = method}, Nothing);
  if (!child.ok()) return child.status();
  absl::StatusOr<cohort::ExitStatus> end = child->Join();
  return end.ok() && end->ok() ? absl::OkStatus()
         : end.ok()            ? absl::AbortedError("the child failed")
                               : end.status();
}

Row ProcessFork() {
  constexpr int kChildren = 200;
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    return NanosecondsPerChild(
        kChildren, [] { return StartAndJoin(cohort::StartMethod::kFork); });
  };
  row.limit_name = "raw fork, _exit, waitpid";
  row.limit = [] { return NanosecondsPerChild(kChildren, ForkAndWait); };
  row.peers = {{"Python Process, fork", Python("process_fork")}};
  row.goals = {AtMost(1.35, "limit")};
  return row;
}

Row ProcessSpawn() {
  constexpr int kChildren = 40;
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    return NanosecondsPerChild(
        kChildren, [] { return StartAndJoin(cohort::StartMethod::kSpawn); });
  };
  row.limit_name = "posix_spawn of the same binary, waitpid";
  row.limit = [] {
    return NanosecondsPerChild(
        kChildren, [] { return SpawnAndWait("/proc/self/exe", kNothing); });
  };
  row.peers = {{"Python Process, spawn", Python("process_spawn")}};
  row.goals = {AtMost(1.15, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  if (argc == 2 && strcmp(argv[1], kNothing) == 0) return 0;
  return RunRows(
      argc, argv,
      {{"process/fork", ProcessFork}, {"process/spawn", ProcessSpawn}});
}
