// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/bounded_semaphore.h"

#include "absl/strings/str_cat.h"
#include "cohort/os/check.h"

namespace cohort {

void BoundedSemaphore::BadPermits() {
  os::Fatal("BoundedSemaphore: permits not between 0 and max()");
}

absl::Status BoundedSemaphore::Refuse(ptrdiff_t n, ptrdiff_t held) {
  if (n < 0) os::Fatal("BoundedSemaphore: less than 0 permits released");
  return absl::FailedPreconditionError(
      absl::StrCat("BoundedSemaphore: this process holds ", held,
                   " permits and releases ", n));
}

}  // namespace cohort
