// SPDX-License-Identifier: Apache-2.0
//
// The rows serialize/*: a value becomes bytes and the bytes a value again. The
// peer is cereal's own binary archive over a stringstream, as its manual has it.

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "cereal/archives/binary.hpp"
#include "cereal/types/array.hpp"
#include "cereal/types/map.hpp"
#include "cereal/types/string.hpp"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort_benchmarks {
namespace {

struct Pod {
  std::array<int64_t, 8> words = {};
};
static_assert(sizeof(Pod) == 64 && cohort::kEncodesAsBytes<Pod>);

// What cereal is given: it does not take a class as bytes unasked.
struct PodForCereal {
  std::array<int64_t, 8> words = {};
  template <class Archive>
  void serialize(Archive& archive) {
    archive(words);
  }
};

using Table = std::map<std::string, int32_t>;

Table MakeTable() {
  Table table;
  for (int32_t i = 0; i < 1000; ++i) table["key " + std::to_string(i)] = i;
  return table;
}

// `once` is called in one place, so that compilers make it part of the loop,
// whatever is measured.
template <typename Once>
absl::StatusOr<double> NanosecondsPerCall(int64_t times, Once once) {
  std::chrono::steady_clock::time_point begin;
  for (int64_t i = -times / 10 - 1; i < times; ++i) {
    if (i == 0) begin = std::chrono::steady_clock::now();
    if (!once()) return absl::InternalError("the value changed on its way");
  }
  const std::chrono::duration<double, std::nano> took =
      std::chrono::steady_clock::now() - begin;
  return took.count() / static_cast<double>(times);
}

template <typename T>
absl::StatusOr<double> Ours(int64_t times, T value) {
  cohort::Frame frame;
  return NanosecondsPerCall(times, [&] {
    benchmark::DoNotOptimize(value);
    frame.Clear();
    if (!cohort::EncodeTo(frame, value).ok()) return false;
    benchmark::DoNotOptimize(frame.data());
    benchmark::ClobberMemory();
    absl::StatusOr<T> back = cohort::Decode<T>(frame.bytes());
    benchmark::DoNotOptimize(back);
    return back.ok();
  });
}

template <typename T>
absl::StatusOr<double> Cereal(int64_t times, T value) {
  return NanosecondsPerCall(times, [&] {
    benchmark::DoNotOptimize(value);
    std::stringstream stream;
    {
      cereal::BinaryOutputArchive archive(stream);
      archive(value);
    }
    T back;
    {
      cereal::BinaryInputArchive archive(stream);
      archive(back);
    }
    benchmark::DoNotOptimize(back);
    return stream.good();
  });
}

// There and back, as often as a value is copied.
absl::StatusOr<double> Copies(int64_t times, size_t size) {
  std::vector<char> from(size, 'x');
  std::vector<char> wire(size);
  std::vector<char> to(size);
  return NanosecondsPerCall(times, [&] {
    benchmark::DoNotOptimize(from.data());
    std::memcpy(wire.data(), from.data(), size);
    benchmark::DoNotOptimize(wire.data());
    benchmark::ClobberMemory();
    std::memcpy(to.data(), wire.data(), size);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
    return true;
  });
}

// The limit of `pod_64`: the compiler knows the size here as it does for us.
absl::StatusOr<double> PodCopies(int64_t times) {
  Pod from;
  std::array<char, sizeof(Pod)> wire;
  return NanosecondsPerCall(times, [&] {
    benchmark::DoNotOptimize(from);
    std::memcpy(wire.data(), &from, sizeof(from));
    benchmark::DoNotOptimize(wire);
    benchmark::ClobberMemory();
    Pod to;
    std::memcpy(static_cast<void*>(&to), wire.data(), sizeof(to));
    benchmark::DoNotOptimize(to);
    return true;
  });
}

Row MapOfThousand() {
  constexpr int64_t kTimes = 1000;
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] { return Ours(kTimes, MakeTable()); };
  row.limit_name = "memcpy of the bytes, twice";
  row.limit = [] {
    absl::StatusOr<cohort::Frame> frame = cohort::Encode(MakeTable());
    if (!frame.ok()) return absl::StatusOr<double>(frame.status());
    return Copies(kTimes * 100, frame->size());
  };
  row.peers = {{"cereal", [] { return Cereal(kTimes / 5, MakeTable()); }}};
  row.goals = {AtMost(0.2, "cereal")};
  return row;
}

Row PodOf64() {
  constexpr int64_t kTimes = 5'000'000;
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = [] { return Ours(kTimes, Pod()); };
  row.limit_name = "memcpy, twice";
  row.limit = [] { return PodCopies(kTimes); };
  row.peers = {{"cereal", [] { return Cereal(kTimes / 50, PodForCereal()); }}};
  row.goals = {AtMost(1.5, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(
      argc, argv,
      {{"serialize/map_1k", MapOfThousand}, {"serialize/pod_64", PodOf64}});
}
