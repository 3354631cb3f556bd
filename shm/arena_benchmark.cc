// SPDX-License-Identifier: Apache-2.0
//
// What an arena costs by itself. Its peers and its limit run the same work in
// //benchmarks.

#include <atomic>
#include <cstddef>
#include <vector>

#include "benchmark/benchmark.h"
#include "cohort/os/or_die.h"
#include "cohort/shm/arena.h"
#include "cohort/shm/block_ref.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Shared;

// A block taken and given back, while `rivals` other processes do the same.
void BM_Block(benchmark::State& state) {
  const Arena arena = OrDie(Arena::Create({.size = 1 << 20}));
  const auto size = static_cast<size_t>(state.range(0));
  const auto use = [&] {
    const Block block = OrDie(arena.Allocate(size));
    OrDie(arena.Free(block.ref));
  };
  Shared<std::atomic<bool>> stop;
  std::vector<Child> rivals;
  for (int i = 0; i < state.range(1); ++i) {
    rivals.push_back(Child::Fork([&] {
      while (!*stop) use();
    }));
  }
  for (auto _ : state) use();
  *stop = true;
  for (Child& rival : rivals) rival.Wait();
}
BENCHMARK(BM_Block)
    ->ArgNames({"size", "rivals"})
    ->Args({64, 0})
    ->Args({2000, 0})
    ->Args({8192, 0})
    ->Args({64, 1})
    ->UseRealTime();

void BM_Resolve(benchmark::State& state) {
  const Arena arena = OrDie(Arena::Create({.size = 1 << 20}));
  const BlockRef ref = OrDie(arena.Allocate(64)).ref;
  for (auto _ : state) benchmark::DoNotOptimize(arena.Resolve(ref));
}
BENCHMARK(BM_Resolve);

// A hundred blocks taken, then given back in the same order.
void BM_HundredBlocks(benchmark::State& state) {
  const Arena arena = OrDie(Arena::Create({.size = 1 << 20}));
  std::vector<BlockRef> refs(100);
  for (auto _ : state) {
    for (BlockRef& ref : refs) ref = OrDie(arena.Allocate(64)).ref;
    for (const BlockRef& ref : refs) OrDie(arena.Free(ref));
  }
  state.SetItemsProcessed(state.iterations() * 100);
}
BENCHMARK(BM_HundredBlocks);

void BM_Find(benchmark::State& state) {
  const Arena arena = OrDie(Arena::Create({.size = 1 << 20}));
  OrDie(arena.FindOrConstruct<int>("number", 1));
  for (auto _ : state) benchmark::DoNotOptimize(arena.Find<int>("number"));
}
BENCHMARK(BM_Find);

// Looking for the dead, where nobody has died.
void BM_Reap(benchmark::State& state) {
  const Arena arena = OrDie(Arena::Create({.size = 1 << 20}));
  for (auto _ : state) benchmark::DoNotOptimize(arena.Reap());
}
BENCHMARK(BM_Reap);

}  // namespace
}  // namespace cohort
