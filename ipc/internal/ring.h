// SPDX-License-Identifier: Apache-2.0
//
// `Ring` carries messages, runs of bytes of any length, from any number of
// processes to any number of others, in a region of shared memory. It is what
// the queues are made of; it knows neither types nor statuses.
//
//   absl::StatusOr<Ring> ring = Ring::Create({.capacity = 1 << 20});
//   if (ring->Put(text.data(), text.size(), deadline) == RingEnd::kDone) ...
//   RingEnd end = ring->Get(buffer, sizeof(buffer), Larger::kCut, &size,
//                           deadline);
//
// Two robust locks, one for producers and one for consumers; each message
// begins with a header word whose one store makes it exist, and ends to exist
// by one store to `head`. All else is a cache, or a hint to sleepers.
// docs/design/queue.md has the argument, docs/formats/ring.md the layout.
//
// A ring made with `.carries_descriptors` has a pair of sockets beside it. The
// descriptors of a message are sent there before its record is committed, under
// a number that stands in the record, and are removed after it was taken:
// docs/design/handles.md.

#ifndef COHORT_IPC_INTERNAL_RING_H_
#define COHORT_IPC_INTERNAL_RING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/socket.h"
#include "cohort/shm/region.h"
#include "cohort/sync/internal/short_lock.h"

namespace cohort::ipc_internal {

enum class RingEnd {
  kDone,
  kLate,      // The deadline passed.
  kClosed,    // For Put: closed. For Get: closed and drained.
  kTooLarge,  // For Put: never fits. For Get: larger than `room`, and kept.
  kDamaged,   // The shared memory holds what no Ring wrote.
  // Of messages with descriptors:
  kManyInFlight,  // For Put: kLate, as this user has too many on their way.
  kNoNumbers,     // For Get: no number is left for one here; it was kept.
};

// What Get() does with a message larger than the room for it.
enum class Larger {
  kCut,   // Takes it all the same and hands over what fits.
  kKeep,  // Leaves it where it is.
};

struct RingOptions {
  // Bytes for records; made a power of two from 128 to 2^32.
  uint64_t capacity = 1 << 20;
  // At most so many messages at a time, up to 2^26; 0 for no such bound.
  uint64_t max_items = 0;
  uint64_t type_tag = 0;
  std::string name = "ring";
  // Whether messages may have descriptors; costs two.
  bool carries_descriptors = false;
};

// How a side tells sleepers of the other that there is something to see. Who
// wants to sleep reads `event`, sets `flag`, looks once more, and sleeps while
// `event` stays. Who has changed something takes the flag down by a
// read-modify-write; if it was up, he advances `event` and wakes one. As both
// touch `flag` by read-modify-writes, either the waker finds it up or the
// sleeper's last look sees the change. Whoever has slept puts it up again, for
// others may still sleep; so it may be up without need.
struct Bell {
  std::atomic<uint32_t> flag;
  std::atomic<uint32_t> event;
};

// Ring
//
// |        | Put()          | Get()            | Close() | a process dies    |
// |--------+----------------+------------------+---------+-------------------|
// | Open   | stored, or     | oldest, or waits | Closed  | what was stored   |
// |        | waits for room | for one          |         | stays             |
// | Closed | kClosed        | oldest; if none, | --      | likewise          |
// |        |                | kClosed          |         |                   |
//
// Contract
//   Placement:      a handle in private memory on a region of its own.
//   Thread-safety:  Put, Get, Close, ApproxSize and rescues: any thread. The
//                   handle itself: as a std::shared_ptr.
//   Process-safety: likewise, in one PID namespace.
//   Fork-safety:    a handle works in the child.
//   Crash-safety:   whatever instruction a process dies at, each message of
//                   which Put() said kDone is handed over exactly once, except
//                   for one that the dead process had taken already.
//   Signal-safety:  none.
//   Errors:         RingEnd. A peer that scribbles over the memory causes
//                   kDamaged or wrong content, nothing else.
//   Ordering:       what was written before Put() is visible after the Get() of
//                   that message. Messages come in one order for all.
//   Cost:           no system call where nobody sleeps: three atomic read-
//                   modify-writes and one copy on each side. A sleeper looks up
//                   every 20 ms at first, every 100 ms later. Descriptors: one
//                   system call to put, two to get.
//   Reference:      docs/design/queue.md, docs/formats/ring.md.
class Ring final {
 public:
  static constexpr uint64_t kUnit = 64;  // Records start at multiples of it.
  static constexpr uint64_t kMaxCapacity = uint64_t{1} << 32;
  static constexpr uint64_t kMaxItems = kMaxCapacity / kUnit;

  // The part of a ring's capacity that a message of `size` bytes takes.
  static constexpr uint64_t RecordSize(uint64_t size) {
    return (sizeof(uint64_t) + size + kUnit - 1) / kUnit * kUnit;
  }

  Ring() = default;

  // InvalidArgument for impossible options; else as Region::Create().
  static absl::StatusOr<Ring> Create(const RingOptions& options);

  // FailedPrecondition where the region holds no ring with this tag.
  static absl::StatusOr<Ring> Attach(Region region, uint64_t type_tag);

  // Likewise for a ring that carries descriptors, through these sockets.
  static absl::StatusOr<Ring> Attach(Region region, uint64_t type_tag,
                                     os::Descriptor in, os::Descriptor out);

  [[nodiscard]] bool empty_handle() const { return shared_ == nullptr; }
  [[nodiscard]] const Region& region() const { return region_; }

  // What Attach() takes; invalid in a ring that carries no descriptors.
  [[nodiscard]] const os::Descriptor& in() const;
  [[nodiscard]] const os::Descriptor& out() const;

  // The longest message that can ever be put.
  [[nodiscard]] uint64_t max_size() const {
    return capacity_ - kUnit - sizeof(uint64_t);
  }
  [[nodiscard]] uint64_t capacity() const { return capacity_; }

  // Appends a message, waiting for room. A deadline that has passed makes one
  // attempt, which still waits out a rival in the middle of his. Descriptors
  // are copied; at most os::kMostDescriptorsPerMessage, and none into a ring
  // that carries none.
  RingEnd Put(const void* bytes, size_t size, Deadline deadline,
              absl::Span<const os::Descriptor> descriptors = {}) const;

  // Takes the oldest message, waiting for one. `*size` is its length, for
  // kTooLarge too; at most `room` bytes of it are copied to `to`, and its
  // descriptors added to `descriptors`. Without such, they are closed.
  RingEnd Get(void* to, size_t room, Larger larger, size_t* size,
              Deadline deadline,
              os::DescriptorBatch* descriptors = nullptr) const;

  // No message is accepted from now on; the accepted ones can still be taken.
  void Close() const;

  // How many messages there are, give or take what is happening meanwhile.
  [[nodiscard]] uint64_t ApproxSize() const;

  // How often a sleeper found something to do that nobody had woken it for: the
  // waker was killed, or stopped. Of all processes.
  [[nodiscard]] uint64_t rescues() const;

 private:
  friend struct RingTestPeer;

  // The start of the region; the records follow.
  struct Shared {
    uint64_t magic;
    uint32_t version;
    uint32_t max_items;
    uint64_t capacity;
    std::atomic<uint64_t> rescues;

    struct alignas(128) Producers {
      sync_internal::ShortLock lock;
      std::atomic<uint32_t> state;     // kClosed, kDamaged.
      std::atomic<uint64_t> tail;      // Where the next record begins.
      std::atomic<uint32_t> sequence;  // Of the next record.
      uint32_t oldest;                 // The sequence at `head`, as last seen.
      uint64_t head;                   // As last seen.
      Bell not_empty;
      std::atomic<uint64_t> stamp;  // Of the latest descriptors, or attempt.
    } producers;

    struct alignas(128) Consumers {
      sync_internal::ShortLock lock;
      uint32_t reserved;
      std::atomic<uint64_t> head;  // Where the oldest record begins.
      uint64_t tail;               // As last seen; for prefetching alone.
      uint64_t next_look;          // Position at which to look at it again.
      Bell not_full;
    } consumers;
  };
  static_assert(sizeof(Shared) == 384, "shared ABI");

  explicit Ring(Region region);

  std::atomic<uint64_t>& Word(uint64_t position) const {
    return *reinterpret_cast<std::atomic<uint64_t>*>(data_ +
                                                     (position & mask_));
  }

  // Behind the header of a record with descriptors.
  std::atomic<uint64_t>& Stamp(uint64_t position) const {
    return *reinterpret_cast<std::atomic<uint64_t>*>(
        data_ + (position & mask_) + sizeof(uint64_t));
  }

  // The sockets of a ring that carries descriptors: what is sent to `in` is
  // received from `out`.
  struct Post {
    os::Descriptor in;
    os::Descriptor out;
  };

  [[nodiscard]] bool IsSound(uint64_t header) const;
  void CopyIn(uint64_t position, uint64_t skip, const void* bytes,
              size_t size) const;
  void CopyOut(uint64_t position, uint64_t skip, void* to, size_t size) const;
  bool HasRoom(uint64_t tail, uint32_t sequence, uint64_t record) const;
  void LookAtHead(uint32_t sequence) const;
  uint64_t NextStamp() const;
  os::PeekEnd PeekPost(uint64_t stamp, os::DescriptorBatch* batch) const;
  bool DropLeftovers(uint64_t last_stamp, Deadline deadline) const;
  void PrefetchFree(uint64_t from, uint64_t record) const;
  void PrefetchFilled(uint64_t from, uint64_t record) const;
  bool RepairProducers() const;
  void Damaged() const;
  template <typename Ready>
  bool Sleep(Bell& bell, uint32_t event, Deadline slice, Ready ready) const;

  Region region_;
  std::shared_ptr<const Post> post_;  // Null where none are carried.
  Shared* shared_ = nullptr;
  std::byte* data_ = nullptr;
  // Copies of what stands in shared memory, taken and checked once.
  uint64_t capacity_ = 0;
  uint64_t mask_ =
      0;  // Makes a position an offset that is a multiple of kUnit.
  uint64_t max_items_ = 0;
};

}  // namespace cohort::ipc_internal

#endif  // COHORT_IPC_INTERNAL_RING_H_
