// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "cohort/os/status.h"

namespace cohort::os {

absl::StatusOr<Mapping> Mapping::Map(const Descriptor& file, size_t size,
                                     bool writable) {
  void* const address =
      mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
           MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) {
    return ErrnoStatus(errno, "mmap", absl::StrCat(size, " bytes"));
  }
  // Advice only: a kernel that refuses it still gives right results.
  (void)madvise(address, size, MADV_DONTDUMP);
  Mapping mapping;
  mapping.data_ = static_cast<std::byte*>(address);
  mapping.size_ = size;
  return mapping;
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
