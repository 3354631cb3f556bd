// SPDX-License-Identifier: Apache-2.0
//
// What encoding costs, beside its limit, a memcpy of the bytes, and its peer,
// cereal's own binary archives over a stringstream.

#include "cohort/serialize/codec.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "cereal/archives/binary.hpp"
#include "cereal/types/map.hpp"
#include "cereal/types/string.hpp"
#include "cereal/types/vector.hpp"

namespace cohort {
namespace {

struct Pod {
  std::array<int64_t, 8> words = {};
};
static_assert(sizeof(Pod) == 64);

struct Job {
  int32_t id = 0;
  std::string path;

  template <class Archive>
  void serialize(Archive& a) {
    a(id, path);
  }
};

using Table = std::map<std::string, int64_t>;

Table MakeTable() {
  Table table;
  for (int64_t i = 0; i < 1000; ++i) table["key " + std::to_string(i)] = i;
  return table;
}

void BM_Pod64_Memcpy(benchmark::State& state) {
  Pod pod;
  std::array<char, 64> buffer;
  for (auto _ : state) {
    benchmark::DoNotOptimize(pod);
    std::memcpy(buffer.data(), &pod, sizeof(pod));
    benchmark::DoNotOptimize(buffer);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_Pod64_Memcpy);

void BM_Pod64_Encode(benchmark::State& state) {
  Pod pod;
  Frame frame;
  for (auto _ : state) {
    benchmark::DoNotOptimize(pod);
    frame.Clear();
    benchmark::DoNotOptimize(EncodeTo(frame, pod).ok());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_Pod64_Encode);

void BM_Pod64_Decode(benchmark::State& state) {
  Frame frame = *Encode(Pod());
  for (auto _ : state) {
    benchmark::DoNotOptimize(frame.data());
    absl::StatusOr<Pod> pod = Decode<Pod>(frame.bytes());
    benchmark::DoNotOptimize(pod);
  }
}
BENCHMARK(BM_Pod64_Decode);

// A type with serialize(): needs the archives, and so their tables.
void BM_Job_Encode(benchmark::State& state) {
  Job job = {7, "/var/log/messages"};
  Frame frame;
  for (auto _ : state) {
    benchmark::DoNotOptimize(job);
    frame.Clear();
    benchmark::DoNotOptimize(EncodeTo(frame, job).ok());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_Job_Encode);

void BM_Job_Decode(benchmark::State& state) {
  Frame frame = *Encode(Job{7, "/var/log/messages"});
  for (auto _ : state) {
    absl::StatusOr<Job> job = Decode<Job>(frame.bytes());
    benchmark::DoNotOptimize(job);
  }
}
BENCHMARK(BM_Job_Decode);

void BM_Map1k_Encode(benchmark::State& state) {
  const Table table = MakeTable();
  Frame frame;
  for (auto _ : state) {
    frame.Clear();
    benchmark::DoNotOptimize(EncodeTo(frame, table).ok());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_Map1k_Encode);

void BM_Map1k_EncodeWithCereal(benchmark::State& state) {
  const Table table = MakeTable();
  for (auto _ : state) {
    std::ostringstream stream;
    cereal::BinaryOutputArchive archive(stream);
    archive(table);
    benchmark::DoNotOptimize(stream.str());
  }
}
BENCHMARK(BM_Map1k_EncodeWithCereal);

void BM_Map1k_Decode(benchmark::State& state) {
  Frame frame = *Encode(MakeTable());
  for (auto _ : state) {
    absl::StatusOr<Table> table = Decode<Table>(frame.bytes());
    benchmark::DoNotOptimize(table);
  }
}
BENCHMARK(BM_Map1k_Decode);

void BM_Map1k_DecodeWithCereal(benchmark::State& state) {
  std::ostringstream stream;
  cereal::BinaryOutputArchive archive(stream);
  archive(MakeTable());
  const std::string bytes = stream.str();
  for (auto _ : state) {
    std::istringstream in(bytes);
    cereal::BinaryInputArchive reader(in);
    Table table;
    reader(table);
    benchmark::DoNotOptimize(table);
  }
}
BENCHMARK(BM_Map1k_DecodeWithCereal);

void BM_Vector1M_Encode(benchmark::State& state) {
  const std::vector<int64_t> values(1 << 17, 1);
  Frame frame;
  for (auto _ : state) {
    frame.Clear();
    benchmark::DoNotOptimize(EncodeTo(frame, values).ok());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() << 20);
}
BENCHMARK(BM_Vector1M_Encode);

void BM_Vector1M_Decode(benchmark::State& state) {
  Frame frame = *Encode(std::vector<int64_t>(1 << 17, 1));
  for (auto _ : state) {
    auto values = Decode<std::vector<int64_t>>(frame.bytes());
    benchmark::DoNotOptimize(values);
  }
  state.SetBytesProcessed(state.iterations() << 20);
}
BENCHMARK(BM_Vector1M_Decode);

}  // namespace
}  // namespace cohort
