// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cohort/os/poll.h"
#include "cohort/os/status.h"

namespace cohort::os {
namespace {

constexpr size_t kControlBytes =
    CMSG_SPACE(kMostDescriptorsPerMessage * sizeof(int));

// Large enough for every message; the kernel wants it aligned as a header is.
struct ControlBuffer {
  alignas(cmsghdr) std::array<char, kControlBytes> bytes;
};

std::vector<Descriptor> DescriptorsOf(msghdr* header) {
  std::vector<Descriptor> found;
  for (cmsghdr* part = CMSG_FIRSTHDR(header); part != nullptr;
       part = CMSG_NXTHDR(header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      found.emplace_back(fd);
    }
  }
  return found;
}

}  // namespace

absl::StatusOr<std::pair<Descriptor, Descriptor>> SocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "socketpair", "SOCK_SEQPACKET");
  }
  return std::make_pair(Descriptor(ends[0]), Descriptor(ends[1]));
}

absl::Status SendMessage(const Descriptor& socket, std::string_view bytes,
                         absl::Span<const int> descriptors, Deadline until) {
  if (bytes.empty() || descriptors.size() > kMostDescriptorsPerMessage) {
    return absl::InvalidArgumentError(
        absl::StrCat("a message has at least one byte and at most ",
                     kMostDescriptorsPerMessage, " descriptors; this one has ",
                     bytes.size(), " and ", descriptors.size()));
  }
  iovec part = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  ControlBuffer control;
  if (!descriptors.empty()) {
    header.msg_control = control.bytes.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    std::memset(control.bytes.data(), 0, header.msg_controllen);
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), descriptors.data(),
                descriptors.size() * sizeof(int));
  }
  for (;;) {
    if (sendmsg(socket.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
      return absl::OkStatus();
    }
    switch (errno) {
      case EINTR:
        continue;
      case EAGAIN: {
        absl::StatusOr<bool> room = PollWritable(socket, until);
        if (!room.ok()) return room.status();
        if (*room) continue;
        return absl::DeadlineExceededError(
            "the socket's buffer is full: the other end does not read");
      }
      case EMSGSIZE:
        return absl::ResourceExhaustedError(
            absl::StrCat("a message of ", bytes.size(),
                         " bytes does not fit into the socket's buffer"));
      default:
        return ErrnoStatus(errno, "sendmsg", "socket pair");
    }
  }
}

absl::Status SendMessage(const Descriptor& socket, std::string_view bytes,
                         absl::Span<const Descriptor> descriptors,
                         Deadline until) {
  std::vector<int> numbers;
  numbers.reserve(descriptors.size());
  for (const Descriptor& one : descriptors) numbers.push_back(one.get());
  return SendMessage(socket, bytes, absl::Span<const int>(numbers), until);
}

absl::StatusOr<Message> ReceiveMessage(const Descriptor& socket,
                                       size_t most_bytes,
                                       size_t most_descriptors,
                                       Deadline until) {
  Message message;
  message.bytes.resize(most_bytes);
  ControlBuffer control;
  iovec part = {};
  msghdr header = {};
  ssize_t received;
  for (;;) {
    part = {message.bytes.data(), message.bytes.size()};
    header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.data();
    header.msg_controllen = control.bytes.size();
    received = recvmsg(socket.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (received >= 0) break;
    if (errno == EINTR) continue;
    // A peer has ended with messages of ours unread. The kernel says so once,
    // and before what the peer itself had sent, which can be had after that.
    if (errno == ECONNRESET) continue;
    if (errno != EAGAIN) return ErrnoStatus(errno, "recvmsg", "socket pair");
    absl::StatusOr<bool> ready = PollReadable(socket, until);
    if (!ready.ok()) return ready.status();
    if (!*ready) {
      return absl::DeadlineExceededError("no message arrived in time");
    }
  }
  message.descriptors = DescriptorsOf(&header);
  if (received == 0) {
    return absl::OutOfRangeError("the other end of the socket is closed");
  }
  if ((header.msg_flags & MSG_CTRUNC) != 0) {
    return absl::ResourceExhaustedError(
        "descriptors of a message were lost: no numbers left in this process; "
        "raise the limit with `ulimit -n`");
  }
  if ((header.msg_flags & MSG_TRUNC) != 0 ||
      message.descriptors.size() > most_descriptors) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a message exceeds what is expected here, ", most_bytes,
                     " bytes and ", most_descriptors, " descriptors"));
  }
  message.bytes.resize(static_cast<size_t>(received));
  return message;
}

}  // namespace cohort::os
