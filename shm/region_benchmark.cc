// SPDX-License-Identifier: Apache-2.0

#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "benchmark/benchmark.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/or_die.h"
#include "cohort/shm/region.h"

namespace cohort {
namespace {

// Made, touched from end to end, and gone.
void BM_RegionCreate(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    const Region region = OrDie(Region::Create(size));
    std::memset(region.bytes().data(), 1, size);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_RegionCreate)->ArgName("bytes")->Arg(1)->Arg(1 << 20);

// What it costs to receive a handle.
void BM_RegionAttach(benchmark::State& state) {
  const Region region = OrDie(Region::Create(4096));
  for (auto _ : state) {
    os::Descriptor twin = OrDie(region.descriptor().Duplicate());
    benchmark::DoNotOptimize(OrDie(Region::Attach(std::move(twin))));
  }
}
BENCHMARK(BM_RegionAttach);

// Made under a name, and gone with its only owner.
void BM_RegionCreateNamed(benchmark::State& state) {
  const std::string name = "region_benchmark." + std::to_string(getpid());
  for (auto _ : state) {
    benchmark::DoNotOptimize(OrDie(Region::CreateNamed(name, {.size = 4096})));
  }
}
BENCHMARK(BM_RegionCreateNamed);

// Found by its name, and dropped while another owner lives.
void BM_RegionOpen(benchmark::State& state) {
  const std::string name = "region_benchmark." + std::to_string(getpid());
  const Region region = OrDie(Region::CreateNamed(name, {.size = 4096}));
  for (auto _ : state) benchmark::DoNotOptimize(OrDie(Region::Open(name)));
}
BENCHMARK(BM_RegionOpen);

void BM_RegionCopyHandle(benchmark::State& state) {
  const Region region = OrDie(Region::Create(4096));
  for (auto _ : state) benchmark::DoNotOptimize(Region(region));
}
BENCHMARK(BM_RegionCopyHandle);

}  // namespace
}  // namespace cohort
