// SPDX-License-Identifier: Apache-2.0
//
// The pool without its types: tasks are bytes, results are bytes. The public
// face (pool/process_pool.h, pool/future.h) puts the types on.
//
// Who reads results. A thread that waits in Await() looks into the lanes
// itself; one of them at a time sleeps on the pool's bell ("on duty"), the
// others on a condition variable. The control thread reads when work is left to
// hand out and nobody waits. It also hears of deaths and of time-outs.

#ifndef COHORT_POOL_INTERNAL_ENGINE_H_
#define COHORT_POOL_INTERNAL_ENGINE_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/poll.h"
#include "cohort/os/process_id.h"
#include "cohort/pool/internal/lane.h"
#include "cohort/pool/internal/starter.h"
#include "cohort/pool/internal/task.h"
#include "cohort/pool/internal/worker.h"
#include "cohort/process/exit_status.h"
#include "cohort/shm/region.h"

namespace cohort::pool_internal {

struct EngineOptions {
  int workers = 1;
  bool fork = false;
  int retries = 0;
  int64_t grace_nanoseconds = 0;
  size_t ring_bytes = 0;  // A power of two.
};

struct EngineStats {
  int workers_alive = 0;
  size_t queued = 0;
  size_t running = 0;
  size_t completed = 0;
  size_t worker_deaths = 0;
  size_t retried = 0;
};

class Engine final {
 public:
  static absl::StatusOr<std::shared_ptr<Engine>> Create(
      const EngineOptions& options);
  // Kills what is left.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Takes `task`; it is done at once where `encoded` is an error or the pool is
  // closed.
  void Submit(std::shared_ptr<Task> task, absl::Status encoded);
  // Waits until `task` is done; false: not by `until`, or never (fork).
  bool Await(const Task& task, Deadline until);
  // Why Await() has returned false.
  [[nodiscard]] absl::Status WhyNotDone(const Task& task) const;
  // True iff it was queued and is done now, as Cancelled.
  bool Cancel(Task& task);

  // Puts `task` into a group under `index`, and where it is done already, among
  // the finished.
  void Join(const std::shared_ptr<Finished>& group, Task& task, size_t index);
  // The index of the n-th that finished; waits for it until `until`.
  std::optional<size_t> AwaitNext(const Finished& group, size_t n,
                                  Deadline until);

  void Close();
  [[nodiscard]] bool closed() const;
  // Waits until everything is done and all workers are gone.
  absl::Status AwaitEnd(Deadline until);
  void CancelQueued();
  void Terminate();

  [[nodiscard]] const EngineOptions& options() const { return options_; }
  [[nodiscard]] EngineStats Stats() const;
  [[nodiscard]] std::vector<int> WorkerPids() const;

 private:
  // A worker and its lane. The index is the lane's for ever; processes come and
  // go in it.
  struct Seat {
    StartedWorker process;
    bool alive = false;
    bool told_to_leave = false;  // Or killed by us: it gets no more tasks.
    Lane* lane = nullptr;
    RingWriter down;
    RingReader up;
    // What the worker has, in the order of its tasks' sequence numbers, of
    // which the first is `finished + 1`.
    std::deque<std::shared_ptr<Task>> assigned;
    uint64_t finished = 0;
    // How much of `assigned` has been written: whole tasks, and bytes of the
    // next.
    size_t written = 0;
    size_t written_bytes = 0;
    bool descriptors_sent = false;
    // A message from the worker of which some records have come.
    Frame incoming;
    double nanoseconds_per_task = -1;  // Smoothed; negative: unknown.
  };

  explicit Engine(const EngineOptions& options);
  absl::Status Start();
  absl::StatusOr<StartedWorker> StartWorker(uint32_t index);
  void OpenLane(Seat& seat, uint32_t index);

  // All below: with `mutex_` held.
  using Lock = std::unique_lock<std::mutex>;
  void Drain();
  void Drain(Seat& seat);
  void TakeRecord(Seat& seat, const Record& record);
  static void TakePart(Task& task, size_t elements, Frame& bytes);
  static void TakeDescriptors(Seat& seat, const RecordHeader& header,
                              Frame& frame);
  void Dispatch();
  [[nodiscard]] Seat* SeatWithRoom();
  [[nodiscard]] static size_t Depth(const Seat& seat, const Task& next);
  // Writes what fits of what is assigned.
  void Feed(Seat& seat);
  bool FeedOne(Seat& seat, Task& task, uint64_t sequence);
  void Finish(Task& task, absl::Status status);
  void FinishQueued(const absl::Status& status);
  void WorkerEnded(uint32_t index, Lock& lock);
  void Judge(Seat& seat, const ExitStatus& end);
  bool BlameFor(Task& task, const ExitStatus& end);
  void FillSeats(Lock& lock);
  void StopWorkersIfDone();
  void KillOverdue();
  [[nodiscard]] Deadline NextAppointment() const;
  void Break(const absl::Status& why);
  [[nodiscard]] bool NeedsReader() const;
  [[nodiscard]] bool AnyNews() const;
  [[nodiscard]] bool ArmPoller();
  // Waits until `ready()` or `until`; reads results meanwhile.
  template <typename Ready>
  bool AwaitReady(Deadline until, const Ready& ready);
  void Control();

  const EngineOptions options_;
  const os::Creator creator_;
  const bool may_spin_;
  Layout layout_;
  Region region_;
  Bell* bell_ = nullptr;
  os::Descriptor doorbell_;       // The poller's end.
  os::Descriptor doorbell_push_;  // The workers' end.
  std::optional<os::Poller> poller_;
  std::unique_ptr<Starter> starter_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // For waiters that are not on duty.
  int waiters_ = 0;                  // On `changed_`.
  // Tasks that ended; for threads that look without the mutex.
  std::atomic<uint64_t> endings_ = 0;
  bool on_duty_ = false;  // Somebody sleeps on the bell.
  std::vector<Seat> seats_;
  std::deque<std::shared_ptr<Task>> queue_;
  uint64_t next_number_ = 1;
  size_t unfinished_ = 0;
  size_t with_time_limit_ = 0;
  bool closed_ = false;
  bool leaving_ = false;  // Workers are being told to leave, or killed.
  absl::Status broken_;   // Not OK: no worker can be started any more.
  int starts_in_vain_ = 0;
  int64_t next_start_ = 0;  // Not before, in ns of CLOCK_MONOTONIC.
  bool control_ended_ = false;
  EngineStats stats_;
  std::unique_ptr<std::thread> control_;
};

}  // namespace cohort::pool_internal

#endif  // COHORT_POOL_INTERNAL_ENGINE_H_
