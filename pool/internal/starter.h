// SPDX-License-Identifier: Apache-2.0
//
// Where a pool's workers come from: each spawned afresh, or all forked from a
// seed, a copy of the program that was made before the pool had threads.

#ifndef COHORT_POOL_INTERNAL_STARTER_H_
#define COHORT_POOL_INTERNAL_STARTER_H_

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/pool/internal/worker.h"
#include "cohort/process/exit_status.h"
#include "cohort/process/process.h"

namespace cohort::pool_internal {

struct StartedWorker {
  int pid = 0;
  os::Descriptor pidfd;            // Readable when it has ended.
  os::Descriptor socket;           // The pool's end of the worker's socket.
  std::optional<Process> process;  // Where it is a child of this process.
};

// Not thread-safe: one thread at a time.
class Starter {
 public:
  virtual ~Starter() = default;
  // Starts a worker and returns when it is ready. `seat.socket` is empty; both
  // ends are made here.
  virtual absl::StatusOr<StartedWorker> Start(WorkerSeat seat) = 0;
  // How an ended worker ended. A status of its own where that is unknown.
  virtual ExitStatus Collect(StartedWorker& worker) = 0;
};

std::unique_ptr<Starter> MakeSpawnStarter();
// FailedPrecondition where the caller has other threads.
absl::StatusOr<std::unique_ptr<Starter>> MakeForkStarter();

}  // namespace cohort::pool_internal

#endif  // COHORT_POOL_INTERNAL_STARTER_H_
