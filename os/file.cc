// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "cohort/os/mapping.h"
#include "cohort/os/status.h"

namespace cohort::os {
namespace {

// A file that grows beyond RLIMIT_FSIZE raises SIGXFSZ, which would end the
// process. Blocking the signal for this thread turns it into EFBIG alone.
class WithoutFileSizeSignal {
 public:
  // Costs four system calls, so it is left out for a `size` that is allowed.
  explicit WithoutFileSizeSignal(size_t size) {
    rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && size <= limit.rlim_cur) return;
    active_ = true;
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &block, &before_);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
  }
  ~WithoutFileSizeSignal() {
    if (!active_) return;
    if (!was_pending_) {
      sigset_t mine;
      sigemptyset(&mine);
      sigaddset(&mine, SIGXFSZ);
      const timespec at_once = {};
      while (sigtimedwait(&mine, nullptr, &at_once) < 0 && errno == EINTR) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutFileSizeSignal(const WithoutFileSizeSignal&) = delete;
  WithoutFileSizeSignal& operator=(const WithoutFileSizeSignal&) = delete;

 private:
  bool active_ = false;
  sigset_t before_;
  bool was_pending_ = false;
};

// The number that `call` left in errno, or 0.
template <typename Call>
int ErrorOf(size_t size, Call call) {
  WithoutFileSizeSignal guard(size);
  while (call() < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

absl::Status CheckSize(size_t size) {
  if (size <= size_t{INT64_MAX}) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a file of ", size, " bytes; the limit is 2^63-1"));
}

}  // namespace

absl::Status Resize(const Descriptor& file, size_t size) {
  if (absl::Status s = CheckSize(size); !s.ok()) return s;
  const int error = ErrorOf(
      size, [&] { return ftruncate(file.get(), static_cast<off_t>(size)); });
  if (error == 0) return absl::OkStatus();
  return ErrnoStatus(error, "ftruncate", absl::StrCat(size, " bytes"));
}

// Before Linux 6.12, tmpfs gives up at any signal, and gives back what it took in
// that call: a timer would keep a long one from ever ending. So the next try
// after a signal is half as long.
absl::Status Allocate(const Descriptor& file, size_t size) {
  if (absl::Status s = CheckSize(size); !s.ok()) return s;
  const WithoutFileSizeSignal guard(size);
  size_t piece = size_t{64} << 20;
  size_t done = 0;
  do {
    const size_t length = std::min(piece, size - done);
    if (fallocate(file.get(), 0, static_cast<off_t>(done),
                  static_cast<off_t>(length)) == 0) {
      done += length;
    } else if (errno == EINTR) {
      piece = std::max(piece / 2, PageSize());
    } else {
      return ErrnoStatus(errno, "fallocate", absl::StrCat(size, " bytes"));
    }
  } while (done < size);
  return absl::OkStatus();
}

absl::Status WriteAt(const Descriptor& file, size_t offset,
                     std::span<const std::byte> bytes) {
  if (absl::Status s = CheckSize(offset + bytes.size()); !s.ok()) return s;
  while (!bytes.empty()) {
    ssize_t written = 0;
    const int error = ErrorOf(offset + bytes.size(), [&] {
      written = pwrite(file.get(), bytes.data(), bytes.size(),
                       static_cast<off_t>(offset));
      return written;
    });
    if (error != 0) {
      return ErrnoStatus(
          error, "pwrite",
          absl::StrCat(bytes.size(), " bytes at offset ", offset));
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status ReadAt(const Descriptor& file, size_t offset,
                    std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = pread(file.get(), bytes.data(), bytes.size(),
                              static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return ErrnoStatus(
          errno, "pread",
          absl::StrCat(bytes.size(), " bytes at offset ", offset));
    }
    if (got == 0) {
      return absl::OutOfRangeError(
          absl::StrCat("the file ends at offset ", offset));
    }
    bytes = bytes.subspan(static_cast<size_t>(got));
    offset += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::StatusOr<Descriptor> ReopenForReading(const Descriptor& file) {
  const std::string path = absl::StrCat("/proc/self/fd/", file.get());
  struct stat facts;
  if (fstat(file.get(), &facts) != 0) return ErrnoStatus(errno, "fstat", path);
  if (!S_ISREG(facts.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("descriptor ", file.get(),
                     " is no regular file; shared memory is expected here"));
  }
  Descriptor reader(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!reader.valid()) return ErrnoStatus(errno, "open", path);
  return reader;
}

bool IsWritable(const Descriptor& file) {
  const int flags = fcntl(file.get(), F_GETFL);
  return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

absl::StatusOr<size_t> PageSizeOf(const Descriptor& file) {
  struct statfs facts;
  if (fstatfs(file.get(), &facts) != 0) {
    return ErrnoStatus(errno, "fstatfs", "memory file");
  }
  if (facts.f_type != HUGETLBFS_MAGIC) return PageSize();
  return static_cast<size_t>(facts.f_bsize);
}

}  // namespace cohort::os
