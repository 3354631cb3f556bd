// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
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

// A message to be sent: where its parts lie, for sendmsg(2).
class Outgoing {
 public:
  // The number of a descriptor is found by `number(one)`.
  template <typename T, typename Number>
  Outgoing(std::string_view bytes, absl::Span<const T> descriptors,
           Number number)
      : part_{const_cast<char*>(bytes.data()), bytes.size()} {
    header_.msg_iov = &part_;
    header_.msg_iovlen = 1;
    if (descriptors.empty()) return;
    header_.msg_control = control_.bytes.data();
    header_.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    std::memset(control_.bytes.data(), 0, header_.msg_controllen);
    cmsghdr* const rights = CMSG_FIRSTHDR(&header_);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    unsigned char* to = CMSG_DATA(rights);
    for (const T& one : descriptors) {
      const int fd = number(one);
      std::memcpy(to, &fd, sizeof(fd));
      to += sizeof(fd);
    }
  }
  Outgoing(const Outgoing&) = delete;
  Outgoing& operator=(const Outgoing&) = delete;

  // 0, or the error's number.
  int Send(const Descriptor& socket) {
    for (;;) {
      if (sendmsg(socket.get(), &header_, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
        return 0;
      }
      if (errno != EINTR) return errno;
    }
  }

 private:
  iovec part_;
  msghdr header_ = {};
  ControlBuffer control_;
};

// Newer than Debian 12's <sys/socket.h>.
constexpr int kScmPidfd = 4;

// Calls `take(fd)` for each descriptor that came with a message. Whoever shares
// the socket can make the kernel add one of the sender's process, which nobody
// here asked for.
template <typename Take>
void ForEachDescriptor(msghdr* header, Take take) {
  for (cmsghdr* part = CMSG_FIRSTHDR(header); part != nullptr;
       part = CMSG_NXTHDR(header, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    if (part->cmsg_type == kScmPidfd) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part), sizeof(fd));
      Descriptor(fd).Reset();
    }
    if (part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      take(fd);
    }
  }
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
  Outgoing message(bytes, descriptors, [](int fd) { return fd; });
  for (;;) {
    const int error = message.Send(socket);
    switch (error) {
      case 0:
        return absl::OkStatus();
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
        return ErrnoStatus(error, "sendmsg", "socket pair");
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
  ForEachDescriptor(&header,
                    [&](int fd) { message.descriptors.emplace_back(fd); });
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

std::vector<Descriptor> DescriptorBatch::Take() {
  std::vector<Descriptor> all;
  all.reserve(count_);
  for (size_t i = 0; i < count_; ++i) all.emplace_back(fds_[i]);
  count_ = 0;
  return all;
}

void DescriptorBatch::Clear() {
  while (count_ > 0) Descriptor(fds_[--count_]).Reset();
}

SendEnd TrySend(const Descriptor& socket, std::string_view bytes,
                absl::Span<const Descriptor> descriptors) {
  Outgoing message(bytes, descriptors,
                   [](const Descriptor& one) { return one.get(); });
  switch (message.Send(socket)) {
    case 0:
      return SendEnd::kDone;
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return SendEnd::kFull;
    case ETOOMANYREFS:
      return SendEnd::kManyInFlight;
    default:
      return SendEnd::kFailed;
  }
}

PeekEnd TryPeek(const Descriptor& socket, void* bytes, size_t room,
                size_t* size, DescriptorBatch* batch) {
  ControlBuffer control;
  iovec part = {bytes, room};
  msghdr header = {};
  for (;;) {
    header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (batch != nullptr) {
      header.msg_control = control.bytes.data();
      header.msg_controllen = control.bytes.size();
    }
    const ssize_t received =
        recvmsg(socket.get(), &header,
                MSG_PEEK | MSG_TRUNC | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (received >= 0) {
      *size = static_cast<size_t>(received);
      break;
    }
    if (errno == EINTR) continue;
    return errno == EAGAIN ? PeekEnd::kNone : PeekEnd::kFailed;
  }
  if (batch != nullptr) {
    ForEachDescriptor(&header, [&](int fd) { batch->Add(fd); });
    if ((header.msg_flags & MSG_CTRUNC) != 0) return PeekEnd::kNoNumbers;
  }
  return *size == 0 ? PeekEnd::kFailed : PeekEnd::kDone;
}

bool TryDrop(const Descriptor& socket) {
  for (;;) {
    char byte;
    const ssize_t received = recv(socket.get(), &byte, 1, MSG_DONTWAIT);
    if (received >= 0) return received > 0;
    if (errno != EINTR) return false;
  }
}

bool IsMessageSocket(const Descriptor& socket) {
  const auto option = [&](int name) {
    int value = -1;
    socklen_t size = sizeof(value);
    return getsockopt(socket.get(), SOL_SOCKET, name, &value, &size) == 0
               ? value
               : -1;
  };
  return option(SO_DOMAIN) == AF_UNIX && option(SO_TYPE) == SOCK_SEQPACKET;
}

}  // namespace cohort::os
