// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/mapping.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "cohort/os/status.h"

// Newer than some <sys/mman.h>; an old kernel refuses it.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace cohort::os {
namespace {

// What is smaller delays no dump, is of use in one, and is mapped often.
constexpr size_t kLeftOutOfDumps = size_t{1} << 20;

// While it is locked, no thread of this process gets beyond the start of fork().
std::mutex no_fork;

std::mutex& NoFork() {
  static std::atomic<bool> registered = false;
  if (!registered.exchange(true)) {
    pthread_atfork([] { no_fork.lock(); }, [] { no_fork.unlock(); },
                   [] { no_fork.unlock(); });
  }
  return no_fork;
}

}  // namespace

absl::StatusOr<Mapping> Mapping::Map(const Descriptor& file, size_t size,
                                     bool writable) {
  void* const address =
      mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
           MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) {
    return ErrnoStatus(errno, "mmap", absl::StrCat(size, " bytes"));
  }
  // Advice only: a kernel that refuses it still gives right results.
  if (size >= kLeftOutOfDumps) (void)madvise(address, size, MADV_DONTDUMP);
  Mapping mapping;
  mapping.data_ = static_cast<std::byte*>(address);
  mapping.size_ = size;
  return mapping;
}

absl::Status Mapping::Populate() const {
  while (madvise(data_, size_, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    // A kernel before 5.14: the pages are mapped at first touch.
    if (errno == EINVAL || errno == ENOSYS) break;
    return ErrnoStatus(errno, "madvise(MADV_POPULATE_WRITE)",
                       absl::StrCat(size_, " bytes"));
  }
  return absl::OkStatus();
}

void Mapping::AdviseHugePages() const {
  (void)madvise(data_, size_, MADV_HUGEPAGE);
}

absl::StatusOr<Mapping> Mapping::MapForThisProcess(const Descriptor& file,
                                                   size_t size) {
  const std::lock_guard lock(NoFork());
  absl::StatusOr<Mapping> mapping = Map(file, size);
  if (!mapping.ok()) return mapping;
  if (absl::Status s = mapping->HideFromChildren(); !s.ok()) return s;
  return mapping;
}

absl::Status Mapping::ReplaceForThisProcess(const Descriptor& file) {
  const std::lock_guard lock(NoFork());
  if (absl::Status s = ReplaceBy(file, /*writable=*/true); !s.ok()) return s;
  return HideFromChildren();
}

absl::Status Mapping::ReplaceBy(const Descriptor& file, bool writable) {
  if (mmap(data_, size_, writable ? PROT_READ | PROT_WRITE : PROT_READ,
           MAP_SHARED | MAP_FIXED, file.get(), 0) == MAP_FAILED) {
    return ErrnoStatus(errno, "mmap", absl::StrCat(size_, " bytes, again"));
  }
  if (size_ >= kLeftOutOfDumps) (void)madvise(data_, size_, MADV_DONTDUMP);
  return absl::OkStatus();
}

absl::Status Mapping::HideFromChildren() const {
  if (madvise(data_, size_, MADV_DONTFORK) != 0) {
    return ErrnoStatus(errno, "madvise(MADV_DONTFORK)",
                       absl::StrCat(size_, " bytes"));
  }
  return absl::OkStatus();
}

void Mapping::Reset() {
  if (data_ == nullptr) return;
  munmap(std::exchange(data_, nullptr), std::exchange(size_, 0));
}

size_t PageSize() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace cohort::os
