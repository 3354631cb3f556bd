// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/internal/lane.h"

#include <algorithm>
#include <cstring>

#include "cohort/os/futex.h"

namespace cohort::pool_internal {
namespace {

// Records start on such borders, so that a header never straddles the end.
constexpr size_t kUnit = sizeof(RecordHeader);

constexpr size_t Whole(size_t bytes) {
  return kUnit + (bytes + kUnit - 1) / kUnit * kUnit;
}

}  // namespace

void Lane::Clear() {
  for (std::atomic<uint64_t>* word :
       {&down.tail, &down.head, &up.tail, &up.head, &started, &open}) {
    word->store(0);
  }
  for (std::atomic<uint32_t>* word :
       {&worker_sleeps, &leave, &parent_wants_room}) {
    word->store(0);
  }
}

RingWriter::RingWriter(RingWords* words, char* data, size_t capacity)
    : words_(words), data_(data), capacity_(capacity) {}

bool RingWriter::HasRoom(size_t bytes) {
  const size_t need = Whole(bytes);
  if (tail_ + need - head_seen_ <= capacity_) return true;
  // In one order with the flags by which either side asks to be woken.
  const uint64_t head = words_->head.load(std::memory_order_seq_cst);
  // A reader that claims more than was written is ignored: no room, ever.
  if (head - head_seen_ > tail_ - head_seen_) return false;
  head_seen_ = head;
  return tail_ + need - head_seen_ <= capacity_;
}

void RingWriter::CopyIn(uint64_t position, const void* bytes, size_t count) {
  if (count == 0) return;
  const size_t at = position & (capacity_ - 1);
  const size_t straight = std::min(count, capacity_ - at);
  std::memcpy(data_ + at, bytes, straight);
  if (straight < count) {
    std::memcpy(data_, static_cast<const char*>(bytes) + straight,
                count - straight);
  }
}

void RingWriter::Put(RecordHeader header, std::string_view bytes) {
  header.bytes = static_cast<uint32_t>(bytes.size());
  CopyIn(tail_, &header, sizeof(header));
  CopyIn(tail_ + kUnit, bytes.data(), bytes.size());
  tail_ += Whole(bytes.size());
}

void RingWriter::Commit() {
  words_->tail.store(tail_, std::memory_order_seq_cst);
}

void RingWriter::AppendOpen(std::string_view bytes) {
  CopyIn(tail_ + kUnit + open_bytes_, bytes.data(), bytes.size());
  open_bytes_ += bytes.size();
}

void RingWriter::CommitOpen(RecordHeader header) {
  header.bytes = static_cast<uint32_t>(open_bytes_);
  CopyIn(tail_, &header, sizeof(header));
  tail_ += Whole(open_bytes_);
  open_bytes_ = 0;
  Commit();
}

RingReader::RingReader(RingWords* words, char* data, size_t capacity)
    : words_(words), data_(data), capacity_(capacity) {}

Record RingReader::At(uint64_t position, size_t bytes) const {
  Record record;
  const size_t at = position & (capacity_ - 1);
  const size_t straight = std::min(bytes, capacity_ - at);
  record.first = {data_ + at, straight};
  record.second = {data_, bytes - straight};
  return record;
}

std::optional<Record> RingReader::Next() {
  if (head_ == tail_seen_) {
    tail_seen_ = words_->tail.load(std::memory_order_acquire);
    if (head_ == tail_seen_) return std::nullopt;
    if (tail_seen_ - head_ > capacity_ || tail_seen_ % kUnit != 0) {
      corrupt_ = true;
    }
  }
  if (corrupt_) return std::nullopt;
  // Copied first, checked then: the writer may change it meanwhile.
  RecordHeader header;
  std::memcpy(&header, data_ + (head_ & (capacity_ - 1)), sizeof(header));
  if (Whole(header.bytes) > tail_seen_ - head_) {
    corrupt_ = true;
    return std::nullopt;
  }
  Record record = At(head_ + kUnit, header.bytes);
  record.header = header;
  next_ = head_ + Whole(header.bytes);
  return record;
}

void RingReader::Release() {
  head_ = next_;
  words_->head.store(head_, std::memory_order_seq_cst);
}

void RingReader::Abandon() {
  words_->head.store(words_->tail.load(std::memory_order_acquire),
                     std::memory_order_seq_cst);
}

std::optional<Record> RingReader::Open(uint64_t open_word) const {
  const size_t elements = (open_word >> 24) & kMostOpenElements;
  const size_t bytes = open_word & ((1 << 24) - 1);
  if (elements == 0 || head_ != words_->tail.load(std::memory_order_acquire) ||
      open_word != OpenWord(head_, elements, bytes) ||
      Whole(bytes) > capacity_) {
    return std::nullopt;
  }
  Record record = At(head_ + kUnit, bytes);
  record.header.bytes = static_cast<uint32_t>(bytes);
  record.header.elements = static_cast<uint32_t>(elements);
  record.header.flags = RecordHeader::kMap;
  return record;
}

void WakeWorker(Lane& lane, SleepsFor what) {
  // The sleeper arms, then looks at the ring; we wrote the ring, then look at
  // the arming; all four in one order, so one of the two sees the other.
  uint32_t sleeps = lane.worker_sleeps.load(std::memory_order_seq_cst);
  if (sleeps == what &&
      lane.worker_sleeps.compare_exchange_strong(sleeps, kNothing)) {
    os::FutexWake(lane.worker_sleeps, 1);
  }
}

void WorkerSleepArmed(Lane& lane, SleepsFor what, Deadline until) {
  os::FutexWait(lane.worker_sleeps, what, until);
}

bool RingBell(Bell& bell) {
  uint32_t mode = bell.mode.load(std::memory_order_seq_cst);
  if (mode == Bell::kAwake) return false;
  // Whoever takes the mode down owes the wake; it is armed anew before the
  // next sleep.
  mode = bell.mode.exchange(Bell::kAwake);
  if (mode == Bell::kFutex) {
    bell.rings.fetch_add(1);
    os::FutexWake(bell.rings, 1);
  }
  return mode == Bell::kPoller;
}

}  // namespace cohort::pool_internal
