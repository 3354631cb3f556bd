// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/limits/raw_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace cohort_benchmarks {
namespace {

constexpr size_t kSize = 4096;

absl::Status Failed(const char* call) {
  return absl::UnavailableError(absl::StrCat(call, ": ", strerror(errno)));
}

// Sizes, maps, touches, unmaps and closes it.
absl::Status Use(int fd) {
  absl::Status status;
  void* page = MAP_FAILED;
  if (ftruncate(fd, kSize) == 0) {
    page = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (page == MAP_FAILED) {
    status = Failed("ftruncate or mmap");
  } else {
    *static_cast<volatile char*>(page) = 1;
    munmap(page, kSize);
  }
  close(fd);
  return status;
}

}  // namespace

absl::Status MakeAndDropMemfd() {
  const int fd = memfd_create("raw_memory", MFD_CLOEXEC);
  return fd < 0 ? Failed("memfd_create") : Use(fd);
}

absl::Status MakeAndUnlinkShm() {
  static const std::string name =
      absl::StrCat("/cohort-benchmark-raw-", getpid());
  const int fd = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return Failed("shm_open");
  absl::Status status = Use(fd);
  shm_unlink(name.c_str());
  return status;
}

}  // namespace cohort_benchmarks
