// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ProcessGroup` starts many processes and joins them once. It
// remembers the first that failed, whether at its start or at its end.
//
//   cohort::ProcessGroup group;
//   for (int shard = 0; shard < 3; ++shard) {
//     group.Start({.name = "shard" + std::to_string(shard)}, Index, shard);
//   }
//   absl::Status all = group.Join();
//   // ABORTED: process shard1 (pid 4711) was killed by signal 9 (SIGKILL)
//
// Join() waits for all of them. So producers and consumers of one queue go into
// two groups: join the producers, close the queue, join the consumers.
//
// It neither restarts a process nor ends the others when one fails: that is a
// supervisor's work. For many short tasks take a `ProcessPool`.

#ifndef COHORT_PROCESS_PROCESS_GROUP_H_
#define COHORT_PROCESS_PROCESS_GROUP_H_

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/process/process.h"

namespace cohort {

// ProcessGroup
//
// Contract
//   Placement:      anywhere but shared memory. Neither copied nor moved.
//   Thread-safety:  one thread at a time; other threads may use what
//                   processes() refers to, as process/process.h allows.
//   Process-safety: the process that made it is its only owner.
//   Fork-safety:    inert in a forked copy, as its processes are.
//   Crash-safety:   as process/process.h.
//   Signal-safety:  none.
//   Errors:         Start() returns none: Join() tells.
//   Ordering:       what a process did before it ended is visible after Join().
//   Cost:           as its processes; Join() makes some system calls for each.
//   Reference:      errgroup of Go; docs/design/process_start.md.
class ProcessGroup final {
 public:
  // `defaults` hold for what is started without options.
  explicit ProcessGroup(ProcessOptions defaults = {});

  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  // Asks all that still run to end (SIGTERM), kills those that have not done so
  // within the longest `grace` among them, and collects every exit status.
  // Those with Lifetime::kDetach run on.
  ~ProcessGroup();

  // Starts one more, as Process::Start does.
  template <typename F, typename... Args>
  void Start(const ProcessOptions& options, F&& function, Args&&... arguments) {
    Add(Process::Start(options, std::forward<F>(function),
                       std::forward<Args>(arguments)...));
  }
  template <typename F, typename... Args>
  requires process_internal::NotOptions<F, ProcessOptions>
  void Start(F&& function, Args&&... arguments) {
    Start(defaults_, std::forward<F>(function),
          std::forward<Args>(arguments)...);
  }

  // Waits until all have ended. Returns OK iff every one was started and ended
  // well; otherwise the failure that came first, a failed start or an end as
  // ExitStatus::ToStatus() tells it. Of ends that happened between two looks,
  // the one started first counts as first. DeadlineExceeded names one that
  // still runs; join again. The verdict covers all that were ever started.
  absl::Status Join(absl::Duration timeout = absl::InfiniteDuration());

  // SIGTERM and SIGKILL to all that still run.
  void Terminate();
  void Kill();

  // All that were started, in that order, ended ones too. Valid until the next
  // Start().
  [[nodiscard]] std::span<Process> processes() { return processes_; }

 private:
  void Add(absl::StatusOr<Process> started);
  void Note(const absl::Status& failure);

  ProcessOptions defaults_;
  std::vector<Process> processes_;
  std::vector<size_t> running_;  // Not collected yet; indexes of `processes_`.
  absl::Status first_failure_;
};

}  // namespace cohort

#endif  // COHORT_PROCESS_PROCESS_GROUP_H_
