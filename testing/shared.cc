// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/shared.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

namespace cohort_testing::testing_internal {

SharedPages::SharedPages(std::size_t size) : size_(size) {
  data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) {
    std::perror("cohort_testing::Shared: mmap");
    std::abort();
  }
}

SharedPages::~SharedPages() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace cohort_testing::testing_internal
