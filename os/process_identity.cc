// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/process_identity.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <new>

#include "cohort/os/wiped_on_fork.h"

namespace cohort::os {
namespace {

// What stands before the start time takes 450 bytes at most: a name of up to 64
// characters and 20 numbers.
constexpr size_t kStatSize = 1024;

// Nothing where /proc is not mounted, hides the process, or has no descriptor
// left for us.
std::optional<uint64_t> ReadStartTicks(const char* path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  char text[kStatSize];
  size_t size = 0;
  while (size < sizeof text) {
    const ssize_t got = read(file, text + size, sizeof text - size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    size += static_cast<size_t>(got);
  }
  close(file);
  return ParseStartTicks(std::string_view(text, size));
}

// All threads of the process behind it have ended.
bool PidfdIsReadable(int pidfd) {
  pollfd ended = {.fd = pidfd, .events = POLLIN, .revents = 0};
  int ready;
  do {
    ready = poll(&ended, 1, 0);
  } while (ready < 0 && errno == EINTR);
  return ready > 0 && (ended.revents & POLLIN) != 0;
}

// Whether the numbers in /proc are those of the caller's PID namespace. Without
// a mount of its own a namespace sees those of an outer one.
bool ProcIsOurs() {
  char number[16];
  const ssize_t size = readlink("/proc/self", number, sizeof number);
  if (size <= 0) return false;
  pid_t pid = 0;
  std::from_chars(number, number + size, pid);
  return pid == getpid();
}

class SavedErrno final {
 public:
  SavedErrno() : saved_(errno) {}
  ~SavedErrno() { errno = saved_; }

 private:
  int saved_;
};

std::atomic<uint64_t> nobody_asked = 0;

}  // namespace

constinit std::atomic<std::atomic<uint64_t>*> ProcessIdentity::cache_ =
    &nobody_asked;

std::optional<uint64_t> ParseStartTicks(std::string_view stat) {
  // "1234 (any) name) S 1 ...": only numbers come after the last bracket.
  const void* const bracket = memrchr(stat.data(), ')', stat.size());
  if (bracket == nullptr) return std::nullopt;
  const char* const end = stat.data() + stat.size();
  const char* at = static_cast<const char*>(bracket);
  for (int field = 3; field <= 22; ++field) {
    do {
      if (++at == end) return std::nullopt;
    } while (*at != ' ');
  }
  uint64_t ticks = 0;
  const auto [stop, error] = std::from_chars(at + 1, end, ticks);
  // Without the space behind it, the number may have been cut.
  if (error != std::errc() || stop == end || *stop != ' ') return std::nullopt;
  return ticks;
}

ProcessIdentity ProcessIdentity::Bind() {
  const SavedErrno saved;
  std::atomic<uint64_t>* cache = cache_.load(std::memory_order_acquire);
  if (cache == &nobody_asked) {
    void* const page = MapWipedOnFork(sizeof(std::atomic<uint64_t>));
    auto* const made = new (page) std::atomic<uint64_t>(0);
    // Another thread may have been first; its page holds.
    if (cache_.compare_exchange_strong(cache, made)) {
      cache = made;
    } else {
      munmap(page, sizeof(std::atomic<uint64_t>));
    }
  }
  const uint64_t ticks = ReadStartTicks("/proc/self/stat").value_or(0);
  const ProcessIdentity self(ticks << kPidBits |
                             (static_cast<uint64_t>(getpid()) & kPidMask));
  cache->store(self.bits(), std::memory_order_relaxed);
  return self;
}

Liveness ProcessIdentity::CheckLiveness() const {
  if (pid() == 0) return Liveness::kUnknown;
  const SavedErrno saved;
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid(), 0));
  if (pidfd >= 0) {
    const bool ended = PidfdIsReadable(pidfd);
    close(pidfd);
    // If the id has passed on to another process that has ended too, the one
    // that we ask about ended before.
    if (ended) return Liveness::kDead;
  } else if (errno == ESRCH || (kill(pid(), 0) != 0 && errno == ESRCH)) {
    // The second question is for a sandbox that refuses the first.
    return Liveness::kDead;
  }
  // Somebody has this id: the same process, unless it started at another time.
  if (start_ticks() == 0) return Liveness::kUnknown;
  char path[32] = "/proc/";
  char* const number = path + std::strlen(path);
  std::strcpy(std::to_chars(number, number + 8, pid()).ptr, "/stat");
  const std::optional<uint64_t> ticks = ReadStartTicks(path);
  if (!ticks) return Liveness::kUnknown;
  if (*ticks == start_ticks()) return Liveness::kAlive;
  return ProcIsOurs() ? Liveness::kDead : Liveness::kUnknown;
}

}  // namespace cohort::os
