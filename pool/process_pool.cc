// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/process_pool.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "cohort/process/cpu_budget.h"

namespace cohort {
namespace {

using pool_internal::Engine;
using pool_internal::EngineOptions;
using pool_internal::EngineStats;
using pool_internal::Task;

constexpr int kMostWorkers = 1024;
constexpr size_t kLeastLane = size_t{16} << 10;
constexpr size_t kMostLane = size_t{1} << 30;
// Chunks for each worker, when the caller leaves the choice to us: enough that
// a slow one is made up for by the others, few enough to cost nothing.
constexpr size_t kChunksPerWorker = 4;
// For a range whose length is not known before its end.
constexpr size_t kBlindChunk = 64;

}  // namespace

absl::StatusOr<ProcessPool> ProcessPool::Create(PoolOptions options) {
  EngineOptions engine_options;
  engine_options.workers =
      options.workers == 0 ? UsableCpus() : options.workers;
  if (options.workers < 0 || engine_options.workers > kMostWorkers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "PoolOptions::workers is ", options.workers, "; ask for 1 to ",
        kMostWorkers, ", or 0 for the number of usable processors"));
  }
  if (options.lane_bytes > kMostLane) {
    return absl::InvalidArgumentError(absl::StrCat(
        "PoolOptions::lane_bytes is ", options.lane_bytes, "; at most ",
        kMostLane, " are possible, and larger values pass in pieces"));
  }
  engine_options.fork = options.start_method == StartMethod::kFork;
  engine_options.retries = options.retries;
  engine_options.grace_nanoseconds = absl::ToInt64Nanoseconds(options.grace);
  engine_options.ring_bytes =
      std::bit_ceil(std::max(options.lane_bytes, kLeastLane));
  absl::StatusOr<std::shared_ptr<Engine>> engine =
      Engine::Create(engine_options);
  if (!engine.ok()) return engine.status();
  return ProcessPool(*std::move(engine));
}

ProcessPool& ProcessPool::operator=(ProcessPool&& other) noexcept {
  std::swap(engine_, other.engine_);
  return *this;
}

ProcessPool::~ProcessPool() {
  if (engine_ == nullptr) return;
  ShutdownOptions options;
  options.grace = absl::Nanoseconds(engine().options().grace_nanoseconds);
  (void)Shutdown(options);
}

std::shared_ptr<Task> ProcessPool::NewTask(const CallOptions& options) const {
  auto task = std::make_shared<Task>();
  task->retries = options.retries.value_or(engine().options().retries);
  if (options.timeout < absl::InfiniteDuration()) {
    // A limit of nothing is one that is over at once, not none at all.
    task->timeout_nanoseconds =
        std::max<int64_t>(absl::ToInt64Nanoseconds(options.timeout), 1);
  }
  return task;
}

size_t ProcessPool::ChunkFor(size_t elements, const MapOptions& options) const {
  if (options.chunk > 0) {
    return std::min(options.chunk, pool_internal::kMostOpenElements);
  }
  if (elements == 0) return kBlindChunk;
  const size_t chunks =
      kChunksPerWorker * static_cast<size_t>(engine().options().workers);
  return (elements + chunks - 1) / chunks;
}

std::shared_ptr<Task> ProcessPool::NewChunk(std::string_view function,
                                            const MapOptions& options) const {
  auto chunk = std::make_shared<Task>();
  chunk->retries = options.retries.value_or(engine().options().retries);
  chunk->call.Append(function);
  chunk->function_bytes = function.size();
  return chunk;
}

absl::Status ProcessPool::AwaitChunks(
    const std::vector<std::shared_ptr<Task>>& chunks, Deadline deadline) {
  for (const std::shared_ptr<Task>& chunk : chunks) {
    if (engine().Await(*chunk, deadline)) continue;
    for (const std::shared_ptr<Task>& rest : chunks) engine().Cancel(*rest);
    return engine().WhyNotDone(*chunk);
  }
  return absl::OkStatus();
}

void ProcessPool::Close() { engine().Close(); }

absl::Status ProcessPool::Join(absl::Duration timeout) {
  if (!engine().closed()) {
    return absl::FailedPreconditionError(
        "the pool is still open; Close() or Terminate() it before Join()");
  }
  return engine().AwaitEnd(Deadline::After(timeout));
}

void ProcessPool::Terminate() { engine().Terminate(); }

absl::Status ProcessPool::Shutdown(const ShutdownOptions& options) {
  engine().Close();
  if (options.cancel_queued) engine().CancelQueued();
  if (options.kill_running) {
    engine().Terminate();
    return absl::OkStatus();
  }
  absl::Status end = engine().AwaitEnd(Deadline::After(options.grace));
  if (!end.ok()) engine().Terminate();
  return end;
}

int ProcessPool::workers() const { return engine().options().workers; }

std::vector<int> ProcessPool::WorkerPids() const {
  return engine().WorkerPids();
}

PoolStats ProcessPool::Stats() const {
  const EngineStats stats = engine().Stats();
  return {.workers_alive = stats.workers_alive,
          .queued = stats.queued,
          .running = stats.running,
          .completed = stats.completed,
          .worker_deaths = stats.worker_deaths,
          .retried = stats.retried};
}

}  // namespace cohort
