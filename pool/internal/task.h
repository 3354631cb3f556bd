// SPDX-License-Identifier: Apache-2.0
//
// One call, or one chunk of a Map(), on its way through a pool. A `Future`
// holds it, and the engine works on it.

#ifndef COHORT_POOL_INTERNAL_TASK_H_
#define COHORT_POOL_INTERNAL_TASK_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "cohort/serialize/frame.h"

namespace cohort::pool_internal {

// Where the finished tasks of a group are named, in the order of their ends.
// Guarded by the engine's mutex.
struct Finished {
  std::vector<size_t> indices;
};

// |            | Cancel()  | worker dies                    | result arrives |
// |------------+-----------+--------------------------------+----------------|
// | kQueued    | kDone     | --                             | --             |
// | kAssigned  | refused   | begun: kDone (Aborted), or     | kDone          |
// |            |           | kQueued while retries are left;|                |
// |            |           | not begun: kQueued             |                |
// | kDone      | refused   | --                             | --             |
struct Task {
  enum State : uint32_t { kQueued, kAssigned, kDone };

  [[nodiscard]] bool done() const {
    return state.load(std::memory_order_acquire) == kDone;
  }

  // What to run. For a chunk: the function, then its elements, of which `ends`
  // holds where each one ends.
  Frame call;
  std::vector<size_t> ends;
  size_t function_bytes = 0;
  int retries = 0;
  int64_t timeout_nanoseconds = 0;  // Of one attempt; 0: none.

  // Below: guarded by the engine's mutex until `state` is kDone.
  std::atomic<uint32_t> state = kQueued;
  uint64_t number = 0;    // In the pool, from 1; for messages.
  int deaths = 0;         // Of workers that had begun the task, or the element.
  int deaths_before = 0;  // Of workers that had it and had not begun.
  size_t elements_done = 0;
  int64_t overdue = 0;     // When the attempt's time is up; 0: no limit.
  bool timed_out = false;  // Its worker was killed for that.

  // How it ended. Not OK: there is no result.
  absl::Status status;
  Frame result;
  // Of a chunk: the results of its elements one after another, a frame of its
  // own for one with descriptors, and which elements have an error instead.
  std::vector<Frame> parts;
  std::vector<std::pair<size_t, absl::Status>> lost;

  std::shared_ptr<Finished> group;
  size_t index_in_group = 0;
};

}  // namespace cohort::pool_internal

#endif  // COHORT_POOL_INTERNAL_TASK_H_
