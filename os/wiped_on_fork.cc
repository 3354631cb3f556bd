// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/wiped_on_fork.h"

#include <sys/mman.h>

#include <cerrno>

#include "cohort/os/check.h"

namespace cohort::os {

void* MapWipedOnFork(size_t size) {
  const int saved_errno = errno;
  void* const pages = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Check(pages != MAP_FAILED && madvise(pages, size, MADV_WIPEONFORK) == 0,
        "no page that a fork clears: Linux 4.14 and memory for a page are "
        "needed");
  errno = saved_errno;
  return pages;
}

}  // namespace cohort::os
