// SPDX-License-Identifier: Apache-2.0
//
// What a pipe itself costs. Peers run the same work in benchmarks/.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "cohort/ipc/pipe.h"
#include "cohort/os/or_die.h"
#include "cohort/testing/child.h"

namespace cohort {
namespace {

using cohort_testing::Child;

template <size_t size>
using Message = std::array<std::byte, size>;

// To another process that sends it back. One way is half of it.
template <size_t size>
void BM_PingPong(benchmark::State& state) {
  auto [left, right] = OrDie(CreatePipe());
  Child echo = Child::Fork([&left = left, &right = right] {
    left = PipeEnd();
    for (;;) {
      absl::StatusOr<Message<size>> ball = right.Recv<Message<size>>();
      if (!ball.ok()) return;
      OrDie(right.Send(*ball));
    }
  });
  right = PipeEnd();
  for (auto _ : state) {
    OrDie(left.Send(Message<size>()));
    OrDie(left.Recv<Message<size>>());
  }
  left = PipeEnd();
  echo.Wait();
}
BENCHMARK(BM_PingPong<56>)->UseRealTime();

// One way, as fast as the other process takes them.
void BM_Stream(benchmark::State& state) {
  auto [left, right] = OrDie(CreatePipe());
  Child receiver = Child::Fork([&left = left, &right = right] {
    left = PipeEnd();
    while (right.RecvBytes().ok()) {
    }
  });
  right = PipeEnd();
  const std::string bytes(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) OrDie(left.SendBytes(bytes));
  left = PipeEnd();
  receiver.Wait();
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Stream)->Arg(56)->Arg(1 << 10)->Arg(1 << 20)->UseRealTime();

void BM_SendRecvInOneThread(benchmark::State& state) {
  auto [left, right] = OrDie(CreatePipe());
  for (auto _ : state) {
    OrDie(left.Send(Message<56>()));
    OrDie(right.Recv<Message<56>>());
  }
}
BENCHMARK(BM_SendRecvInOneThread);

void BM_CreateAndDrop(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(OrDie(CreatePipe({.bytes = 4096})));
  }
}
BENCHMARK(BM_CreateAndDrop);

}  // namespace
}  // namespace cohort
