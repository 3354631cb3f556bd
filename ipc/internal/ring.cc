// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/internal/ring.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "cohort/os/check.h"
#include "cohort/os/cpu.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/os/socket.h"

namespace cohort::ipc_internal {
namespace {

using sync_internal::Acquired;
using sync_internal::ShortLock;

constexpr uint64_t kMagic = 0x31474e4952484f43;  // "COHRING1"
constexpr uint32_t kVersion = 2;

// Bits of Shared::Producers::state; once set, for good. Closed is set under the
// producers' lock, so whoever sees it sees all that was accepted before.
constexpr uint32_t kClosedBit = 1;
constexpr uint32_t kDamagedBit = 2;

// A record's header: length in bits 32-63, sequence number in bits 4-31, bits
// 2-3 zero, bit 1 says that descriptors belong to it, bit 0 is set. 0 means
// that no record begins here yet.
constexpr uint64_t kCommitted = 1;
constexpr uint64_t kPosted = 2;
constexpr uint64_t kReservedBits = 0xc;
constexpr uint32_t kSequenceMask = 0x0fffffff;

// A record with kPosted begins with this many bytes more, counted in its
// length: the stamp of its descriptors.
constexpr uint64_t kStampSize = sizeof(uint64_t);

constexpr uint64_t MakeHeader(uint64_t size, uint32_t sequence) {
  return size << 32 | uint64_t{sequence & kSequenceMask} << 4 | kCommitted;
}
constexpr uint64_t SizeOf(uint64_t header) { return header >> 32; }
constexpr uint32_t SequenceOf(uint64_t header) {
  return static_cast<uint32_t>(header >> 4) & kSequenceMask;
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

// Of one that awaits an answer: with one pause instead of two, a round trip
// takes a tenth longer where a line comes from far.
constexpr int kAnswerPause = 2;

// Looks until `ready` or for as long as may pay, with pauses that grow from
// `pause` to `max_pause`: each look takes a cache line away from the one who is
// about to change it.
template <typename Ready>
bool SpinUntil(int pause, int max_pause, Ready ready) {
  if (!os::RobustThread::Self().may_spin()) return false;
  const int looks_per_clock = max_pause == kAnswerPause ? 16 : 1;
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

// Has the bell rung at the next change, and returns what it is at now.
uint32_t Arm(Bell& bell) {
  const uint32_t event = bell.event.load(std::memory_order_acquire);
  bell.flag.exchange(1, std::memory_order_acq_rel);
  return event;
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
  absl::StatusOr<std::pair<os::Descriptor, os::Descriptor>> post;
  if (options.carries_descriptors) {
    post = os::SocketPair();
    if (!post.ok()) return post.status();
  }
  Ring ring(*std::move(region));
  // The rest is zero, as it should be.
  ring.shared_->magic = kMagic;
  ring.shared_->version = kVersion;
  ring.shared_->max_items = static_cast<uint32_t>(options.max_items);
  ring.shared_->capacity = capacity;
  if (!options.carries_descriptors) {
    return Attach(std::move(ring.region_), options.type_tag);
  }
  return Attach(std::move(ring.region_), options.type_tag,
                std::move(post->first), std::move(post->second));
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

absl::StatusOr<Ring> Ring::Attach(Region region, uint64_t type_tag,
                                  os::Descriptor in, os::Descriptor out) {
  if (!os::IsMessageSocket(in) || !os::IsMessageSocket(out)) {
    return absl::FailedPreconditionError(
        "queue: what was received beside its memory are no sockets, so it "
        "cannot carry descriptors");
  }
  absl::StatusOr<Ring> ring = Attach(std::move(region), type_tag);
  if (!ring.ok()) return ring;
  ring->post_ = std::make_shared<const Post>(
      Post{.in = std::move(in), .out = std::move(out)});
  return ring;
}

const os::Descriptor& Ring::in() const {
  static const os::Descriptor none;
  return post_ == nullptr ? none : post_->in;
}

const os::Descriptor& Ring::out() const {
  static const os::Descriptor none;
  return post_ == nullptr ? none : post_->out;
}

// Whether this ring can have written the header.
bool Ring::IsSound(uint64_t header) const {
  if ((header & (kReservedBits | kCommitted)) != kCommitted) return false;
  if ((header & kPosted) != 0 &&
      (post_ == nullptr || SizeOf(header) < kStampSize)) {
    return false;
  }
  return RecordSize(SizeOf(header)) <= capacity_ - kUnit;
}

// The first word of each unit may be looked at as a header by a consumer that
// is late, so it is only ever written as a whole. Of the first unit, `skip`
// bytes are left out.
void Ring::CopyIn(uint64_t position, uint64_t skip, const void* bytes,
                  size_t size) const {
  if (size == 0) return;  // `bytes` may be null.
  constexpr size_t kRest = kUnit - sizeof(uint64_t);
  const auto* from = static_cast<const std::byte*>(bytes);
  size_t count = std::min<size_t>(size, kUnit - skip);
  std::memcpy(data_ + (position & mask_) + skip, from, count);
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

void Ring::CopyOut(uint64_t position, uint64_t skip, void* to,
                   size_t size) const {
  if (size == 0) return;  // `to` may be null.
  const uint64_t at = (position & mask_) + skip;
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
  LookAtHead(sequence);
  return fits();
}

// Under the producers' lock.
void Ring::LookAtHead(uint32_t sequence) const {
  Shared::Producers& producers = shared_->producers;
  const uint64_t head = shared_->consumers.head.load(std::memory_order_acquire);
  const uint64_t header = Word(head).load(std::memory_order_acquire);
  producers.head = head;
  producers.oldest = header == 0 ? sequence : SequenceOf(header);
}

// Under the producers' lock: a number for descriptors that are about to be
// sent. It is used up before they are, so that what a dead producer has sent
// never has the number of a later record.
uint64_t Ring::NextStamp() const {
  std::atomic<uint64_t>& last = shared_->producers.stamp;
  const uint64_t stamp = last.load(std::memory_order_relaxed) + 1;
  last.store(stamp, std::memory_order_release);
  return stamp;
}

// More messages than a socket can hold.
constexpr int kMostInPost = 1 << 16;

// Under the consumers' lock: copies the descriptors with this stamp into the
// batch. They stay in the socket until the record is taken, so a consumer that
// dies before that takes nothing with it. What is older belongs to no record:
// its producer died before the commit, or its consumer after.
os::PeekEnd Ring::PeekPost(uint64_t stamp, os::DescriptorBatch* batch) const {
  for (int i = 0; i < kMostInPost; ++i) {
    uint64_t found = 0;
    size_t size = 0;
    const os::PeekEnd end =
        os::TryPeek(post_->out, &found, sizeof(found), &size, batch);
    if (end != os::PeekEnd::kDone) batch->Clear();
    if (end != os::PeekEnd::kDone && end != os::PeekEnd::kNoNumbers) return end;
    if (size == sizeof(found)) {
      if (found == stamp) return end;
      if (found > stamp) break;
    }
    batch->Clear();
    (void)os::TryDrop(post_->out);
  }
  batch->Clear();
  return os::PeekEnd::kNone;
}

// Removes what stands in the socket up to this stamp, where all records with
// such stamps have been taken. Returns whether there was anything.
bool Ring::DropLeftovers(uint64_t last_stamp, Deadline deadline) const {
  Shared::Consumers& consumers = shared_->consumers;
  const Acquired acquired = LockFor(consumers.lock, deadline);
  if (acquired == Acquired::kTimedOut) return false;
  if (acquired == Acquired::kOwnerDied) {
    WakeAll(consumers.not_full);  // The dead one may have owed it.
  }
  bool any = false;
  for (int i = 0; i < kMostInPost; ++i) {
    uint64_t found = 0;
    size_t size = 0;
    if (os::TryPeek(post_->out, &found, sizeof(found), &size, nullptr) !=
            os::PeekEnd::kDone ||
        (size == sizeof(found) && found > last_stamp)) {
      break;
    }
    any = os::TryDrop(post_->out) || any;
  }
  if (any) WakeOne(consumers.not_full);
  consumers.lock.Unlock();
  return any;
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
    if (!IsSound(header) || walked > capacity_) return false;
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

// Sleeps until `slice` unless `ready`, or the bell was rung since it was armed
// and `event` returned. Holds no lock. Returns whether the time ended it, and
// nothing is `ready`.
template <typename Ready>
bool Ring::Sleep(Bell& bell, uint32_t event, Deadline slice,
                 Ready ready) const {
  if (ready()) return false;
  os::RobustThread::Self().RefreshCpus();
  const os::FutexEnd end = os::FutexWait(bell.event, event, slice);
  bell.flag.exchange(1, std::memory_order_acq_rel);
  if (end != os::FutexEnd::kTimedOut) return false;
  if (!ready()) return true;
  // Changes and their wake-ups are made under one lock; if neither is held any
  // more and the bell was not rung, it never will be.
  if (shared_->producers.lock.holder() == 0 &&
      shared_->consumers.lock.holder() == 0 &&
      bell.event.fetch_add(0, std::memory_order_acq_rel) == event) {
    shared_->rescues.fetch_add(1, std::memory_order_relaxed);
  }
  return false;
}

RingEnd Ring::Put(const void* bytes, size_t size, Deadline deadline,
                  absl::Span<const os::Descriptor> descriptors) const {
  const bool posted = !descriptors.empty();
  if (posted) [[unlikely]] {
    os::Check(post_ != nullptr &&
                  descriptors.size() <= os::kMostDescriptorsPerMessage,
              "descriptors put into a ring that cannot carry them");
  }
  const uint64_t length = posted ? size + kStampSize : size;
  if (size > max_size() || length > max_size()) [[unlikely]]
    return RingEnd::kTooLarge;
  const uint64_t record = RecordSize(length);
  Shared::Producers& producers = shared_->producers;
  Shared::Consumers& consumers = shared_->consumers;
  Bell& not_full = consumers.not_full;
  os::Slices slices(deadline);
  bool slept = false;
  uint64_t last_head = 0;
  bool armed = false;   // Is the bell, since a try that found the socket full.
  bool unrung = false;  // Was it, in all of the sleep for that.
  uint32_t event = 0;   // What it was at when it was armed.
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
    const bool room = HasRoom(tail, sequence, record);
    uint64_t stamp = 0;
    os::SendEnd sent = os::SendEnd::kDone;
    if (posted && room) [[unlikely]] {
      stamp = NextStamp();
      sent = os::TrySend(post_->in,
                         {reinterpret_cast<const char*>(&stamp), sizeof(stamp)},
                         descriptors);
    }
    if (room && sent == os::SendEnd::kDone) [[likely]] {
      // The end of the records first: a header of 0 must stand behind the
      // newest one at every moment.
      Word(tail + record).store(0, std::memory_order_relaxed);
      uint64_t header = MakeHeader(length, sequence);
      if (posted) [[unlikely]] {
        if (unrung && consumers.lock.holder() == 0 &&
            not_full.event.fetch_add(0, std::memory_order_acq_rel) == event) {
          shared_->rescues.fetch_add(1, std::memory_order_relaxed);
        }
        header |= kPosted;
        Stamp(tail).store(stamp, std::memory_order_relaxed);
        CopyIn(tail, sizeof(header) + kStampSize, bytes, size);
      } else {
        CopyIn(tail, sizeof(header), bytes, size);
      }
      // The commit: before it nothing has happened, after it the message is
      // accepted. Each store that follows is a release, so that none precedes
      // it.
      Word(tail).store(header, std::memory_order_release);
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
    if (sent == os::SendEnd::kFailed) {
      producers.lock.Unlock();
      return RingEnd::kDamaged;  // A peer has shut the sockets down.
    }
    if (sent != os::SendEnd::kDone) LookAtHead(sequence);
    const uint64_t head = producers.head;
    const uint64_t used = tail - head;
    // What this one was woken for is too small for it, perhaps not for others.
    // Once for each change, or two of them would wake each other for ever.
    if (slept && head != last_head) WakeOne(not_full);
    last_head = head;
    producers.lock.Unlock();
    if (sent != os::SendEnd::kDone) {
      // No record is there, so nobody would empty the socket.
      if (used == 0 && DropLeftovers(stamp, deadline)) continue;
      if (sent == os::SendEnd::kManyInFlight && deadline.Passed()) {
        return RingEnd::kManyInFlight;
      }
    }
    if (deadline.Passed()) return RingEnd::kLate;
    if (sent != os::SendEnd::kDone && !armed) {
      // A consumer moves the head before it makes room in the socket, so only
      // a try after the bell is armed tells that there is something to await.
      event = Arm(not_full);
      armed = true;
      unrung = false;
      continue;
    }
    const auto freed = [&] {
      return consumers.head.load(std::memory_order_acquire) - head;
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
    if (!armed) event = Arm(not_full);
    const bool in_vain = Sleep(not_full, event, slices.Next(), changed);
    // Of too many in flight, others ring no bell.
    unrung = in_vain && sent == os::SendEnd::kFull;
    armed = false;
    slept = true;
  }
}

RingEnd Ring::Get(void* to, size_t room, Larger larger, size_t* size,
                  Deadline deadline, os::DescriptorBatch* descriptors) const {
  os::DescriptorBatch unwanted;
  if (descriptors == nullptr) descriptors = &unwanted;
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
        SpinUntil(kAnswerPause, kAnswerPause, seems_filled);
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
        Sleep(producers.not_empty, Arm(producers.not_empty), slices.Next(),
              [&] {
                return seems_filled() ||
                       producers.state.load(std::memory_order_acquire) != 0;
              });
        slept = true;
        continue;
      }
    }
    if (!IsSound(header)) [[unlikely]] {
      consumers.lock.Unlock();
      Damaged();
      return RingEnd::kDamaged;
    }
    const bool posted = (header & kPosted) != 0;
    const uint64_t next = head + RecordSize(SizeOf(header));
    *size = SizeOf(header) - (posted ? kStampSize : 0);
    if (*size > room && larger == Larger::kKeep) [[unlikely]] {
      // The wake-up may have stood for several messages, and the caller that
      // comes back with more room has not slept: see below.
      if (slept && Word(next).load(std::memory_order_acquire) != 0) {
        WakeOne(producers.not_empty);
      }
      consumers.lock.Unlock();
      return RingEnd::kTooLarge;
    }
    uint64_t skip = sizeof(header);
    if (posted) [[unlikely]] {
      skip += kStampSize;
      const uint64_t stamp = Stamp(head).load(std::memory_order_relaxed);
      const os::PeekEnd peeked = PeekPost(stamp, descriptors);
      if (peeked == os::PeekEnd::kNoNumbers) {
        // Others may have numbers left, and sleep.
        if (slept) WakeOne(producers.not_empty);
        consumers.lock.Unlock();
        return RingEnd::kNoNumbers;
      }
      if (peeked != os::PeekEnd::kDone) {
        consumers.lock.Unlock();
        Damaged();  // A peer has emptied the socket.
        return RingEnd::kDamaged;
      }
    }
    CopyOut(head, skip, to, std::min(*size, room));
    // The commit: before it the message is every other consumer's, after it
    // this one's.
    consumers.head.store(next, std::memory_order_release);
    if (posted) [[unlikely]] {
      (void)os::TryDrop(post_->out);
    }
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
