// SPDX-License-Identifier: Apache-2.0
//
// A pipe joins two processes: what one end sends the other receives, both ways,
// each message a value of whatever type.
//
//   absl::Status Answer(cohort::PipeEnd pipe) {
//     for (;;) {
//       absl::StatusOr<std::string> question = pipe.Recv<std::string>();
//       if (absl::IsOutOfRange(question.status())) return absl::OkStatus();
//       if (!question.ok()) return question.status();
//       absl::Status sent = pipe.Send(question->size());
//       if (!sent.ok()) return sent;
//     }
//   }
//
//   auto ends = cohort::CreatePipe();
//   if (!ends.ok()) return ends.status();
//   auto [left, right] = *std::move(ends);
//   auto child = cohort::Process::Start(Answer, std::move(right));
//   absl::Status sent = left.Send(std::string("how long is this?"));
//   absl::StatusOr<size_t> answer = left.Recv<size_t>(absl::Seconds(1));
//
// There is no Close(): an end is closed when nobody has it any more, because it
// was dropped or its process died, however that happened. The other end then
// still receives what was sent before, and is told so.
//
// An end is moved, never copied. Sent to another process, it is that one's: by
// Send(std::move(end)) through another pipe, as an argument of a process.
//
// For many producers or consumers, or for one type only, take a queue
// (ipc/queue.h). Within one process, one of threads.

#ifndef COHORT_IPC_PIPE_H_
#define COHORT_IPC_PIPE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/internal/message.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/encodable.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/shm/type_tag.h"

namespace cohort {

struct PipeOptions {
  // Memory for messages on their way, in each direction; rounded up to a power
  // of two, 4 KiB to 4 GiB. Messages of more than a quarter of it travel in
  // memory of their own, so there is no limit to the size of one. Memory is
  // taken when it is first used.
  size_t bytes = 1 << 20;

  // What /proc/PID/maps shows.
  std::string name = "pipe";
};

class PipeEnd;

// Two ends, each the other's. InvalidArgument: options beyond their limits.
// ResourceExhausted: no memory or descriptors left; an end has seven.
absl::StatusOr<std::pair<PipeEnd, PipeEnd>> CreatePipe(
    const PipeOptions& options = {});

namespace ipc_internal {

// What is behind an end: two rings, one for each direction, and one end of a
// pair of sockets, by whose hang-up the kernel tells that nobody has the other.
class Pipe final {
 public:
  using Tag = uint64_t;
  // Of messages that are bytes, not values. A TypeTag() is 64 random bits.
  static constexpr Tag kBytesTag = 2;
  // Each message begins with its tag.
  static constexpr size_t kTagSize = sizeof(Tag);

  static absl::StatusOr<std::pair<std::unique_ptr<Pipe>, std::unique_ptr<Pipe>>>
  Create(const PipeOptions& options);

  // The parts of an end that was received.
  struct Parts {
    Region in, out;
    os::Descriptor in_post[2], out_post[2];
    os::Descriptor socket;
  };
  static absl::StatusOr<std::unique_ptr<Pipe>> Attach(Parts parts);

  Pipe(Ring in, Ring out, os::Descriptor socket);
  // Closes it, and lets the other side look whether it was the last.
  ~Pipe();

  // Sends a message, its tag included.
  absl::Status Send(Frame& message, Deadline deadline);

  // Fills an empty frame with the next message, its tag included, if that has
  // this tag and, behind it, at most `most` bytes; else it stays the next.
  absl::Status Recv(Tag tag, size_t most, Frame& message, Deadline deadline);

  // Whether Recv() would not wait.
  bool Poll(Deadline deadline);

  // What to send along: OK where nothing would be left behind.
  absl::Status Movable() const;
  const Ring& in() const { return in_; }
  const Ring& out() const { return out_; }
  const os::Descriptor& socket() const { return socket_; }

 private:
  struct Kept;

  bool PeerGone();
  template <typename Take>
  absl::Status Await(Deadline deadline, Take take);
  absl::Status Spill(Frame& message) const;
  absl::Status Unspill(Tag tag, size_t most, Frame& message) const;
  bool HasKept() const;

  Ring in_;
  Ring out_;
  os::Descriptor socket_;
  std::unique_ptr<Kept> kept_;
};

}  // namespace ipc_internal

// PipeEnd
//
// |        | Send()         | Recv()           | moved or sent | its process  |
// |        |                |                  | away, dropped | dies         |
// |--------+----------------+------------------+---------------+--------------|
// | Empty  | fatal          | fatal            | --            | --           |
// | Joined | stored; full:  | oldest; none:    | Empty; the    | the other is |
// |        | waits          | waits            | other Alone,  | Alone        |
// |        |                |                  | if dropped    |              |
// | Alone  | Unavailable    | oldest; none:    | Empty         | --           |
// |        |                | OutOfRange       |               |              |
//
// "Empty" is an end that was default-constructed, or moved from. "Alone" is one
// whose other end nobody has any more.
//
// Contract
//   Placement:      private memory; what it refers to is in two Regions, of the
//                   layout of docs/formats/pipe.md.
//   Thread-safety:  every member but assignment, from any thread: messages are
//                   never mixed, each is received once.
//   Process-safety: the two ends are for two processes of one PID namespace.
//   Fork-safety:    a child of fork() has the ends that its parent has, and may
//                   use them; an end counts as closed when both have dropped
//                   it. So drop in each what it does not use. A child started
//                   by StartMethod::kFork holds all of them, unseen, while it
//                   runs: where the end of a pipe matters, spawn it.
//   Crash-safety:   whatever instruction a process dies at: what Send() said OK
//                   to is received once, unless the dead one had taken it. Who
//                   calls later is told of the death at once; who sleeps, of a
//                   dropped end at once, of a death after 1 ms or as long again
//                   as it has slept, 100 ms at most.
//   Signal-safety:  none. Waits resume after a handler ran. No SIGPIPE.
//   Errors:         DeadlineExceeded: not in time. Unavailable: Send() when
//                   nobody has the other end; OK does not promise that somebody
//                   will receive. OutOfRange: Recv() likewise, all received.
//                   FailedPrecondition: the next message is of another type;
//                   it stays. ResourceExhausted: the next message is longer
//                   than asked for, or no memory or descriptor is left for it;
//                   it stays. DataLoss: a message that could not be decoded,
//                   and is gone; or damaged shared memory: then for good. Send()
//                   also passes on why a value could not be encoded.
//   Ordering:       messages arrive in the order in which they were sent. What
//                   was written before Send() is visible after its Recv().
//   Cost:           as a queue's (ipc/queue.h), and one system call for each
//                   Send(), which looks whether the other end is there: some
//                   0.3 us. A large message costs a memory file and two more
//                   copies.
//   Reference:      Python's multiprocessing.Pipe; docs/design/pipe.md.
class PipeEnd final {
 public:
  // An end of no pipe, until assigned to.
  PipeEnd() = default;
  PipeEnd(PipeEnd&&) noexcept = default;
  PipeEnd& operator=(PipeEnd&&) noexcept = default;

  // Sends a value of any type that travels (serialize/encodable.h), which is
  // received as that very type. Waits for room, for at most `timeout`; zero or
  // less makes one attempt. A value that is moved in is gone when it was sent,
  // with the ends and handles in it; otherwise it is as before. One that is not
  // moved in, and has an end in it, leaves the end to both.
  template <typename T>
  absl::Status Send(T&& value,
                    absl::Duration timeout = absl::InfiniteDuration()) const {
    using Value = std::remove_cvref_t<T>;
    CheckEncodable<Value>();
    ipc_internal::Pipe& pipe = CheckedPipe();
    ipc_internal::Scratch scratch;
    StartMessage(scratch.frame(), kTagOf<Value>);
    absl::Status status = EncodeTo(scratch.frame(), value);
    if (!status.ok()) return status;
    status = pipe.Send(scratch.frame(), ipc_internal::DeadlineAfter(timeout));
    if constexpr (!std::is_reference_v<T> && !std::is_const_v<T> &&
                  !std::is_trivially_copyable_v<T>) {
      if (status.ok()) {
        [[maybe_unused]] const Value gone = std::move(value);
      }
    }
    return status;
  }
  // Text is sent as a std::string.
  absl::Status Send(const char* text,
                    absl::Duration timeout = absl::InfiniteDuration()) const {
    return Send(std::string(text), timeout);
  }

  // Receives the next message, which must be a T. Waits for one, for at most
  // `timeout`; zero or less makes one attempt.
  template <typename T>
  [[nodiscard]] absl::StatusOr<T> Recv(
      absl::Duration timeout = absl::InfiniteDuration()) const {
    CheckEncodable<T>();
    ipc_internal::Scratch scratch;
    Frame& message = scratch.frame();
    absl::Status received = CheckedPipe().Recv(
        kTagOf<T>, kAnySize, message, ipc_internal::DeadlineAfter(timeout));
    if (!received.ok()) return received;
    absl::StatusOr<T> value =
        Decode<T>(message.bytes().substr(ipc_internal::Pipe::kTagSize),
                  std::move(message.descriptors()));
    if (!value.ok()) return ipc_internal::Undecodable(value.status());
    return value;
  }

  // Sends bytes as they are, to be received by RecvBytes().
  absl::Status SendBytes(
      std::string_view bytes,
      absl::Duration timeout = absl::InfiniteDuration()) const;

  // Receives the next message, which must be bytes, at most `most` of them.
  [[nodiscard]] absl::StatusOr<std::string> RecvBytes(
      absl::Duration timeout = absl::InfiniteDuration(),
      size_t most = kAnySize) const;

  // Waits until a receiver need not wait, for at most `timeout`: a message is
  // there, or nothing will ever come. Returns true iff that is so.
  [[nodiscard]] bool Poll(absl::Duration timeout = absl::ZeroDuration()) const;

  // Whether this is an end of no pipe.
  [[nodiscard]] bool empty_handle() const { return pipe_ == nullptr; }

  // How often a waiter on either end found something that nobody had woken it
  // for: 0 unless a process was killed or stopped. For tests and watchers.
  [[nodiscard]] uint64_t rescues() const;

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(pipe_ != nullptr);
    if (pipe_ == nullptr) return;
    absl::Status movable = pipe_->Movable();
    if (!movable.ok()) archive.Fail(movable);
    for (const ipc_internal::Ring* ring : {&pipe_->in(), &pipe_->out()}) {
      archive(ring->region(), ring->in(), ring->out());
    }
    archive(pipe_->socket());
  }
  template <typename Archive>
  void load(Archive& archive) {
    pipe_ = nullptr;
    bool joined = false;
    archive(joined);
    if (!joined) return;
    ipc_internal::Pipe::Parts parts;
    archive(parts.in, parts.in_post[0], parts.in_post[1]);
    archive(parts.out, parts.out_post[0], parts.out_post[1]);
    archive(parts.socket);
    absl::StatusOr<std::unique_ptr<ipc_internal::Pipe>> attached =
        ipc_internal::Pipe::Attach(std::move(parts));
    if (!attached.ok()) archive.Fail(attached.status());
    pipe_ = *std::move(attached);
  }

 private:
  friend absl::StatusOr<std::pair<PipeEnd, PipeEnd>> CreatePipe(
      const PipeOptions& options);

  static constexpr size_t kAnySize = std::numeric_limits<size_t>::max();
  template <typename T>
  static constexpr ipc_internal::Pipe::Tag kTagOf = TypeTag<T>("message",
                                                               kWireVersion);

  explicit PipeEnd(std::unique_ptr<ipc_internal::Pipe> pipe)
      : pipe_(std::move(pipe)) {}

  ipc_internal::Pipe& CheckedPipe() const;
  static void StartMessage(Frame& message, ipc_internal::Pipe::Tag tag);

  std::unique_ptr<ipc_internal::Pipe> pipe_;
};

}  // namespace cohort

#endif  // COHORT_IPC_PIPE_H_
