// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/semaphore.h"

#include "cohort/os/check.h"

namespace cohort::sync_internal {

void BadPermits() { os::Fatal("Semaphore: permits not between 0 and max()"); }

void BadRelease(ptrdiff_t n) {
  os::Fatal(n < 0 ? "Semaphore: less than 0 permits released"
                  : "Semaphore: released more permits than this process holds; "
                    "to signal between processes take CountingSemaphore");
}

}  // namespace cohort::sync_internal
