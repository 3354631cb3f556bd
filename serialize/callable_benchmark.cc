// SPDX-License-Identifier: Apache-2.0
//
// What it costs to make a call into bytes and to run it from them; the pool
// adds the way between two processes.

#include "cohort/serialize/callable.h"

#include <cstdint>
#include <string>

#include "benchmark/benchmark.h"
#include "cohort/serialize/code_ref.h"

namespace cohort {
namespace {

int Square(int x) { return x * x; }
size_t Length(const std::string& text) { return text.size(); }

void BM_MakeCodeRef(benchmark::State& state) {
  int (*function)(int) = Square;
  for (auto _ : state) {
    benchmark::DoNotOptimize(function);
    absl::StatusOr<CodeRef> ref = MakeCodeRef(function);
    benchmark::DoNotOptimize(ref);
  }
}
BENCHMARK(BM_MakeCodeRef);

void BM_ResolveCodeRef(benchmark::State& state) {
  CodeRef ref = *MakeCodeRef(Square);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ref);
    absl::StatusOr<int (*)(int)> function = ResolveCodeRef<int(int)>(ref);
    benchmark::DoNotOptimize(function);
  }
}
BENCHMARK(BM_ResolveCodeRef);

void BM_EncodeCall(benchmark::State& state) {
  Frame frame;
  for (auto _ : state) {
    frame.Clear();
    benchmark::DoNotOptimize(EncodeCall(frame, Square, 7).ok());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_EncodeCall);

void BM_DecodeAndRunCall(benchmark::State& state) {
  Frame call;
  if (!EncodeCall(call, Square, 7).ok()) state.SkipWithError("not encoded");
  Frame result;
  for (auto _ : state) {
    result.Clear();
    Decoder decoder(call.bytes());
    benchmark::DoNotOptimize(RunCall(decoder, result).ok());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_DecodeAndRunCall);

// Elements of a map, decoded, run and answered one by one.
template <class F, class T>
void RunMap(benchmark::State& state, F&& function, const T& element) {
  constexpr int kElements = 4096;
  Frame code;
  Frame elements;
  bool made = EncodeFunction<F, const T&>(code, function).ok();
  for (int i = 0; i < kElements; ++i) {
    made = made && EncodeElement<F, const T&>(elements, element).ok();
  }
  Decoder decoder(code.bytes());
  absl::StatusOr<BoundMap> map = DecodeFunction(decoder);
  if (!made || !map.ok()) return state.SkipWithError("not encoded");
  Frame results;
  for (auto _ : state) {
    results.Clear();
    Decoder input(elements.bytes());
    absl::StatusOr<size_t> ran =
        map->Run(input, kElements, results, [] { return true; });
    if (!ran.ok() || *ran != kElements) state.SkipWithError("did not run");
  }
  state.SetItemsProcessed(state.iterations() * kElements);
}

void BM_MapOfFunction(benchmark::State& state) { RunMap(state, Square, 7); }
BENCHMARK(BM_MapOfFunction);

void BM_MapOfLambda(benchmark::State& state) {
  RunMap(
      state, [](int x) { return x; }, 7);
}
BENCHMARK(BM_MapOfLambda);

void BM_MapOfStrings(benchmark::State& state) {
  RunMap(state, Length, std::string("/usr/include/c++/12/vector"));
}
BENCHMARK(BM_MapOfStrings);

}  // namespace
}  // namespace cohort
