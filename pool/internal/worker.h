// SPDX-License-Identifier: Apache-2.0
//
// The worker's side of a pool: reads tasks from its lane, runs them one after
// another, writes their results, and leaves when it is told to.

#ifndef COHORT_POOL_INTERNAL_WORKER_H_
#define COHORT_POOL_INTERNAL_WORKER_H_

#include <cstddef>
#include <cstdint>

#include "cohort/os/descriptor.h"
#include "cohort/shm/region.h"

namespace cohort::pool_internal {

// Where things are in a pool's region: the bell, then the lanes' words, then
// for each lane its ring down and its ring up.
struct Layout {
  uint32_t workers = 0;
  uint32_t ring_bytes = 0;  // Of each ring; a power of two.

  [[nodiscard]] size_t LaneAt(uint32_t index) const;
  [[nodiscard]] size_t DownAt(uint32_t index) const;
  [[nodiscard]] size_t UpAt(uint32_t index) const;
  [[nodiscard]] size_t Size() const;
};

// What a worker is started with.
struct WorkerSeat {
  Region region;
  Layout layout;
  uint32_t index = 0;
  os::Descriptor socket;    // Descriptors of tasks and results travel here.
  os::Descriptor doorbell;  // A byte sent here wakes the pool's poller.

  // In a forked worker, the number of its copy of the seed's socket, which
  // would hide the seed's death from the pool; else -1.
  int seeds_socket = -1;

  template <class Archive>
  void serialize(Archive& archive) {
    archive(region, layout, index, socket, doorbell, seeds_socket);
  }
};

// The function that a worker process runs. Returns its exit code.
int WorkerMain(WorkerSeat seat);

}  // namespace cohort::pool_internal

#endif  // COHORT_POOL_INTERNAL_WORKER_H_
