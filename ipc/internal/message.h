// SPDX-License-Identifier: Apache-2.0
//
// What the typed channels have in common between a value and the ring: a buffer
// for encoding that is not allocated anew each time, and a status for each way
// in which a ring's Put or Get can end.

#ifndef COHORT_IPC_INTERNAL_MESSAGE_H_
#define COHORT_IPC_INTERNAL_MESSAGE_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/internal/ring.h"
#include "cohort/os/deadline.h"
#include "cohort/serialize/frame.h"

namespace cohort::ipc_internal {

// An empty frame, borrowed from the calling thread and given back with its
// memory. Nested use, by a serialize() function that uses a queue, gets another
// one.
class Scratch final {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  Frame& frame() { return frame_; }

 private:
  Frame frame_;
};

inline Deadline DeadlineAfter(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return Deadline::Infinite();
  if (timeout <= absl::ZeroDuration()) return Deadline::Now();
  return Deadline::After(timeout);
}

// The capacity for these bounds, 0 being none, where all messages have
// `fixed_size` bytes or, if that is 0, any size.
absl::StatusOr<RingOptions> SizeRing(size_t max_items, size_t bytes,
                                     size_t fixed_size);

// The status for a Put() of `size` bytes or a Get() that ended so; kDone from
// Get() means a message of another size than the type has. `*over` becomes true
// where no message will ever come any more.
absl::Status PutStatus(RingEnd end, const Ring& ring, size_t size);
absl::Status GetStatus(RingEnd end, bool* over);

// Puts the bytes of a frame and copies of its descriptors.
absl::Status PutFrame(const Ring& ring, const Frame& frame, Deadline deadline);

// Fills an empty frame with the oldest message.
absl::Status GetFrame(const Ring& ring, Frame& frame, Deadline deadline,
                      bool* over);

// The status of an item that is lost because it could not be decoded.
absl::Status Undecodable(const absl::Status& why);

}  // namespace cohort::ipc_internal

#endif  // COHORT_IPC_INTERNAL_MESSAGE_H_
