// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ProcessPool` runs functions in a fixed number of worker processes
// and brings their results back. A worker that is killed takes nothing along:
// it is replaced, and the one call that it was running fails with a clear
// status or is run again, as the caller chose.
//
//   int Square(int x) { return x * x; }
//
//   int main(int argc, char** argv) {
//     cohort::Init(argc, argv);
//     cohort::ProcessPool pool = OrDie(cohort::ProcessPool::Create());
//     std::vector<int> squares = OrDie(pool.Map(Square, {1, 2, 3, 4}));
//     cohort::Future<int> f = pool.Submit({.retries = 2}, Square, 7);
//     int seven = OrDie(f.Get(absl::Seconds(1)));
//   }
//
// For one process that runs one function take `cohort::Process`
// (process/process.h); for workers that pull their own work, processes and a
// `Queue` (ipc/queue.h); within one process, threads.

#ifndef COHORT_POOL_PROCESS_POOL_H_
#define COHORT_POOL_PROCESS_POOL_H_

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/check.h"
#include "cohort/os/deadline.h"
#include "cohort/pool/future.h"
#include "cohort/pool/internal/engine.h"
#include "cohort/pool/internal/task.h"
#include "cohort/process/process.h"
#include "cohort/serialize/callable.h"

namespace cohort {

struct PoolOptions {
  // Worker processes; 0 is UsableCpus(). At most 1024.
  int workers = 0;
  // kSpawn (the default): each worker runs the program afresh, and other
  // threads do not matter. kFork: the pool forks a seed process in Create(),
  // which must run while there is only one thread; workers are copies of it
  // and see the memory as it was then.
  StartMethod start_method = StartMethod::kDefault;
  // How often a call may be run again after the worker that had begun it died;
  // 0: never, the call fails with Aborted. CallOptions and MapOptions override.
  int retries = 0;
  // How long the destructor waits for running and queued calls before it kills.
  absl::Duration grace = absl::Seconds(10);
  // The memory through which tasks and results pass, per worker and direction,
  // in bytes; rounded up to a power of two, at least 16 KiB. Larger values only
  // pass in pieces.
  size_t lane_bytes = size_t{256} << 10;
};

struct CallOptions {
  // The longest that one attempt may run. When it is over, the worker is killed
  // and replaced and the call fails with DeadlineExceeded; no further attempt.
  // (How long a caller waits is the argument of Future::Get().)
  absl::Duration timeout = absl::InfiniteDuration();
  // As in PoolOptions; unset: as there.
  std::optional<int> retries = std::nullopt;
};

struct MapOptions {
  // Elements that travel together; 0: chosen so that each worker gets about
  // four chunks. After the death of a worker only elements without a result run
  // again.
  size_t chunk = 0;
  // The longest that the caller waits; then DeadlineExceeded. What no worker
  // has by then is cancelled, what one has runs on.
  absl::Duration timeout = absl::InfiniteDuration();
  // As in PoolOptions, for each element; unset: as there.
  std::optional<int> retries = std::nullopt;
};

struct ShutdownOptions {
  bool cancel_queued = false;  // What no worker has becomes Cancelled.
  bool kill_running = false;   // What workers have becomes Cancelled, at once.
  absl::Duration grace = absl::InfiniteDuration();  // Then all is killed.
};

// What a pool has done so far.
struct PoolStats {
  int workers_alive = 0;  // One that is being replaced does not count.
  size_t queued = 0;      // Calls and chunks that no worker has yet.
  size_t running = 0;     // That workers have.
  size_t completed = 0;   // Calls and chunks that ended, one way or the other.
  size_t worker_deaths = 0;  // Without those that a time limit ended.
  size_t retried = 0;        // Attempts after the first.
};

namespace pool_internal {

template <typename Range>
using Element = decltype(*std::begin(std::declval<Range&>()));
template <typename Range>
concept InputRange = requires(Range& range) {
  std::begin(range);
  std::end(range);
};
// What Map() returns for functions that return Value.
template <typename Value>
struct MapResultOf {
  using type = absl::StatusOr<std::vector<Value>>;
};
template <>
struct MapResultOf<void> {
  using type = absl::Status;
};
template <typename F, typename... A>
using MapResult = typename MapResultOf<RemoteValue<F, A...>>::type;

}  // namespace pool_internal

// ProcessPool
//
// |            | Submit(), Map() ...  | Close() | Join()              |
// |------------+----------------------+---------+---------------------|
// | Open       | run                  | Closed  | FailedPrecondition  |
// | Closed     | FailedPrecondition   | --      | waits for all calls |
// | Terminated | FailedPrecondition   | --      | waits for the ends  |
//
// Contract
//   Placement:      anywhere but shared memory; movable.
//   Thread-safety:  every member from any thread, except that moving and
//                   destroying it excludes all others.
//   Process-safety: belongs to the process that created it.
//   Fork-safety:    inert in a forked copy, whose destructor does nothing.
//   Crash-safety:   a worker may be killed at any instruction: its results so
//                   far count, the call that it had begun fails with Aborted
//                   or is retried, all others run elsewhere. When the parent is
//                   killed, the kernel kills the workers.
//   Signal-safety:  none. Workers ignore SIGINT: Ctrl-C is for the parent.
//   Errors:         from Create(): those of Process::Start() and Region. Calls
//                   deliver theirs through the future.
//   Ordering:       what the caller did before Submit() is visible to the
//                   function, in what its arguments refer to.
//   Cost:           one thread that wakes once a second; per worker a
//                   process, two sockets' ends, a pidfd, and twice lane_bytes.
//                   A call of a small function, hot: no system call.
//   Reference:      Python's multiprocessing.Pool and ProcessPoolExecutor;
//                   docs/design/pool.md.
class ProcessPool final {
 public:
  // Starts the workers and returns when all of them are ready.
  static absl::StatusOr<ProcessPool> Create(PoolOptions options = {});

  ProcessPool(ProcessPool&&) noexcept = default;
  // The pool that was there ends with `other`.
  ProcessPool& operator=(ProcessPool&& other) noexcept;
  // Shutdown({.grace = PoolOptions::grace}).
  ~ProcessPool();

  // Runs `function(arguments...)` in a worker. Never blocks: what does not fit
  // into the lanes waits in memory.
  template <typename F, typename... A>
  Future<RemoteValue<F, A...>> Submit(const CallOptions& options, F&& function,
                                      A&&... arguments) {
    CheckCall<F, A...>();
    std::shared_ptr<pool_internal::Task> task = NewTask(options);
    absl::Status encoded = EncodeCall(task->call, std::forward<F>(function),
                                      std::forward<A>(arguments)...);
    engine().Submit(task, std::move(encoded));
    return Future<RemoteValue<F, A...>>(engine_, std::move(task));
  }
  template <typename F, typename... A>
  requires process_internal::NotOptions<F, CallOptions>
      Future<RemoteValue<F, A...>> Submit(F&& function, A&&... arguments) {
    return Submit(CallOptions(), std::forward<F>(function),
                  std::forward<A>(arguments)...);
  }

  // Submit() and Get().
  template <typename F, typename... A>
  requires process_internal::NotOptions<F, CallOptions> RemoteResult<F, A...>
  Apply(F&& function, A&&... arguments) {
    return Submit(std::forward<F>(function), std::forward<A>(arguments)...)
        .Get();
  }

  // Runs `function` over all elements and returns the results in their order,
  // or the first error in that order; the others run all the same. Where the
  // good results count too, Submit() them one by one and take AsCompleted().
  template <typename F, pool_internal::InputRange Range>
  pool_internal::MapResult<F, pool_internal::Element<Range>> Map(
      F&& function, Range&& elements, const MapOptions& options = {}) {
    using Arg = pool_internal::Element<Range>;
    CheckCall<F, Arg>();
    return MapOver<F, Arg>(function, std::begin(elements), std::end(elements),
                           options);
  }
  template <typename F, typename T>
  pool_internal::MapResult<F, const T&> Map(F&& function,
                                            std::initializer_list<T> elements,
                                            const MapOptions& options = {}) {
    CheckCall<F, const T&>();
    return MapOver<F, const T&>(function, elements.begin(), elements.end(),
                                options);
  }

  // No further calls. Those that were submitted still run.
  void Close();

  // Waits until all calls are done and all workers have left.
  // DeadlineExceeded: not yet; FailedPrecondition: the pool is still open.
  absl::Status Join(absl::Duration timeout = absl::InfiniteDuration());

  // Kills the workers and returns when they are gone. All calls without a
  // result become Cancelled.
  void Terminate();

  // Close() and Join(), as hurried as the options say. DeadlineExceeded: the
  // grace was over, and calls were cancelled.
  absl::Status Shutdown(const ShutdownOptions& options = {});

  [[nodiscard]] int workers() const;
  // The processes that work now.
  [[nodiscard]] std::vector<int> WorkerPids() const;
  [[nodiscard]] PoolStats Stats() const;

 private:
  explicit ProcessPool(std::shared_ptr<pool_internal::Engine> engine)
      : engine_(std::move(engine)) {}

  std::shared_ptr<pool_internal::Task> NewTask(
      const CallOptions& options) const;
  size_t ChunkFor(size_t elements, const MapOptions& options) const;
  std::shared_ptr<pool_internal::Task> NewChunk(
      std::string_view function, const MapOptions& options) const;
  // Waits for all; a status if the time is over or the pool is closed.
  absl::Status AwaitChunks(
      const std::vector<std::shared_ptr<pool_internal::Task>>& chunks,
      Deadline deadline);

  template <typename F, typename Arg, typename Iterator, typename End>
  pool_internal::MapResult<F, Arg> MapOver(F& function, Iterator first,
                                           End last, const MapOptions& options);

  [[nodiscard]] pool_internal::Engine& engine() const {
    os::Check(engine_ != nullptr, "ProcessPool used after it was moved from");
    return *engine_;
  }

  std::shared_ptr<pool_internal::Engine> engine_;
};

template <typename F, typename Arg, typename Iterator, typename End>
pool_internal::MapResult<F, Arg> ProcessPool::MapOver(
    F& function, Iterator first, End last, const MapOptions& options) {
  using Value = RemoteValue<F, Arg>;
  // A descriptor budget for each chunk: one message of a socket carries them.
  constexpr size_t kMostDescriptors = 200;
  const Deadline deadline = Deadline::After(options.timeout);
  Frame encoded;
  if (absl::Status ok = EncodeFunction<F, Arg>(encoded, function); !ok.ok()) {
    return ok;
  }
  size_t count = 0;  // Of elements; unknown for a range that is read once.
  if constexpr (std::forward_iterator<Iterator>) {
    count = static_cast<size_t>(std::distance(first, last));
  }
  const size_t chunk_size = ChunkFor(count, options);
  std::vector<std::shared_ptr<pool_internal::Task>> chunks;
  absl::Status failed;
  for (; first != last && failed.ok();) {
    std::shared_ptr<pool_internal::Task> chunk =
        NewChunk(encoded.bytes(), options);
    chunk->ends.reserve(std::min(chunk_size, count));
    while (first != last && chunk->ends.size() < chunk_size &&
           chunk->call.descriptors().size() < kMostDescriptors) {
      failed = EncodeElement<F, Arg>(chunk->call, *first);
      if (!failed.ok()) break;
      ++first;
      chunk->ends.push_back(chunk->call.size());
    }
    if (chunk->ends.empty()) break;
    chunks.push_back(chunk);
    engine().Submit(std::move(chunk), absl::OkStatus());
  }
  if (!failed.ok()) {
    for (const auto& chunk : chunks) engine().Cancel(*chunk);
    return failed;
  }
  if (absl::Status done = AwaitChunks(chunks, deadline); !done.ok()) {
    return done;
  }
  // In the order of the elements; the first error is the whole Map's.
  std::vector<std::conditional_t<std::is_void_v<Value>, char, Value>> values;
  if constexpr (!std::is_void_v<Value>) values.reserve(count);
  for (const auto& chunk : chunks) {
    if (!chunk->status.ok()) return chunk->status;
    size_t element = 0;
    for (Frame& part : chunk->parts) {
      Decoder results(part.bytes(), std::move(part.descriptors()));
      for (; results.remaining() > 0; ++element) {
        if (!chunk->lost.empty() && chunk->lost.front().first == element) break;
        auto one = DecodeNextResult<Value>(results);
        if constexpr (std::is_void_v<Value>) {
          if (!one.ok()) return one;
        } else {
          if (!one.ok()) return one.status();
          values.push_back(*std::move(one));
        }
      }
    }
    if (!chunk->lost.empty()) return chunk->lost.front().second;
  }
  if constexpr (std::is_void_v<Value>) {
    return absl::OkStatus();
  } else {
    return values;
  }
}

}  // namespace cohort

#endif  // COHORT_POOL_PROCESS_POOL_H_
