// SPDX-License-Identifier: Apache-2.0

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "cohort/ipc/queue.h"
#include "cohort/os/or_die.h"
#include "cohort/testing/child.h"

namespace cohort {
namespace {

using Message = std::array<uint64_t, 8>;

// Put and get in one process: the instructions alone.
void BM_QueuePutGet(benchmark::State& state) {
  const auto queue = OrDie(Queue<Message>::Create({.max_items = 16}));
  const Message message = {};
  for (auto _ : state) {
    OrDie(queue.Put(message));
    benchmark::DoNotOptimize(OrDie(queue.Get()));
  }
}
BENCHMARK(BM_QueuePutGet);

// Likewise a string of so many bytes: encoded and decoded, too.
void BM_QueuePutGetString(benchmark::State& state) {
  const auto queue = OrDie(Queue<std::string>::Create({.bytes = 4 << 20}));
  const std::string text(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) {
    OrDie(queue.Put(text));
    benchmark::DoNotOptimize(OrDie(queue.Get()));
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_QueuePutGetString)->Arg(8)->Arg(1 << 10)->Arg(1 << 20);

// As many processes put as get, all at full speed; one of the consumers is
// measured.
void BM_QueueStream(benchmark::State& state) {
  const auto queue = OrDie(Queue<Message>::Create({.max_items = 4096}));
  std::vector<cohort_testing::Child> others;
  for (int i = 0; i < state.range(0); ++i) {
    others.push_back(cohort_testing::Child::Fork([&] {
      while (queue.Put({}).ok()) {
      }
    }));
  }
  for (int i = 1; i < state.range(0); ++i) {
    others.push_back(cohort_testing::Child::Fork([&] {
      while (queue.Get().ok()) {
      }
    }));
  }
  for (auto _ : state) benchmark::DoNotOptimize(OrDie(queue.Get()));
  state.SetItemsProcessed(state.iterations());
  queue.Close();
  for (auto& other : others) other.Wait();
}
BENCHMARK(BM_QueueStream)->ArgName("each")->Arg(1)->Arg(2)->UseRealTime();

// There and back, to a process that answers.
void BM_QueuePingPong(benchmark::State& state) {
  const auto there = OrDie(Queue<Message>::Create({.max_items = 16}));
  const auto back = OrDie(Queue<Message>::Create({.max_items = 16}));
  auto echo = cohort_testing::Child::Fork([&] {
    for (absl::StatusOr<Message> message : there.Items()) {
      if (!message.ok() || !back.Put(*message).ok()) return 1;
    }
    return 0;
  });
  for (auto _ : state) {
    OrDie(there.Put({}));
    benchmark::DoNotOptimize(OrDie(back.Get()));
  }
  there.Close();
  echo.Wait();
}
BENCHMARK(BM_QueuePingPong)->UseRealTime();

}  // namespace
}  // namespace cohort
