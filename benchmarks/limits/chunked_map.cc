// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/limits/chunked_map.h"

#include <algorithm>
#include <atomic>

#include "cohort/benchmarks/internal/stage.h"
#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

absl::StatusOr<double> ChunkedMapPerSecond(int (*function)(int), int elements,
                                           int chunk) {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  struct Progress {
    alignas(128) std::atomic<int> present = 0;
    alignas(128) std::atomic<int> next = 0;
    alignas(128) std::atomic<int> done = 0;
  };
  SharedObject<Progress> progress;
  const size_t bytes = sizeof(int) * static_cast<size_t>(elements);
  std::byte* const memory = MapShared(bytes);
  int* const results = reinterpret_cast<int*>(memory);

  const auto take_part = [&](int cpu) {
    PinTo(cpu);
    progress->present.fetch_add(1);
    while (progress->present.load() < 2) cohort::os::CpuRelax();
    const int64_t begin = Now();
    for (;;) {
      const int from = progress->next.fetch_add(chunk);
      if (from >= elements) break;
      const int to = std::min(elements, from + chunk);
      for (int i = from; i < to; ++i) results[i] = function(i);
      progress->done.fetch_add(to - from);
    }
    while (progress->done.load() < elements) cohort::os::CpuRelax();
    return Now() - begin;
  };
  Companion helper([&] { take_part(kSecondCpu); });
  const int64_t took = take_part(kFirstCpu);
  absl::Status end = helper.Join();
  for (int i = 0; end.ok() && i < elements; ++i) {
    if (results[i] != function(i)) end = absl::DataLossError("wrong result");
  }
  UnmapShared(memory, bytes);
  if (!end.ok()) return end;
  return elements * 1e9 / static_cast<double>(took);
}

}  // namespace cohort_benchmarks
