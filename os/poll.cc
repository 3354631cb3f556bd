// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/poll.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <string>

#include "absl/container/inlined_vector.h"
#include "cohort/os/check.h"
#include "cohort/os/status.h"

namespace cohort::os {
namespace {

constexpr uint64_t kKickTag = ~uint64_t{0};

// What is left until `until`, in whole milliseconds rounded up, so that a wait
// never ends early; -1 is for ever.
int MillisecondsUntil(Deadline until) {
  if (until.infinite()) return -1;
  const int64_t left = until.nanoseconds() - NowNanoseconds();
  if (left <= 0) return 0;
  constexpr int64_t kMillisecond = 1'000'000;
  return static_cast<int>(
      std::min<int64_t>((left - 1) / kMillisecond + 1, INT_MAX));
}

absl::StatusOr<bool> PollOne(const Descriptor& descriptor, int16_t events,
                             Deadline until) {
  for (;;) {
    pollfd entry = {descriptor.get(), events, 0};
    const int count = poll(&entry, 1, MillisecondsUntil(until));
    if (count > 0) {
      if ((entry.revents & POLLNVAL) != 0) {
        return ErrnoStatus(EBADF, "poll", std::to_string(descriptor.get()));
      }
      return true;
    }
    if (count < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "poll", std::to_string(descriptor.get()));
    }
    if (until.Passed()) return false;
  }
}

}  // namespace

absl::StatusOr<bool> PollReadable(const Descriptor& descriptor,
                                  Deadline until) {
  return PollOne(descriptor, POLLIN, until);
}

absl::StatusOr<bool> PollWritable(const Descriptor& descriptor,
                                  Deadline until) {
  return PollOne(descriptor, POLLOUT, until);
}

absl::StatusOr<std::optional<size_t>> PollAnyReadable(
    absl::Span<const int> descriptors, Deadline until) {
  absl::InlinedVector<pollfd, 4> entries;
  for (int descriptor : descriptors) entries.push_back({descriptor, POLLIN, 0});
  for (;;) {
    const int count =
        poll(entries.data(), entries.size(), MillisecondsUntil(until));
    if (count < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "poll", "several descriptors");
    }
    for (size_t i = 0; count > 0 && i < entries.size(); ++i) {
      if ((entries[i].revents & POLLNVAL) != 0) {
        return ErrnoStatus(EBADF, "poll", std::to_string(entries[i].fd));
      }
      if (entries[i].revents != 0) return i;
    }
    if (until.Passed()) return std::nullopt;
  }
}

absl::StatusOr<Poller> Poller::Create() {
  Poller poller;
  poller.epoll_ = Descriptor(epoll_create1(EPOLL_CLOEXEC));
  if (!poller.epoll_.valid()) {
    return ErrnoStatus(errno, "epoll_create1", "poller");
  }
  poller.kick_ = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!poller.kick_.valid()) return ErrnoStatus(errno, "eventfd", "poller");
  if (absl::Status added = poller.Add(poller.kick_, kKickTag); !added.ok()) {
    return added;
  }
  return poller;
}

absl::Status Poller::Add(const Descriptor& descriptor, uint64_t tag) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor.get(), &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl(ADD)",
                       std::to_string(descriptor.get()));
  }
  return absl::OkStatus();
}

void Poller::Remove(const Descriptor& descriptor) {
  // Fails only where it is not watched, which is what the caller wants.
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor.get(), nullptr);
}

std::vector<uint64_t> Poller::Wait(Deadline until) {
  std::array<epoll_event, 64> events;
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(),
                                 MillisecondsUntil(until));
    if (count < 0) {
      Check(errno == EINTR,
            "epoll_wait failed: a descriptor of the poller "
            "was closed by somebody else");
      if (until.Passed()) return {};
      continue;
    }
    std::vector<uint64_t> ready;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 != kKickTag) {
        ready.push_back(events[i].data.u64);
        continue;
      }
      uint64_t kicks;
      (void)!read(kick_.get(), &kicks, sizeof(kicks));  // back to zero
    }
    return ready;
  }
}

void Poller::Kick() const {
  const int saved = errno;
  const uint64_t one = 1;
  (void)!write(kick_.get(), &one, sizeof(one));  // fails only when already full
  errno = saved;
}

}  // namespace cohort::os
