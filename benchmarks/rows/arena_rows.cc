// SPDX-License-Identifier: Apache-2.0
//
// The row arena/block: a block of 64 bytes taken and given back, with nobody
// else there.

#include <cstdint>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/entry_count.h"
#include "cohort/shm/arena.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kTimes = 3'000'000;
constexpr size_t kSize = 64;

struct Nothing {};

absl::StatusOr<double> OurBlock() {
  const absl::StatusOr<cohort::Arena> arena =
      cohort::Arena::Create({.size = 1 << 20});
  if (!arena.ok()) return arena.status();
  bool failed = false;
  const double each = NanosecondsEach<Nothing>(kTimes, [&](Nothing&) {
    const absl::StatusOr<cohort::Block> block = arena->Allocate(kSize);
    failed = failed || !block.ok() || !arena->Free(block->ref).ok();
  });
  if (failed) return absl::InternalError("a block could not be had");
  return each;
}

double TwoSteps() {
  return NanosecondsEach<EntryCount>(kTimes, [](EntryCount& count) {
    count.Enter();
    count.Leave();
  });
}

// Of one process, and lost with it.
double PrivateBlock() {
  return NanosecondsEach<Nothing>(kTimes, [](Nothing&) {
    void* volatile block = std::malloc(kSize);
    std::free(block);
  });
}

Row ArenaBlock() {
  HaveSecondThread();
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurBlock;
  row.limit_name = "two atomic read-modify-writes";
  row.limit = TwoSteps;
  row.peers = {
      {"malloc", PrivateBlock},
      {"Boost.Interprocess", Boost("arena_block")},
  };
  row.goals = {AtMost(50, "")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv, {{"arena/block", ArenaBlock}});
}
