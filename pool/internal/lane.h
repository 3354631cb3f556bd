// SPDX-License-Identifier: Apache-2.0
//
// What a pool and one of its workers share: a lane, two byte rings with one
// writer and one reader each. Tasks go down, results come up. The writer's
// `tail` is the commit of all that was written before it; the reader's `head`
// gives the room back. Neither side needs a lock, and neither trusts the other
// side's words with more than its own progress.
//
//   parent                                   worker
//   DownWriter.Put(record), Commit()   -->   DownReader.Next(), then
//                                            lane.started = n    (it runs)
//   UpReader.Next()                    <--   UpWriter.Put(record), Commit()
//
// Kill table of the worker; the parent alone judges, after the kernel has said
// that the worker is gone and all that was committed has been read:
//
// | killed                       | the parent sees                            |
// |------------------------------+--------------------------------------------|
// | before `started`             | the task is not started: queued again      |
// | `started` .. commit          | it ran and has no result: failed or tried  |
// |                              | again; of a chunk, only what is not salved |
// | after the commit             | the result                                 |
// | between commit and the bell  | the result, when it reads what is left     |
//
// The open part: while a worker runs a chunk of elements, the results gather
// beyond `tail` and `open` counts them, one store for each element. A worker
// that dies leaves them there, and the parent takes them over (Salvage). The
// word carries the low bits of `tail`, so that it means nothing any more once
// the part is committed.

#ifndef COHORT_POOL_INTERNAL_LANE_H_
#define COHORT_POOL_INTERNAL_LANE_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "cohort/os/deadline.h"

namespace cohort::pool_internal {

// How the parent waits for results; one for each pool, first in its region.
struct alignas(128) Bell {
  enum Mode : uint32_t {
    kAwake = 0,   // Nobody sleeps: results are looked for.
    kFutex = 1,   // A thread sleeps on `rings`.
    kPoller = 2,  // A thread sleeps in a poller: send a byte as well.
  };
  std::atomic<uint32_t> mode = kAwake;
  std::atomic<uint32_t> rings = 0;
};

// One direction. Both counters count bytes since the lane was opened.
struct RingWords {
  alignas(128) std::atomic<uint64_t> tail = 0;  // Written by the writer.
  alignas(128) std::atomic<uint64_t> head = 0;  // Written by the reader.
};

// The shared words of a lane; its two rings of bytes follow elsewhere. All-zero
// bytes are an open, empty lane.
struct Lane {
  RingWords down;
  RingWords up;
  // Tasks that the worker has begun. Written by the worker, before user code.
  alignas(128) std::atomic<uint64_t> started = 0;
  // tail's low 16 bits | elements, 24 bits | bytes, 24 bits.
  std::atomic<uint64_t> open = 0;
  // What the worker sleeps for, a SleepsFor; the waker sets it to kNothing.
  alignas(128) std::atomic<uint32_t> worker_sleeps = 0;
  // 1 when the worker shall leave once all tasks are done.
  std::atomic<uint32_t> leave = 0;
  // 1 when the parent has more of a task to write than there is room.
  std::atomic<uint32_t> parent_wants_room = 0;

  // Opens it anew. Requires that the worker is gone.
  void Clear();
};

// Before each record's bytes. Messages that exceed a record are cut: all but
// the last record of a message have kMore.
struct RecordHeader {
  enum Flags : uint32_t {
    kMore = 1,  // The message goes on in the next record.
    kMap = 2,   // A chunk of elements, or results of some.
    kLast = 4,  // Up: the task is done with this message.
    // Up: the bytes are an encoded absl::Status, the outcome of the call or of
    // so many elements.
    kFailed = 8,
  };
  uint32_t bytes = 0;
  uint32_t flags = 0;
  uint32_t descriptors = 0;  // That came through the socket before this record.
  uint32_t elements = 0;     // Down: to run. Up: whose results these are.
  uint64_t sequence = 0;     // Counts the tasks of this lane, from 1.
  uint64_t nanoseconds = 0;  // Up: what the task took.
};
static_assert(sizeof(RecordHeader) == 32, "shared layout");

// A record and where its bytes are; the ring's end may cut them in two.
struct Record {
  RecordHeader header;
  std::string_view first;
  std::string_view second;
};

// The writer's private half of a ring.
class RingWriter final {
 public:
  RingWriter() = default;
  // `capacity` bytes at `data`, a power of two.
  RingWriter(RingWords* words, char* data, size_t capacity);

  // The most bytes that one record may have.
  [[nodiscard]] size_t LargestRecord() const {
    // The bound is that of OpenWord(), whose fields a part must not outgrow.
    return std::min(capacity_ / 4, size_t{1} << 20) - sizeof(RecordHeader);
  }
  // True iff a record of so many bytes fits now.
  [[nodiscard]] bool HasRoom(size_t bytes);
  // Writes a record behind what is there; not visible before Commit().
  // Requires HasRoom().
  void Put(RecordHeader header, std::string_view bytes);
  // Makes all that was put visible, by one store.
  void Commit();

  // The open part: bytes gather behind a header that is not written yet.
  // Requires HasRoom(LargestRecord()) at its beginning.
  [[nodiscard]] size_t open_bytes() const { return open_bytes_; }
  void AppendOpen(std::string_view bytes);
  // Writes the header of the open part; commits it.
  void CommitOpen(RecordHeader header);
  [[nodiscard]] uint64_t tail() const { return tail_; }

 private:
  void CopyIn(uint64_t position, const void* bytes, size_t count);

  RingWords* words_ = nullptr;
  char* data_ = nullptr;
  size_t capacity_ = 0;
  uint64_t tail_ = 0;
  uint64_t head_seen_ = 0;
  size_t open_bytes_ = 0;
};

// The reader's private half.
class RingReader final {
 public:
  RingReader() = default;
  RingReader(RingWords* words, char* data, size_t capacity);

  // The next record, valid until Release(); nullopt: none is there. What no
  // writer of ours would write sets corrupt() and is never followed.
  std::optional<Record> Next();
  // Gives the room of the record back.
  void Release();
  [[nodiscard]] bool corrupt() const { return corrupt_; }
  // Counts all that is there as read; for a corrupt ring.
  void Abandon();
  // The bytes of an open part that a dead writer left behind all records.
  [[nodiscard]] std::optional<Record> Open(uint64_t open_word) const;

 private:
  [[nodiscard]] Record At(uint64_t position, size_t bytes) const;

  RingWords* words_ = nullptr;
  char* data_ = nullptr;
  size_t capacity_ = 0;
  uint64_t head_ = 0;
  uint64_t tail_seen_ = 0;
  uint64_t next_ = 0;  // Behind the record that Next() returned.
  bool corrupt_ = false;
};

// The word that publishes an open part.
constexpr uint64_t OpenWord(uint64_t tail, size_t elements, size_t bytes) {
  return (tail / alignof(RecordHeader)) << 48 | uint64_t{elements} << 24 |
         bytes;
}
inline constexpr size_t kMostOpenElements = (1 << 24) - 1;

// True iff the writer has committed what the reader has not released.
[[nodiscard]] inline bool HasNews(const RingWords& ring) {
  return ring.tail.load(std::memory_order_seq_cst) !=
         ring.head.load(std::memory_order_relaxed);
}

enum SleepsFor : uint32_t { kNothing = 0, kTasks = 1, kRoom = 2 };

// Wakes the worker if it sleeps for `what`; after a Commit() (kTasks) or
// Release() (kRoom) of the parent.
void WakeWorker(Lane& lane, SleepsFor what);
// The worker sleeps until it is woken, unless `ready`, and until `until` at
// most.
template <typename Ready>
void WorkerSleep(Lane& lane, SleepsFor what, Deadline until,
                 const Ready& ready);
void WorkerSleepArmed(Lane& lane, SleepsFor what, Deadline until);

// Rings the parent after a Commit() of the worker. Returns true where a byte
// must be sent through the doorbell too.
[[nodiscard]] bool RingBell(Bell& bell);

template <typename Ready>
void WorkerSleep(Lane& lane, SleepsFor what, Deadline until,
                 const Ready& ready) {
  // Order: armed before the look, as WakeWorker() looks after the commit.
  lane.worker_sleeps.store(what, std::memory_order_seq_cst);
  if (!ready()) WorkerSleepArmed(lane, what, until);
  lane.worker_sleeps.store(kNothing, std::memory_order_relaxed);
}

}  // namespace cohort::pool_internal

#endif  // COHORT_POOL_INTERNAL_LANE_H_
