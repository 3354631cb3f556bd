// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/internal/ring.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/cpu.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"

namespace cohort::ipc_internal {
namespace {

using sync_internal::Acquired;
using sync_internal::ShortLock;

constexpr uint64_t kMagic = 0x31474e4952484f43;  // "COHRING1"
constexpr uint32_t kVersion = 1;

// Bits of Shared::Producers::state; once set, for good. Closed is set under the
// producers' lock, so whoever sees it sees all that was accepted before.
constexpr uint32_t kClosedBit = 1;
constexpr uint32_t kDamagedBit = 2;

// A record's header: length in bits 32-63, sequence number in bits 4-31, bits
// 1-3 zero, bit 0 set. 0 means that no record begins here yet.
constexpr uint64_t kCommitted = 1;
constexpr uint64_t kReservedBits = 0xe;
constexpr uint32_t kSequenceMask = 0x0fffffff;

constexpr uint64_t MakeHeader(uint64_t size, uint32_t sequence) {
  return size << 32 | uint64_t{sequence & kSequenceMask} << 4 | kCommitted;
}
constexpr uint64_t SizeOf(uint64_t header) { return header >> 32; }
constexpr uint32_t SequenceOf(uint64_t header) {
  return static_cast<uint32_t>(header >> 4) & kSequenceMask;
}

// Whether a Ring of this capacity can have written the header.
bool IsSound(uint64_t header, uint64_t capacity) {
  return (header & (kReservedBits | kCommitted)) == kCommitted &&
         Ring::RecordSize(SizeOf(header)) <= capacity - Ring::kUnit;
}

// How long a waiter looks before it sleeps: longer where looking has paid. An
// answer from a processor with a cache of its own takes 1 us and more, and who
// gives up before it comes pays some 20 us for being woken.
constexpr int64_t kShortestSpin = 2'000;
constexpr int64_t kLongestSpin = 10'000;
thread_local int64_t spin_time = kLongestSpin;

// Whether this thread has put something, into any ring, since it last got
// something. Then it awaits an answer, of which each nanosecond counts; if not,
// it works off a stream, which flows the better the less it is looked at.
thread_local bool has_put = false;

// Pauses between two looks of a consumer that works off a stream: 1 to 2 us, in
// which the producer gets some messages ahead. On its heels, the consumer would
// take each line away that is just being written.
constexpr int kStreamPause = 128;

// Looks until `ready` or for as long as may pay, with pauses that grow from
// `pause` to `max_pause`: each look takes a cache line away from the one who is
// about to change it.
template <typename Ready>
bool SpinUntil(int pause, int max_pause, Ready ready) {
  if (!os::RobustThread::Self().may_spin()) return false;
  const int looks_per_clock = max_pause == 1 ? 16 : 1;
  int64_t end = 0;
  for (int look = 1;; ++look) {
    if (ready()) {
      spin_time = std::min(kLongestSpin, spin_time + 100);
      return true;
    }
    for (int i = 0; i < pause; ++i) os::CpuRelax();
    if (pause < max_pause) pause *= 2;
    if (look % looks_per_clock != 0) continue;
    const int64_t now = os::NowNanoseconds();
    if (end == 0) end = now + spin_time;
    if (now >= end) {
      spin_time = std::max(kShortestSpin, spin_time - 100);
      return false;
    }
  }
}

// A rival is inside for some 20 ns. Who has no time left still waits for that,
// or a poll of a queue that is not empty could fail; but he does not wait long
// for one that was stopped.
Acquired LockFor(ShortLock& lock, Deadline deadline) {
  constexpr int64_t kPatience = 20'000'000;
  const Acquired acquired = lock.TryLock();
  if (acquired != Acquired::kTimedOut) [[likely]]
    return acquired;
  if (!deadline.infinite()) {
    deadline = std::max(
        deadline, Deadline::AtNanoseconds(os::NowNanoseconds() + kPatience));
  }
  return lock.Lock(deadline);
}

void Wake(Bell& bell, int count) {
  bell.event.fetch_add(1, std::memory_order_release);
  os::FutexWake(bell.event, count);
}

// Wakes one, if the flag says that one may sleep. The flag goes down first: a
// sleeper that puts it up between a vain wake and a later store would lie
// forgotten.
void WakeOne(Bell& bell) {
  if (bell.flag.exchange(0, std::memory_order_acq_rel) != 0) [[unlikely]] {
    Wake(bell, 1);
  }
}

void WakeAll(Bell& bell) {
  bell.flag.exchange(0, std::memory_order_acq_rel);
  Wake(bell, INT_MAX);
}

}  // namespace

Ring::Ring(Region region)
    : region_(std::move(region)),
      shared_(std::launder(reinterpret_cast<Shared*>(region_.bytes().data()))),
      data_(region_.bytes().data() + sizeof(Shared)) {}

absl::StatusOr<Ring> Ring::Create(const RingOptions& options) {
  if (options.capacity > kMaxCapacity || options.max_items > kMaxItems) {
    return absl::InvalidArgumentError(
        absl::StrCat("queue ", options.name, ": ", options.capacity,
                     " bytes and ", options.max_items,
                     " items; the limits are 4 GiB and ", kMaxItems, " items"));
  }
  const uint64_t capacity =
      std::bit_ceil(std::max(options.capacity, 2 * kUnit));
  absl::StatusOr<Region> region =
      Region::Create({.size = sizeof(Shared) + capacity,
                      .label = options.name,
                      .type_tag = options.type_tag});
  if (!region.ok()) return region.status();
  Ring ring(*std::move(region));
  // The rest is zero, as it should be.
  ring.shared_->magic = kMagic;
  ring.shared_->version = kVersion;
  ring.shared_->max_items = static_cast<uint32_t>(options.max_items);
  ring.shared_->capacity = capacity;
  return Attach(std::move(ring.region_), options.type_tag);
}

absl::StatusOr<Ring> Ring::Attach(Region region, uint64_t type_tag) {
  const absl::Status refusal = absl::FailedPreconditionError(
      "queue: the region received holds no queue of this type; hand it to a "
      "Queue<T> with the T that it was created with");
  if (region.type_tag() != type_tag || region.size() < sizeof(Shared)) {
    return refusal;
  }
  const size_t size = region.size();
  Ring ring(std::move(region));
  // Read once: a peer may write at any time.
  const volatile Shared* const shared = ring.shared_;
  const uint64_t magic = shared->magic;
  const uint32_t version = shared->version;
  const uint64_t max_items = shared->max_items;
  const uint64_t capacity = shared->capacity;
  if (magic != kMagic || version != kVersion || capacity < 2 * kUnit ||
      capacity > kMaxCapacity || !std::has_single_bit(capacity) ||
      max_items > kMaxItems || size != sizeof(Shared) + capacity) {
    return refusal;
  }
  ring.capacity_ = capacity;
  ring.mask_ = capacity - kUnit;
  ring.max_items_ = max_items == 0 ? kMaxItems : max_items;
  return ring;
}

// The first word of each unit may be looked at as a header by a consumer that
// is late, so it is only ever written as a whole.
void Ring::CopyIn(uint64_t position, const void* bytes, size_t size) const {
  if (size == 0) return;  // `bytes` may be null.
  constexpr size_t kRest = kUnit - sizeof(uint64_t);
  const auto* from = static_cast<const std::byte*>(bytes);
  size_t count = std::min(size, kRest);
  std::memcpy(data_ + (position & mask_) + sizeof(uint64_t), from, count);
  while (size > count) {
    from += count;
    size -= count;
    position += kUnit;
    uint64_t first = 0;
    const size_t head = std::min(size, sizeof(first));
    std::memcpy(&first, from, head);
    Word(position).store(first, std::memory_order_relaxed);
    from += head;
    size -= head;
    count = std::min(size, kRest);
    std::memcpy(data_ + (position & mask_) + sizeof(uint64_t), from, count);
  }
}

void Ring::CopyOut(uint64_t position, void* to, size_t size) const {
  if (size == 0) return;  // `to` may be null.
  const uint64_t at = (position & mask_) + sizeof(uint64_t);
  const size_t before_end = std::min<uint64_t>(size, capacity_ - at);
  std::memcpy(to, data_ + at, before_end);
  if (size > before_end) [[unlikely]] {
    std::memcpy(static_cast<std::byte*>(to) + before_end, data_,
                size - before_end);
  }
}

// Under the producers' lock. Asks the consumers' line only if what was seen of
// it last does not suffice. The record at `head` is not overwritten by anybody
// else meanwhile, even if it has been taken.
bool Ring::HasRoom(uint64_t tail, uint32_t sequence, uint64_t record) const {
  Shared::Producers& producers = shared_->producers;
  const auto fits = [&] {
    const uint64_t items = (sequence - producers.oldest) & kSequenceMask;
    return tail + record + kUnit - producers.head <= capacity_ &&
           items < max_items_;
  };
  if (fits()) [[likely]]
    return true;
  const uint64_t head = shared_->consumers.head.load(std::memory_order_acquire);
  const uint64_t header = Word(head).load(std::memory_order_acquire);
  producers.head = head;
  producers.oldest = header == 0 ? sequence : SequenceOf(header);
  return fits();
}

// How far ahead of its use a line is asked for: it takes as long to come from
// another processor as some eight short messages take to be copied.
constexpr uint64_t kAhead = 16 * Ring::kUnit;
// Of a long message, the processor itself sees that it is read in sequence.
constexpr uint64_t kMostAhead = 4 * Ring::kUnit;

// Under the producers' lock: asks for the free lines that will be written some
// messages later, in exchange for those `record` bytes that are written now.
void Ring::PrefetchFree(uint64_t from, uint64_t record) const {
  from += kAhead;
  record = std::min(record, kMostAhead);
  if (from + record - shared_->producers.head > capacity_) return;
  for (uint64_t at = 0; at < record; at += kUnit) {
    os::PrefetchForWrite(&Word(from + at));
  }
}

// Under the consumers' lock: likewise for records that are there already. Where
// they end is looked up rarely, as that disturbs the producers; nothing depends
// on it.
void Ring::PrefetchFilled(uint64_t from, uint64_t record) const {
  Shared::Consumers& consumers = shared_->consumers;
  if (static_cast<int64_t>(from - consumers.next_look) >= 0) {
    consumers.tail = shared_->producers.tail.load(std::memory_order_relaxed);
    const bool shallow =
        static_cast<int64_t>(consumers.tail - from - 2 * kAhead) < 0;
    consumers.next_look = shallow ? from + 4 * kAhead : consumers.tail - kAhead;
  }
  from += kAhead;
  record = std::min(record, kMostAhead);
  if (static_cast<int64_t>(consumers.tail - from - record) < 0) return;
  for (uint64_t at = 0; at < record; at += kUnit) {
    os::PrefetchForRead(&Word(from + at));
  }
}

// Under the producers' lock, after its last holder died: finds out from the
// records themselves what they are. Nothing is lost if this one dies as well.
bool Ring::RepairProducers() const {
  Shared::Producers& producers = shared_->producers;
  uint64_t tail = producers.tail.load(std::memory_order_relaxed);
  uint32_t sequence = producers.sequence.load(std::memory_order_relaxed);
  for (uint64_t walked = 0;;) {
    const uint64_t header = Word(tail).load(std::memory_order_acquire);
    if (header == 0) break;
    const uint64_t record = RecordSize(SizeOf(header));
    walked += record;
    if (!IsSound(header, capacity_) || walked > capacity_) return false;
    sequence = SequenceOf(header) + 1;
    tail += record;
  }
  producers.sequence.store(sequence, std::memory_order_release);
  producers.tail.store(tail, std::memory_order_release);
  WakeAll(producers.not_empty);  // The dead one may have owed it.
  return true;
}

// Nobody can go on: the producers would wait for room for ever.
void Ring::Damaged() const {
  shared_->producers.state.fetch_or(kDamagedBit, std::memory_order_acq_rel);
  WakeAll(shared_->producers.not_empty);
  WakeAll(shared_->consumers.not_full);
}

// Sleeps until `slice` unless the bell is rung or `ready`. Holds no lock.
template <typename Ready>
void Ring::Sleep(Bell& bell, Deadline slice, Ready ready) const {
  const uint32_t event = bell.event.load(std::memory_order_acquire);
  bell.flag.exchange(1, std::memory_order_acq_rel);
  if (ready()) return;
  os::RobustThread::Self().RefreshCpus();
  const os::FutexEnd end = os::FutexWait(bell.event, event, slice);
  bell.flag.exchange(1, std::memory_order_acq_rel);
  // Changes and their wake-ups are made under one lock; if neither is held any
  // more and the bell was not rung, it never will be.
  if (end == os::FutexEnd::kTimedOut && ready() &&
      shared_->producers.lock.holder() == 0 &&
      shared_->consumers.lock.holder() == 0 &&
      bell.event.fetch_add(0, std::memory_order_acq_rel) == event) {
    shared_->rescues.fetch_add(1, std::memory_order_relaxed);
  }
}

RingEnd Ring::Put(const void* bytes, size_t size, Deadline deadline) const {
  if (size > max_size()) [[unlikely]]
    return RingEnd::kTooLarge;
  const uint64_t record = RecordSize(size);
  Shared::Producers& producers = shared_->producers;
  Bell& not_full = shared_->consumers.not_full;
  os::Slices slices(deadline);
  bool slept = false;
  uint64_t last_head = 0;
  for (;;) {
    const Acquired acquired = LockFor(producers.lock, deadline);
    if (acquired == Acquired::kTimedOut) return RingEnd::kLate;
    if (acquired == Acquired::kOwnerDied && !RepairProducers()) [[unlikely]] {
      Damaged();  // While it is locked: nobody may trust the tail.
      producers.lock.Unlock();
      return RingEnd::kDamaged;
    }
    const uint32_t state = producers.state.load(std::memory_order_relaxed);
    if (state != 0) [[unlikely]] {
      producers.lock.Unlock();
      return (state & kDamagedBit) != 0 ? RingEnd::kDamaged : RingEnd::kClosed;
    }
    const uint64_t tail = producers.tail.load(std::memory_order_relaxed);
    const uint32_t sequence =
        producers.sequence.load(std::memory_order_relaxed);
    if (HasRoom(tail, sequence, record)) [[likely]] {
      // The end of the records first: a header of 0 must stand behind the
      // newest one at every moment.
      Word(tail + record).store(0, std::memory_order_relaxed);
      CopyIn(tail, bytes, size);
      // The commit: before it nothing has happened, after it the message is
      // accepted. Each store that follows is a release, so that none precedes
      // it.
      Word(tail).store(MakeHeader(size, sequence), std::memory_order_release);
      producers.sequence.store(sequence + 1, std::memory_order_release);
      producers.tail.store(tail + record, std::memory_order_release);
      PrefetchFree(tail + record + kUnit, record);
      WakeOne(producers.not_empty);
      // One wake-up may stand for several gets: the flag was down while this
      // producer awoke.
      if (slept && HasRoom(tail + record, sequence + 1, kUnit)) {
        WakeOne(not_full);
      }
      producers.lock.Unlock();
      has_put = true;
      return RingEnd::kDone;
    }
    const uint64_t head = producers.head;
    const uint64_t used = tail - head;
    // What this one was woken for is too small for it, perhaps not for others.
    // Once for each change, or two of them would wake each other for ever.
    if (slept && head != last_head) WakeOne(not_full);
    last_head = head;
    producers.lock.Unlock();
    if (deadline.Passed()) return RingEnd::kLate;
    const auto freed = [&] {
      return shared_->consumers.head.load(std::memory_order_acquire) - head;
    };
    const auto changed = [&] {
      return freed() != 0 ||
             producers.state.load(std::memory_order_acquire) != 0;
    };
    // To follow on the consumer's heels would slow it down: while it is at
    // work, let it free some more.
    if (SpinUntil(8, 64, [&] { return freed() > used / 8; }) || changed()) {
      continue;
    }
    Sleep(not_full, slices.Next(), changed);
    slept = true;
  }
}

RingEnd Ring::Get(void* to, size_t room, Larger larger, size_t* size,
                  Deadline deadline) const {
  Shared::Consumers& consumers = shared_->consumers;
  Shared::Producers& producers = shared_->producers;
  // A guess, without the lock.
  const auto seems_filled = [&] {
    const uint64_t head = consumers.head.load(std::memory_order_relaxed);
    return Word(head).load(std::memory_order_acquire) != 0;
  };
  const bool poll = deadline <= Deadline::Now();
  os::Slices slices(deadline);
  bool slept = false;
  for (;;) {
    if (!poll && !seems_filled()) {
      if (has_put) {
        SpinUntil(1, 1, seems_filled);
      } else {
        SpinUntil(kStreamPause, kStreamPause, seems_filled);
      }
    }
    const Acquired acquired = LockFor(consumers.lock, deadline);
    if (acquired == Acquired::kTimedOut) return RingEnd::kLate;
    if (acquired == Acquired::kOwnerDied) [[unlikely]] {
      WakeAll(consumers.not_full);  // The dead one may have owed it.
    }
    const uint64_t head = consumers.head.load(std::memory_order_relaxed);
    uint64_t header = Word(head).load(std::memory_order_acquire);
    if (header == 0) [[unlikely]] {
      // In this order: what was accepted before the close is visible with it.
      const uint32_t state = producers.state.load(std::memory_order_acquire);
      if (state != 0) header = Word(head).load(std::memory_order_acquire);
      if (header == 0) {
        consumers.lock.Unlock();
        if ((state & kDamagedBit) != 0) return RingEnd::kDamaged;
        if ((state & kClosedBit) != 0) return RingEnd::kClosed;
        if (deadline.Passed()) return RingEnd::kLate;
        Sleep(producers.not_empty, slices.Next(), [&] {
          return seems_filled() ||
                 producers.state.load(std::memory_order_acquire) != 0;
        });
        slept = true;
        continue;
      }
    }
    if (!IsSound(header, capacity_)) [[unlikely]] {
      consumers.lock.Unlock();
      Damaged();
      return RingEnd::kDamaged;
    }
    *size = SizeOf(header);
    if (*size > room && larger == Larger::kKeep) [[unlikely]] {
      // The wake-up may have stood for several messages, and the caller that
      // comes back with more room has not slept: see below.
      if (slept &&
          Word(head + RecordSize(*size)).load(std::memory_order_acquire) != 0) {
        WakeOne(producers.not_empty);
      }
      consumers.lock.Unlock();
      return RingEnd::kTooLarge;
    }
    CopyOut(head, to, std::min(*size, room));
    const uint64_t next = head + RecordSize(*size);
    // The commit: before it the message is every other consumer's, after it
    // this one's.
    consumers.head.store(next, std::memory_order_release);
    PrefetchFilled(next, next - head);
    WakeOne(consumers.not_full);
    // One wake-up may stand for several messages: the flag was down while this
    // consumer awoke.
    if (slept && Word(next).load(std::memory_order_acquire) != 0) {
      WakeOne(producers.not_empty);
    }
    consumers.lock.Unlock();
    has_put = false;
    return RingEnd::kDone;
  }
}

void Ring::Close() const {
  Shared::Producers& producers = shared_->producers;
  const Acquired acquired = producers.lock.Lock();
  if (acquired == Acquired::kOwnerDied && !RepairProducers()) {
    producers.state.fetch_or(kDamagedBit, std::memory_order_acq_rel);
  }
  producers.state.fetch_or(kClosedBit, std::memory_order_acq_rel);
  WakeAll(producers.not_empty);
  WakeAll(shared_->consumers.not_full);
  producers.lock.Unlock();
}

uint64_t Ring::ApproxSize() const {
  const Shared::Producers& producers = shared_->producers;
  const uint64_t head = shared_->consumers.head.load(std::memory_order_acquire);
  const uint64_t oldest = Word(head).load(std::memory_order_acquire);
  if ((oldest & kCommitted) == 0) return 0;
  uint32_t next = producers.sequence.load(std::memory_order_acquire);
  // A producer that died right after its commit has not counted it.
  const uint64_t tail = producers.tail.load(std::memory_order_acquire);
  const uint64_t newest = Word(tail).load(std::memory_order_acquire);
  if (newest != 0 && SequenceOf(newest) == (next & kSequenceMask)) ++next;
  return std::min<uint64_t>((next - SequenceOf(oldest)) & kSequenceMask,
                            capacity_ / kUnit - 1);
}

uint64_t Ring::rescues() const {
  return shared_->rescues.load(std::memory_order_relaxed);
}

}  // namespace cohort::ipc_internal
