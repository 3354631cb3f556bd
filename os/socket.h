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

}  // namespace cohort::os

#endif  // COHORT_OS_SOCKET_H_
