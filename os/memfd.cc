// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "cohort/os/file.h"
#include "cohort/os/status.h"

// Newer than Debian 12's <sys/mman.h>; the kernel refuses what it lacks.
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace cohort::os {
namespace {

constexpr size_t kLongestLabel = 200;
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace

absl::StatusOr<Descriptor> CreateMemfd(const std::string& label,
                                       bool huge_pages) {
  const std::string shown = label.substr(0, kLongestLabel);
  const unsigned flags =
      MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge_pages ? MFD_HUGETLB : 0);
  Descriptor memfd(memfd_create(shown.c_str(), flags | MFD_NOEXEC_SEAL));
  if (!memfd.valid() && errno == EINVAL) {  // Linux before 6.3
    memfd = Descriptor(memfd_create(shown.c_str(), flags));
  }
  if (!memfd.valid()) return ErrnoStatus(errno, "memfd_create", shown);
  if (fchmod(memfd.get(), S_IRUSR | S_IWUSR) != 0) {
    return ErrnoStatus(errno, "fchmod", shown);
  }
  return memfd;
}

absl::Status SealSize(const Descriptor& memfd) {
  if (fcntl(memfd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "fcntl(F_ADD_SEALS)", "memory file");
  }
  return absl::OkStatus();
}

absl::Status SealContent(const Descriptor& memfd) {
  if (fcntl(memfd.get(), F_ADD_SEALS,
            kSizeSeals | F_SEAL_WRITE | F_SEAL_SEAL) == 0) {
    return absl::OkStatus();
  }
  if (errno == EBUSY) {
    return absl::FailedPreconditionError(
        "memory file: it is still mapped writable somewhere, or the kernel is "
        "reading or writing its pages; end that before it is sealed");
  }
  return ErrnoStatus(errno, "fcntl(F_ADD_SEALS)", "memory file");
}

absl::StatusOr<Descriptor> CreateSealedMemfd(const std::string& label,
                                             size_t size) {
  if (size == 0 || size > size_t{INT64_MAX}) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory file ", label, ": a size of ", size,
                     " bytes; ask for 1 to 2^63-1"));
  }
  absl::StatusOr<Descriptor> memfd = CreateMemfd(label);
  if (!memfd.ok()) return memfd.status();
  if (absl::Status s = Resize(*memfd, size); !s.ok()) return s;
  if (absl::Status s = SealSize(*memfd); !s.ok()) return s;
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

absl::StatusOr<size_t> CheckSealedContent(const Descriptor& memfd) {
  absl::StatusOr<size_t> size = CheckSealedMemfd(memfd);
  if (!size.ok()) return size;
  if ((fcntl(memfd.get(), F_GET_SEALS) & F_SEAL_WRITE) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "descriptor ", memfd.get(),
        " is a memory file that others can still write; it is accepted only "
        "where its content is sealed"));
  }
  return size;
}

}  // namespace cohort::os
