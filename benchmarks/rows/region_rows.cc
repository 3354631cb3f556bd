// SPDX-License-Identifier: Apache-2.0
//
// The rows region/*: a page of shared memory is made, touched once and dropped.
// Ours is sealed, checked and stamped with what an attaching process must know;
// with a name, it is complete when it appears and goes with its last owner.

#include <unistd.h>

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/raw_memory.h"
#include "cohort/shm/region.h"

namespace cohort_benchmarks {
namespace {

constexpr int64_t kLength = 100'000'000;
constexpr size_t kSize = 4096;

absl::Status Touch(const absl::StatusOr<cohort::Region>& region) {
  if (!region.ok()) return region.status();
  *reinterpret_cast<volatile std::byte*>(region->bytes().data()) = std::byte(1);
  return absl::OkStatus();
}

Row RegionCreate() {
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    PinTo(kFirstCpu);
    return NanosecondsPerCall(
        kLength, [] { return Touch(cohort::Region::Create(kSize)); });
  };
  row.limit_name = "memfd_create, ftruncate, mmap, munmap, close";
  row.limit = [] {
    PinTo(kFirstCpu);
    return NanosecondsPerCall(kLength, MakeAndDropMemfd);
  };
  row.peers = {
      {"Python SharedMemory", Python("shared_memory")},
      {"Boost shared_memory_object", Boost("shared_memory")},
  };
  row.goals = {AtMost(1.1, "limit")};
  return row;
}

Row RegionNamed() {
  static const std::string name = absl::StrCat("cohort-benchmark-", getpid());
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] {
    PinTo(kFirstCpu);
    return NanosecondsPerCall(kLength, [] {
      return Touch(cohort::Region::CreateNamed(name, {.size = kSize}));
    });
  };
  row.limit_name = "shm_open, ftruncate, mmap, munmap, close, shm_unlink";
  row.limit = [] {
    PinTo(kFirstCpu);
    return NanosecondsPerCall(kLength, MakeAndUnlinkShm);
  };
  row.peers = {
      {"Python SharedMemory", Python("shared_memory")},
      {"Boost shared_memory_object", Boost("shared_memory")},
  };
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(
      argc, argv,
      {{"region/create_4k", RegionCreate}, {"region/named_4k", RegionNamed}});
}
