// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "cohort/os/status.h"

// Newer than Debian 12's <sys/mman.h>; the kernel refuses what it lacks.
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace cohort::os {
namespace {

constexpr size_t kLongestName = 200;
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

// ftruncate() beyond RLIMIT_FSIZE raises SIGXFSZ, which would end the process.
// Blocking the signal for this thread turns it into EFBIG alone.
class WithoutFileSizeSignal {
 public:
  WithoutFileSizeSignal() {
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &block, &before_);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
  }
  ~WithoutFileSizeSignal() {
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
  sigset_t before_;
  bool was_pending_ = false;
};

}  // namespace

absl::StatusOr<Descriptor> CreateSealedMemfd(const std::string& name,
                                             size_t size) {
  if (size == 0 || size > size_t{INT64_MAX}) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory file ", name, ": a size of ", size,
                     " bytes; ask for 1 to 2^63-1"));
  }
  const std::string shown = name.substr(0, kLongestName);
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  Descriptor memfd(memfd_create(shown.c_str(), kFlags | MFD_NOEXEC_SEAL));
  if (!memfd.valid() && errno == EINVAL) {  // Linux before 6.3
    memfd = Descriptor(memfd_create(shown.c_str(), kFlags));
  }
  if (!memfd.valid()) return ErrnoStatus(errno, "memfd_create", shown);
  {
    WithoutFileSizeSignal guard;
    if (ftruncate(memfd.get(), static_cast<off_t>(size)) != 0) {
      return ErrnoStatus(errno, "ftruncate",
                         absl::StrCat(shown, ", ", size, " bytes"));
    }
  }
  if (fchmod(memfd.get(), S_IRUSR | S_IWUSR) != 0) {
    return ErrnoStatus(errno, "fchmod", shown);
  }
  if (fcntl(memfd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "fcntl(F_ADD_SEALS)", shown);
  }
  return memfd;
}

absl::StatusOr<size_t> CheckSealedMemfd(const Descriptor& memfd) {
  const int seals = fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals) {
    return absl::FailedPreconditionError(absl::StrCat(
        "descriptor ", memfd.get(),
        " is no memory file of fixed size; shared memory is accepted only "
        "where its size is sealed"));
  }
  struct stat facts;
  if (fstat(memfd.get(), &facts) != 0) {
    return ErrnoStatus(errno, "fstat", "memory file");
  }
  return static_cast<size_t>(facts.st_size);
}

}  // namespace cohort::os
