// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/internal/message.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/socket.h"

namespace cohort::ipc_internal {
namespace {

// What a thread keeps between two messages.
constexpr size_t kKeep = 1 << 20;
// What a message may have to be read without a look at its size first.
constexpr size_t kUsual = 512;
constexpr uint64_t kDefaultBytes = 1 << 20;

// Set at the end of the thread, or of main(), when `spare` is destroyed: other
// destructors that run later may still put something into a queue.
thread_local bool spare_is_gone = false;

struct Spare {
  ~Spare() { spare_is_gone = true; }
  Frame frame;
};
thread_local Spare spare;

}  // namespace

Scratch::Scratch() {
  if (spare_is_gone) return;
  frame_ = std::move(spare.frame);
  frame_.Clear();
}

Scratch::~Scratch() {
  frame_.Clear();
  if (!spare_is_gone && frame_.capacity() <= kKeep) {
    spare.frame = std::move(frame_);
  }
}

absl::StatusOr<RingOptions> SizeRing(size_t max_items, size_t bytes,
                                     size_t fixed_size) {
  RingOptions options;
  options.max_items = max_items;
  const uint64_t record = Ring::RecordSize(fixed_size);
  if (max_items > Ring::kMaxItems || bytes > Ring::kMaxCapacity ||
      fixed_size > Ring::kMaxCapacity / 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queue: ", max_items, " items in ", bytes, " bytes; the limits are ",
        Ring::kMaxItems, " items, 4 GiB, and 2 GiB for one item"));
  }
  if (bytes != 0) {
    options.capacity =
        std::bit_ceil(std::max<uint64_t>(bytes, 2 * Ring::kUnit));
    if (record > options.capacity - Ring::kUnit) {
      return absl::InvalidArgumentError(absl::StrCat(
          "queue: an item of ", fixed_size, " bytes does not fit into ", bytes,
          " bytes; ask for ", record + Ring::kUnit, " or more"));
    }
    return options;
  }
  // One unit stays free behind the newest record.
  options.capacity =
      fixed_size == 0
          ? kDefaultBytes
          : (max_items == 0 ? 16 : max_items) * record + Ring::kUnit;
  if (fixed_size == 0 || max_items == 0) {
    options.capacity = std::max(options.capacity, kDefaultBytes);
  }
  if (options.capacity > Ring::kMaxCapacity) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queue: ", max_items, " items of ", fixed_size, " bytes take ",
        options.capacity, " bytes, and the limit is 4 GiB; ask for fewer"));
  }
  options.capacity = std::bit_ceil(options.capacity);
  return options;
}

absl::Status PutStatus(RingEnd end, const Ring& ring, size_t size) {
  switch (end) {
    case RingEnd::kDone:
      return absl::OkStatus();
    case RingEnd::kLate:
      return absl::DeadlineExceededError(
          "queue: it stayed full for as long as Put() was to wait");
    case RingEnd::kClosed:
      return absl::FailedPreconditionError(
          "queue: it was closed, so nothing can be put any more");
    case RingEnd::kTooLarge:
      return absl::ResourceExhaustedError(
          absl::StrCat("queue: an item of ", size,
                       " bytes can never fit, the largest that "
                       "can has ",
                       ring.max_size(), "; create the queue with .bytes = ",
                       Ring::RecordSize(size) + Ring::kUnit, " or more"));
    case RingEnd::kManyInFlight:
      return absl::DeadlineExceededError(
          "queue: this user has as many descriptors in unread messages as the "
          "limit on open files allows, and none was read for as long as Put() "
          "was to wait; let others read, or raise the limit with `ulimit -n`");
    case RingEnd::kNoNumbers:
    case RingEnd::kDamaged:
      break;
  }
  return absl::DataLossError(
      "queue: a process that shares it has overwritten its memory; create a "
      "new one");
}

absl::Status GetStatus(RingEnd end, bool* over) {
  switch (end) {
    case RingEnd::kDone:
      return absl::DataLossError(
          "queue: an item of another size than its type has was taken and is "
          "lost");
    case RingEnd::kLate:
      return absl::DeadlineExceededError(
          "queue: it stayed empty for as long as Get() was to wait");
    case RingEnd::kClosed:
      *over = true;
      return absl::OutOfRangeError("queue: it was closed and is drained");
    case RingEnd::kNoNumbers:
      return absl::ResourceExhaustedError(
          "queue: the oldest item has descriptors, and no number is left for "
          "them in this process; it stays in the queue. Close some, or raise "
          "the limit with `ulimit -n`");
    case RingEnd::kTooLarge:
    case RingEnd::kManyInFlight:
    case RingEnd::kDamaged:
      break;
  }
  *over = true;
  return absl::DataLossError(
      "queue: a process that shares it has overwritten its memory; create a "
      "new one");
}

absl::Status PutFrame(const Ring& ring, const Frame& frame, Deadline deadline) {
  const std::vector<os::Descriptor>& descriptors = frame.descriptors();
  if (descriptors.size() > os::kMostDescriptorsPerMessage) [[unlikely]] {
    return absl::InvalidArgumentError(absl::StrCat(
        "queue: an item with ", descriptors.size(),
        " descriptors (regions, queues and files have some); one item carries "
        "at most ",
        os::kMostDescriptorsPerMessage, ", so put it in parts"));
  }
  const RingEnd end =
      ring.Put(frame.data(), frame.size(), deadline, descriptors);
  if (end == RingEnd::kDone) [[likely]]
    return absl::OkStatus();
  return PutStatus(end, ring, frame.size());
}

absl::Status GetFrame(const Ring& ring, Frame& frame, Deadline deadline,
                      bool* over) {
  size_t room = std::max(frame.capacity(), kUsual);
  for (;;) {
    char* to = nullptr;
    try {
      frame.Clear();
      to = frame.Extend(room);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError(
          absl::StrCat("queue: no memory for an item of ", room,
                       " bytes, which stays in the queue"));
    }
    size_t size = 0;
    os::DescriptorBatch descriptors;
    const RingEnd end =
        ring.Get(to, room, Larger::kKeep, &size, deadline, &descriptors);
    if (end == RingEnd::kDone) [[likely]] {
      frame.Truncate(size);
      if (descriptors.size() > 0) frame.descriptors() = descriptors.Take();
      return absl::OkStatus();
    }
    if (end != RingEnd::kTooLarge) return GetStatus(end, over);
    room = size;  // At most the ring's capacity: it was checked.
  }
}

absl::Status Undecodable(const absl::Status& why) {
  return absl::DataLossError(
      absl::StrCat("queue: an item was taken but could not be decoded, and is "
                   "lost: ",
                   why.ToString()));
}

}  // namespace cohort::ipc_internal
