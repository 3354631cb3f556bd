// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/pipe.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/ipc/internal/ring.h"
#include "cohort/os/check.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/poll.h"
#include "cohort/os/socket.h"

namespace cohort {
namespace ipc_internal {
namespace {

using Tag = Pipe::Tag;

// Tags that are no type's. docs/formats/pipe.md.
constexpr Tag kLookTag = 0;   // No message: an end was dropped, look whether it
                              // was the last.
constexpr Tag kSpillTag = 1;  // The message is in the first descriptor.
constexpr size_t kLookSize = 1;

constexpr uint64_t kRingTag = TypeTag<Tag>("pipe");
constexpr size_t kLeastBytes = 4096;

// Where a message that is not in the ring is said to be.
struct SpillRecord {
  Tag spill_tag;
  uint64_t size;
};

absl::Status Damaged() {
  return absl::DataLossError(
      "pipe: a process that shares it has overwritten its memory; create a new "
      "one");
}

absl::Status WrongType() {
  return absl::FailedPreconditionError(
      "pipe: the next message is of another type than was asked for; it stays "
      "the next, receive it as the type that it was sent as");
}

absl::Status NoMemory(size_t size) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "pipe: no memory for a message of ", size, " bytes; it stays the next"));
}

absl::Status TooLong(size_t size, size_t most) {
  return absl::ResourceExhaustedError(
      absl::StrCat("pipe: the next message has ", size, " bytes, and at most ",
                   most, " were asked for; it stays the next"));
}

// A sleeper cannot watch the rings and the socket at once, so it sleeps in parts
// and looks at the socket in between: soon at first, for the other side may be
// gone already, then after about as long as it has slept so far.
class Looks final {
 public:
  explicit Looks(Deadline overall) : overall_(overall) {}

  // When to look next, never after the end of the whole wait.
  Deadline Next() {
    const std::chrono::microseconds part = part_;
    part_ = part < kLeast ? kLeast : std::min(2 * part, kMost);
    return overall_.Earlier(Deadline::After(part));
  }

 private:
  static constexpr std::chrono::microseconds kLeast{1'000};
  static constexpr std::chrono::microseconds kMost{100'000};

  Deadline overall_;
  std::chrono::microseconds part_{20};
};

Tag TagOf(const Frame& message) {
  Tag tag = kLookTag;
  if (message.size() >= sizeof(tag)) {
    std::memcpy(&tag, message.data(), sizeof(tag));
  }
  return tag;
}

}  // namespace

// Messages that were taken and then refused, oldest first.
struct Pipe::Kept {
  std::mutex mutex;
  std::deque<Frame> messages;
  std::atomic<size_t> count = 0;
  // Nobody will ever have the other end again.
  std::atomic<bool> alone = false;
};

absl::StatusOr<std::pair<std::unique_ptr<Pipe>, std::unique_ptr<Pipe>>>
Pipe::Create(const PipeOptions& options) {
  if (options.bytes > Ring::kMaxCapacity) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipe: ", options.bytes, " bytes; the limit is 4 GiB"));
  }
  absl::StatusOr<std::pair<os::Descriptor, os::Descriptor>> sockets =
      os::SocketPair();
  if (!sockets.ok()) return sockets.status();
  RingOptions ring_options;
  ring_options.capacity = std::bit_ceil(std::max(options.bytes, kLeastBytes));
  ring_options.type_tag = kRingTag;
  ring_options.name = options.name;
  ring_options.carries_descriptors = true;
  absl::StatusOr<Ring> one = Ring::Create(ring_options);
  if (!one.ok()) return one.status();
  absl::StatusOr<Ring> other = Ring::Create(ring_options);
  if (!other.ok()) return other.status();
  return std::pair(
      std::make_unique<Pipe>(*one, *other, std::move(sockets->first)),
      std::make_unique<Pipe>(*other, *one, std::move(sockets->second)));
}

absl::StatusOr<std::unique_ptr<Pipe>> Pipe::Attach(Parts parts) {
  if (!os::IsMessageSocket(parts.socket)) {
    return absl::FailedPreconditionError(
        "pipe: what was received is no end of a pipe");
  }
  absl::StatusOr<Ring> in =
      Ring::Attach(std::move(parts.in), kRingTag, std::move(parts.in_post[0]),
                   std::move(parts.in_post[1]));
  if (!in.ok()) return in.status();
  absl::StatusOr<Ring> out =
      Ring::Attach(std::move(parts.out), kRingTag, std::move(parts.out_post[0]),
                   std::move(parts.out_post[1]));
  if (!out.ok()) return out.status();
  return std::make_unique<Pipe>(*std::move(in), *std::move(out),
                                std::move(parts.socket));
}

Pipe::Pipe(Ring in, Ring out, os::Descriptor socket)
    : in_(std::move(in)),
      out_(std::move(out)),
      socket_(std::move(socket)),
      kept_(std::make_unique<Kept>()) {}

// First the socket, then the message that says "look": whoever is woken by it
// sees the hang-up. Where there is no room for it, the receiver is awake.
Pipe::~Pipe() {
  if (PeerGone()) return;
  socket_.Reset();
  const char look = 0;
  (void)out_.Put(&look, kLookSize, Deadline::Now());
}

// The other side's end of the pair sends nothing: what can be read is its end.
bool Pipe::PeerGone() {
  if (kept_->alone.load(std::memory_order_acquire)) return true;
  const absl::StatusOr<bool> hung_up =
      os::PollReadable(socket_, Deadline::Now());
  if (hung_up.ok() && !*hung_up) return false;
  kept_->alone.store(true, std::memory_order_release);
  return true;
}

bool Pipe::HasKept() const {
  return kept_->count.load(std::memory_order_acquire) != 0;
}

absl::Status Pipe::Movable() const {
  if (!HasKept()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "pipe: this end has taken a message that nobody wanted; receive it "
      "before "
      "the end goes elsewhere");
}

// Puts the message into memory of its own, and a word about that in its place.
absl::Status Pipe::Spill(Frame& message) const {
  absl::StatusOr<Region> memory =
      Region::Create({.size = message.size(), .label = "pipe message"});
  if (!memory.ok()) return memory.status();
  absl::StatusOr<os::Descriptor> first = memory->descriptor().Duplicate();
  if (!first.ok()) return first.status();
  std::memcpy(memory->bytes().data(), message.data(), message.size());
  const SpillRecord record = {kSpillTag, message.size()};
  std::vector<os::Descriptor>& descriptors = message.descriptors();
  descriptors.insert(descriptors.begin(), *std::move(first));
  message.Truncate(0);
  message.Append({reinterpret_cast<const char*>(&record), sizeof(record)});
  return absl::OkStatus();
}

// The reverse, if that is the message asked for: one that stays takes no memory
// here. Copies: what the other side may still write to is not decoded. On failure
// the message is as it was.
absl::Status Pipe::Unspill(Tag tag, size_t most, Frame& message) const {
  SpillRecord record;
  std::vector<os::Descriptor>& descriptors = message.descriptors();
  if (message.size() != sizeof(record) || descriptors.empty()) {
    return Damaged();
  }
  std::memcpy(&record, message.data(), sizeof(record));
  absl::StatusOr<os::Descriptor> memory = descriptors.front().Duplicate();
  if (!memory.ok()) return memory.status();
  absl::StatusOr<Region> region = Region::Attach(*std::move(memory));
  if (!region.ok()) {
    return absl::IsResourceExhausted(region.status()) ? region.status()
                                                      : Damaged();
  }
  // One that has a name could be cut off while it is read.
  if (region->size() != record.size || record.size < kTagSize ||
      !region->name().empty()) {
    return Damaged();
  }
  Tag found;
  std::memcpy(&found, region->bytes().data(), sizeof(found));
  if (found != tag) return WrongType();
  if (record.size - kTagSize > most) {
    return TooLong(record.size - kTagSize, most);
  }
  Frame whole;
  try {
    whole.Append({reinterpret_cast<const char*>(region->bytes().data()),
                  region->size()});
  } catch (const std::bad_alloc&) {
    return NoMemory(region->size());
  }
  descriptors.erase(descriptors.begin());
  whole.descriptors() = std::move(descriptors);
  message = std::move(whole);
  return absl::OkStatus();
}

absl::Status Pipe::Send(Frame& message, Deadline deadline) {
  if (message.size() > out_.capacity() / 4) {
    absl::Status spilled = Spill(message);
    if (!spilled.ok()) return spilled;
  }
  if (message.descriptors().size() > os::kMostDescriptorsPerMessage) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipe: a message with ", message.descriptors().size(),
                     " descriptors (an end has seven); one carries at most ",
                     os::kMostDescriptorsPerMessage, ", so send it in parts"));
  }
  Looks looks(deadline);
  for (;;) {
    if (PeerGone()) {
      return absl::UnavailableError(
          "pipe: nobody has the other end any more, so nothing can be sent");
    }
    switch (out_.Put(message.data(), message.size(), looks.Next(),
                     message.descriptors())) {
      case RingEnd::kDone:
        return absl::OkStatus();
      case RingEnd::kLate:
        if (!deadline.Passed()) continue;
        return absl::DeadlineExceededError(
            "pipe: it stayed full for as long as Send() was to wait");
      case RingEnd::kManyInFlight:
        if (!deadline.Passed()) continue;
        return absl::DeadlineExceededError(
            "pipe: this user has as many descriptors in unread messages as the "
            "limit on open files allows, and none was read for as long as "
            "Send() was to wait; let others read, or raise the limit with "
            "`ulimit -n`");
      default:
        return Damaged();
    }
  }
}

// Calls `take(until)`, which looks into the ring and says kLate to go on, until
// it says otherwise, the deadline is over or the other end is gone and all is
// received. What the dead have sent is complete once their end is seen, so one
// look after that is the last.
template <typename Take>
absl::Status Pipe::Await(Deadline deadline, Take take) {
  Looks looks(deadline);
  for (bool last = false;;) {
    const std::optional<absl::Status> done =
        take(last ? Deadline::Now() : looks.Next());
    if (done) return *done;
    if (last) {
      return absl::OutOfRangeError(
          "pipe: nobody has the other end any more, and all is received");
    }
    last = PeerGone();
    if (!last && deadline.Passed()) {
      return absl::DeadlineExceededError(
          "pipe: no message came for as long as Recv() was to wait");
    }
  }
}

absl::Status Pipe::Recv(Tag tag, size_t most, Frame& message,
                        Deadline deadline) {
  // A message to be read without a look at its size first.
  constexpr size_t kUsual = 512;
  const auto fits = [&](const Frame& found) {
    return found.size() - kTagSize <= most;
  };
  const auto keep = [&](bool first) {
    kept_->count.fetch_add(1, std::memory_order_acq_rel);
    if (first) {
      kept_->messages.push_front(std::move(message));
    } else {
      kept_->messages.push_back(std::move(message));
    }
    message = Frame();
  };
  // What to say to the message found; where it is refused, it is kept.
  const auto judge = [&](bool first) -> absl::Status {
    absl::Status status;
    if (TagOf(message) == kSpillTag) status = Unspill(tag, most, message);
    if (absl::IsDataLoss(status)) return status;
    if (status.ok() && TagOf(message) != tag) status = WrongType();
    if (status.ok() && !fits(message)) {
      status = TooLong(message.size() - kTagSize, most);
    }
    if (!status.ok()) keep(first);
    return status;
  };
  return Await(deadline, [&](Deadline until) -> std::optional<absl::Status> {
    if (HasKept()) {
      const std::lock_guard lock(kept_->mutex);
      if (!kept_->messages.empty()) {
        message = std::move(kept_->messages.front());
        kept_->messages.pop_front();
        kept_->count.fetch_sub(1, std::memory_order_acq_rel);
        return judge(/*first=*/true);
      }
    }
    size_t room = std::max(message.capacity(), kUsual);
    for (;;) {
      char* to = nullptr;
      try {
        message.Clear();
        to = message.Extend(room);
      } catch (const std::bad_alloc&) {
        return NoMemory(room);
      }
      size_t size = 0;
      os::DescriptorBatch descriptors;
      switch (in_.Get(to, room, Larger::kKeep, &size, until, &descriptors)) {
        case RingEnd::kDone:
          break;
        case RingEnd::kTooLarge:
          room = size;  // At most the ring's capacity: it was checked.
          continue;
        case RingEnd::kLate:
          return std::nullopt;
        case RingEnd::kNoNumbers:
          return absl::ResourceExhaustedError(
              "pipe: the next message has descriptors, and no number is left "
              "for them in this process; it stays the next. Close some, or "
              "raise the limit with `ulimit -n`");
        default:
          return Damaged();
      }
      message.Truncate(size);
      if (size == kLookSize) {
        until = Deadline::Now();  // Whatever stands behind it, without a wait.
        continue;
      }
      if (size < kTagSize) return Damaged();
      if (descriptors.size() > 0) message.descriptors() = descriptors.Take();
      if (TagOf(message) == tag && fits(message)) return absl::OkStatus();
      const std::lock_guard lock(kept_->mutex);
      return judge(/*first=*/false);
    }
  });
}

bool Pipe::Poll(Deadline deadline) {
  const absl::Status found =
      Await(deadline, [&](Deadline until) -> std::optional<absl::Status> {
        if (HasKept()) return absl::OkStatus();
        // Takes what says "look", which alone is so short.
        char look = 0;
        size_t size = 0;
        for (;;) {
          const RingEnd end =
              in_.Get(&look, kLookSize, Larger::kKeep, &size, until);
          if (end == RingEnd::kLate) return std::nullopt;
          if (end != RingEnd::kDone) return absl::OkStatus();
          until = Deadline::Now();
        }
      });
  return !absl::IsDeadlineExceeded(found);
}

}  // namespace ipc_internal

absl::StatusOr<std::pair<PipeEnd, PipeEnd>> CreatePipe(
    const PipeOptions& options) {
  auto ends = ipc_internal::Pipe::Create(options);
  if (!ends.ok()) return ends.status();
  return std::pair(PipeEnd(std::move(ends->first)),
                   PipeEnd(std::move(ends->second)));
}

absl::Status PipeEnd::SendBytes(std::string_view bytes,
                                absl::Duration timeout) const {
  ipc_internal::Pipe& pipe = CheckedPipe();
  ipc_internal::Scratch scratch;
  StartMessage(scratch.frame(), ipc_internal::Pipe::kBytesTag);
  try {
    scratch.frame().Append(bytes);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("pipe: no memory to send ", bytes.size(), " bytes"));
  }
  return pipe.Send(scratch.frame(), ipc_internal::DeadlineAfter(timeout));
}

absl::StatusOr<std::string> PipeEnd::RecvBytes(absl::Duration timeout,
                                               size_t most) const {
  ipc_internal::Scratch scratch;
  absl::Status received =
      CheckedPipe().Recv(ipc_internal::Pipe::kBytesTag, most, scratch.frame(),
                         ipc_internal::DeadlineAfter(timeout));
  if (!received.ok()) return received;
  return std::string(
      scratch.frame().bytes().substr(ipc_internal::Pipe::kTagSize));
}

bool PipeEnd::Poll(absl::Duration timeout) const {
  return CheckedPipe().Poll(ipc_internal::DeadlineAfter(timeout));
}

uint64_t PipeEnd::rescues() const {
  const ipc_internal::Pipe& pipe = CheckedPipe();
  return pipe.in().rescues() + pipe.out().rescues();
}

ipc_internal::Pipe& PipeEnd::CheckedPipe() const {
  os::Check(pipe_ != nullptr,
            "a PipeEnd that was never created or received, or was moved away, "
            "was used");
  return *pipe_;
}

void PipeEnd::StartMessage(Frame& message, ipc_internal::Pipe::Tag tag) {
  message.Append({reinterpret_cast<const char*>(&tag), sizeof(tag)});
}

}  // namespace cohort
