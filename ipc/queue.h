// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Queue<T>` hands values from any number of processes to any number of
// others, in order, each value to one of them. It lives in shared memory alone:
// no feeder thread, no server, no name, nothing to flush and nothing left
// behind. What Put() accepted stays until it is taken, even if the process that
// put it is killed the moment after.
//
//   struct Job {
//     int id = 0;
//     std::string path;
//     template <class Archive>
//     void serialize(Archive& archive) { archive(id, path); }
//   };
//
//   absl::Status Work(cohort::Queue<Job> jobs) {
//     for (absl::StatusOr<Job> job : jobs.Items()) {   // until it is closed
//       if (!job.ok()) return job.status();
//       Do(*job);
//     }
//     return absl::OkStatus();
//   }
//
//   auto jobs = cohort::Queue<Job>::Create({.max_items = 1024});
//   if (!jobs.ok()) return jobs.status();
//   auto child = cohort::Process::Start(Work, *jobs);
//   absl::Status put = jobs->Put({.id = 1, .path = "/a"}, absl::Seconds(1));
//   jobs->Close();
//
// Close() is for all, and nothing but Close() ends the stream: the death of a
// producer does not. So let whoever started the producers close the queue, when
// all of them have ended.
//
// T is whatever serialize/encodable.h says can travel, handles included: a
// region, a buffer, a file, another queue, alone or inside other values. Their
// descriptors go through a pair of sockets that the queue has where T may need
// it. A T that is its bytes is copied once in and once out; others are encoded
// before, and decoded after, the moment in which rivals are kept out.
//
// Within one process a queue of threads is faster; for one value that all see,
// take `Shared<T>` (shm/shared.h).

#ifndef COHORT_IPC_QUEUE_H_
#define COHORT_IPC_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/internal/message.h"
#include "cohort/ipc/internal/ring.h"
#include "cohort/os/check.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/encodable.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/shm/type_tag.h"

namespace cohort {

struct QueueOptions {
  // Put() waits while so many items are in the queue; up to 2^26. 0: no bound
  // besides `bytes`.
  size_t max_items = 0;

  // Memory for items, rounded up to a power of two; up to 4 GiB. An item takes
  // its encoded size and 8 bytes, rounded up to 64; one that could never fit is
  // ResourceExhausted. 0: room for `max_items` of a T that is its bytes, for
  // others 1 MiB. Memory is taken when it is first used.
  size_t bytes = 0;

  // What /proc/PID/maps shows.
  std::string name = "queue";
};

// Queue<T>
//
// |        | Put()           | Get()           | Close() | a process dies     |
// |--------+-----------------+-----------------+---------+--------------------|
// | Empty  | fatal           | fatal           | fatal   | --                 |
// | Open   | stored; full:   | oldest; none:   | Closed  | what was stored    |
// |        | waits           | waits           |         | stays; waiters and |
// |        |                 |                 |         | survivors go on    |
// | Closed | FailedPrecon-   | oldest; none:   | --      | likewise           |
// |        | dition          | OutOfRange      |         |                    |
//
// "Empty" is a handle that was default-constructed and not assigned to.
//
// Contract
//   Placement:      a handle in private memory; the queue is in a Region of its
//                   own, beside a pair of sockets if a T may own descriptors.
//                   Layout: docs/formats/ring.md.
//   Thread-safety:  every member but assignment, from any thread.
//   Process-safety: likewise, among processes of one PID namespace. A handle
//                   travels as a start argument, through another queue, or
//                   inside a value; copies mean the same queue.
//   Fork-safety:    a handle goes on working in the child.
//   Crash-safety:   whatever instruction a process dies at: an item of which
//                   Put() returned OK is handed to exactly one Get(), or was
//                   taken by the dead process already; an item of which Put()
//                   did not return is handed over once or never; nobody waits
//                   for the dead. Its descriptors share its fate; those of a
//                   Put() or Get() cut short stay open until the next item
//                   with descriptors is taken, or the queue is gone.
//   Signal-safety:  none. Waits resume after a handler ran.
//   Errors:         DeadlineExceeded: not in time. FailedPrecondition: Put()
//                   after Close(). OutOfRange: Get() after Close(), and nothing
//                   left. ResourceExhausted: an item too large for the queue;
//                   or no descriptor number left for the oldest item here,
//                   which stays. InvalidArgument: more than 253 descriptors in
//                   one item.
//                   DataLoss: an item that could not be decoded, and is gone;
//                   or damaged shared memory: then for good, and Items() ends.
//                   Put() also passes on why a value could not be encoded.
//   Ordering:       all consumers together see the items in one order, each
//                   producer's in the order of its Put(). What was written
//                   before Put() is visible after the Get() of that item.
//   Cost:           no system call while nobody sleeps; tens of nanoseconds. A
//                   waiter looks for 2-10 us, then sleeps; asleep it looks up
//                   every 20 ms at first, every 100 ms later. An item with
//                   descriptors: three system calls on its way, and it is full
//                   with some hundred of them.
//   Reference:      Python's multiprocessing.Queue; docs/design/queue.md and,
//                   for descriptors, docs/design/handles.md.
//
// A queue that is put into itself is closed by the kernel's collector, after
// all other handles have gone: some time later, not at once.
template <typename T>
class Queue final {
 public:
  class ItemRange;

  // Refers to no queue, until assigned to.
  Queue() = default;

  // A new queue. InvalidArgument: options beyond their limits, or too few bytes
  // for even one T. ResourceExhausted: no memory or descriptors left.
  static absl::StatusOr<Queue> Create(const QueueOptions& options = {}) {
    CheckEncodable<T>();
    absl::StatusOr<ipc_internal::RingOptions> sized =
        ipc_internal::SizeRing(options.max_items, options.bytes, kFixedSize);
    if (!sized.ok()) return sized.status();
    sized->type_tag = kTag;
    sized->name = options.name;
    sized->carries_descriptors = kCarriesDescriptors;
    absl::StatusOr<ipc_internal::Ring> ring =
        ipc_internal::Ring::Create(*sized);
    if (!ring.ok()) return ring.status();
    return Queue(*std::move(ring));
  }

  // Appends `value`. Waits while the queue is full, for at most `timeout`; zero
  // or less makes one attempt. Full is also where this user has as many
  // descriptors in unread messages, of all programs, as the limit on open files
  // (`ulimit -n`) allows to one process.
  absl::Status Put(const T& value,
                   absl::Duration timeout = absl::InfiniteDuration()) const {
    CheckEncodable<T>();
    CheckHandle();
    const Deadline deadline = ipc_internal::DeadlineAfter(timeout);
    if constexpr (kFixedSize != 0) {
      const ipc_internal::RingEnd end =
          ring_.Put(std::addressof(value), sizeof(T), deadline);
      if (end == ipc_internal::RingEnd::kDone) [[likely]]
        return absl::OkStatus();
      return ipc_internal::PutStatus(end, ring_, sizeof(T));
    } else {
      ipc_internal::Scratch scratch;
      absl::Status encoded = EncodeTo(scratch.frame(), value);
      if (!encoded.ok()) return encoded;
      return ipc_internal::PutFrame(ring_, scratch.frame(), deadline);
    }
  }

  // Appends `value` if that needs no wait, else DeadlineExceeded.
  absl::Status TryPut(const T& value) const {
    return Put(value, absl::ZeroDuration());
  }

  // Takes the oldest item. Waits while there is none, for at most `timeout`;
  // zero or less makes one attempt.
  absl::StatusOr<T> Get(
      absl::Duration timeout = absl::InfiniteDuration()) const {
    bool over;
    return Take(ipc_internal::DeadlineAfter(timeout), &over);
  }

  // Takes the oldest item if there is one, else DeadlineExceeded.
  absl::StatusOr<T> TryGet() const { return Get(absl::ZeroDuration()); }

  // The items, each a StatusOr<T>, as they come: a range for one loop, which
  // waits for the next item and ends when the queue is closed and drained.
  // Several processes and threads may loop at once; each item goes to one.
  [[nodiscard]] ItemRange Items() const {
    CheckHandle();
    return ItemRange(*this);
  }

  // Ends the queue for producers in all processes, for good: items that are in
  // it can still be taken. Wakes all who wait. Waits itself only for a producer
  // that was stopped in the middle of a Put().
  void Close() const {
    CheckHandle();
    ring_.Close();
  }

  // How many items are in it; exact while nobody puts or takes one.
  [[nodiscard]] size_t ApproxSize() const {
    CheckHandle();
    return static_cast<size_t>(ring_.ApproxSize());
  }

  // Whether this handle refers to no queue at all.
  [[nodiscard]] bool empty_handle() const { return ring_.empty_handle(); }

  // How often a waiter in any process found something that nobody had woken it
  // for: 0 unless a process was killed or stopped. For tests and watchers.
  [[nodiscard]] uint64_t rescues() const {
    CheckHandle();
    return ring_.rescues();
  }

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(ring_.region());
    if constexpr (kCarriesDescriptors) archive(ring_.in(), ring_.out());
  }
  template <typename Archive>
  void load(Archive& archive) {
    Region region;
    archive(region);
    os::Descriptor in;
    os::Descriptor out;
    if constexpr (kCarriesDescriptors) archive(in, out);
    *this = Queue();
    if (region.empty()) return;
    absl::StatusOr<ipc_internal::Ring> ring =
        kCarriesDescriptors
            ? ipc_internal::Ring::Attach(std::move(region), kTag, std::move(in),
                                         std::move(out))
            : ipc_internal::Ring::Attach(std::move(region), kTag);
    if (!ring.ok()) archive.Fail(ring.status());
    *this = Queue(*std::move(ring));
  }

 private:
  // 0 where the encoding of a T is not simply its bytes.
  static constexpr size_t kFixedSize = [] {
    if constexpr (kEncodesAsBytes<T>) {
      return sizeof(T);
    } else {
      return size_t{0};
    }
  }();
  static constexpr bool kCarriesDescriptors = !kNeverOwnsDescriptors<T>;
  static constexpr uint64_t kTag = TypeTag<T>("queue", kWireVersion);

  explicit Queue(ipc_internal::Ring ring) : ring_(std::move(ring)) {}

  void CheckHandle() const {
    os::Check(!ring_.empty_handle(),
              "a Queue that was never created or received was used");
  }

  // Sets `over` where no item will ever come any more.
  absl::StatusOr<T> Take(Deadline deadline, bool* over) const {
    CheckEncodable<T>();
    CheckHandle();
    *over = false;
    if constexpr (kFixedSize != 0) {
      absl::StatusOr<T> item;
      item.emplace();
      size_t size = 0;
      const ipc_internal::RingEnd end =
          ring_.Get(std::addressof(*item), sizeof(T),
                    ipc_internal::Larger::kCut, &size, deadline);
      if (end == ipc_internal::RingEnd::kDone && size == sizeof(T)) [[likely]]
        return item;
      return ipc_internal::GetStatus(end, over);
    } else {
      ipc_internal::Scratch scratch;
      absl::Status got =
          ipc_internal::GetFrame(ring_, scratch.frame(), deadline, over);
      if (!got.ok()) return got;
      absl::StatusOr<T> item = Decode<T>(
          scratch.frame().bytes(), std::move(scratch.frame().descriptors()));
      if (!item.ok()) return ipc_internal::Undecodable(item.status());
      return item;
    }
  }

  ipc_internal::Ring ring_;
};

// The items of a queue: an input range whose iterators end by themselves.
template <typename T>
class Queue<T>::ItemRange final {
 public:
  class Iterator final {
   public:
    using iterator_concept = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = absl::StatusOr<T>;

    // Hands the item over; once.
    absl::StatusOr<T> operator*() const { return std::move(*range_->item_); }
    Iterator& operator++() {
      range_->Next();
      return *this;
    }
    void operator++(int) { range_->Next(); }
    friend bool operator==(const Iterator& it, std::default_sentinel_t) {
      return it.AtEnd();
    }

   private:
    friend class ItemRange;
    bool AtEnd() const { return !range_->item_.has_value(); }
    explicit Iterator(ItemRange* range) : range_(range) {}
    ItemRange* range_;
  };

  // Waits for the first item. To be called once.
  Iterator begin() {
    Next();
    return Iterator(this);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class Queue;
  explicit ItemRange(Queue queue) : queue_(std::move(queue)) {}

  void Next() {
    if (over_) {
      item_.reset();
      return;
    }
    item_.emplace(queue_.Take(Deadline::Infinite(), &over_));
    // A damaged queue says so once, a closed one ends quietly.
    if (over_ && absl::IsOutOfRange(item_->status())) item_.reset();
  }

  Queue queue_;
  bool over_ = false;
  std::optional<absl::StatusOr<T>> item_;
};

}  // namespace cohort

#endif  // COHORT_IPC_QUEUE_H_
