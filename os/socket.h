// SPDX-License-Identifier: Apache-2.0
//
// Pairs of connected sockets that keep message borders and carry descriptors.
//
//   auto [here, there] = OrDie(os::SocketPair());
//   OrDie(os::SendMessage(here, "ready", Deadline::Infinite()));
//   absl::StatusOr<os::Message> message =
//       os::ReceiveMessage(there, 64, 0, Deadline::Infinite());
//
// For large or frequent messages take ipc/queue.h: a message here is copied
// twice by the kernel and is bounded by the socket's buffer, some 200 KiB.

#ifndef COHORT_OS_SOCKET_H_
#define COHORT_OS_SOCKET_H_

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// The most descriptors that one message carries (the kernel's SCM_MAX_FD).
inline constexpr size_t kMostDescriptorsPerMessage = 253;

struct Message {
  std::string bytes;
  std::vector<Descriptor> descriptors;
};

// Two connected ends, SOCK_SEQPACKET, close-on-exec.
absl::StatusOr<std::pair<Descriptor, Descriptor>> SocketPair();

// Sends one message of at least one byte with copies of `descriptors`; never
// raises SIGPIPE. Waits for room until `until`. Unavailable: the other end is
// closed. DeadlineExceeded: no room in time. ResourceExhausted: larger than the
// buffer, or too many descriptors in flight. Nothing is sent then.
absl::Status SendMessage(const Descriptor& socket, std::string_view bytes,
                         absl::Span<const int> descriptors, Deadline until);
// Likewise with descriptors that have owners.
absl::Status SendMessage(const Descriptor& socket, std::string_view bytes,
                         absl::Span<const Descriptor> descriptors,
                         Deadline until);
inline absl::Status SendMessage(const Descriptor& socket,
                                std::string_view bytes, Deadline until) {
  return SendMessage(socket, bytes, absl::Span<const int>(), until);
}

// Receives one message. OutOfRange: the other end is closed and all is read.
// DeadlineExceeded: none by `until`. ResourceExhausted: the message is longer
// than `most_bytes`, carries more than `most_descriptors`, or no descriptor
// number is left here; the message is gone, and so are its descriptors.
absl::StatusOr<Message> ReceiveMessage(const Descriptor& socket,
                                       size_t most_bytes,
                                       size_t most_descriptors, Deadline until);

// What follows neither waits nor allocates: for code that holds a lock.

// The descriptors of one message, in place; closes those that nobody took.
class DescriptorBatch final {
 public:
  DescriptorBatch() = default;
  DescriptorBatch(const DescriptorBatch&) = delete;
  DescriptorBatch& operator=(const DescriptorBatch&) = delete;
  ~DescriptorBatch() { Clear(); }

  [[nodiscard]] size_t size() const { return count_; }

  // Takes over `fd`. Requires fewer than kMostDescriptorsPerMessage so far.
  void Add(int fd) { fds_[count_++] = fd; }

  // Hands all over; this one is empty then.
  [[nodiscard]] std::vector<Descriptor> Take();

  // Closes all.
  void Clear();

 private:
  size_t count_ = 0;
  std::array<int, kMostDescriptorsPerMessage> fds_;  // The first `count_`.
};

enum class SendEnd {
  kDone,
  kFull,          // No room in the socket's buffer.
  kManyInFlight,  // This user has as many descriptors in unread messages as the
                  // limit on open files allows to one process.
  kFailed,        // A closed end, or no socket.
};

// Sends one message with copies of `descriptors`, at most
// kMostDescriptorsPerMessage, if that needs no wait.
SendEnd TrySend(const Descriptor& socket, std::string_view bytes,
                absl::Span<const Descriptor> descriptors);

enum class PeekEnd {
  kDone,
  kNone,       // No message is there.
  kNoNumbers,  // No descriptor numbers are left in this process.
  kFailed,     // A closed end, or no socket.
};

// Copies up to `room` bytes of the oldest message to `bytes`, writes its length
// to `size` and adds copies of its descriptors to `batch`, which must be empty;
// only some of them where it returns kNoNumbers. Without a batch it copies the
// bytes alone. The message stays.
PeekEnd TryPeek(const Descriptor& socket, void* bytes, size_t room,
                size_t* size, DescriptorBatch* batch);

// Removes the oldest message, and what its descriptors kept open. Returns
// whether there was one.
bool TryDrop(const Descriptor& socket);

// Whether `socket` is one end of what SocketPair() returns, as far as can be
// seen from here.
bool IsMessageSocket(const Descriptor& socket);

}  // namespace cohort::os

#endif  // COHORT_OS_SOCKET_H_
