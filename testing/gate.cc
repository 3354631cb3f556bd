// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/gate.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace cohort_testing {

void Gate::Pass(cohort::Deadline until) {
  const timespec at = {.tv_sec = until.nanoseconds() / 1'000'000'000,
                       .tv_nsec = until.nanoseconds() % 1'000'000'000};
  while (open_ == 0 && !until.Passed()) {
    syscall(SYS_futex, &open_, FUTEX_WAIT_BITSET, 0,
            until.infinite() ? nullptr : &at, nullptr, FUTEX_BITSET_MATCH_ANY);
  }
}

void Gate::Open() {
  open_ = 1;
  syscall(SYS_futex, &open_, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace cohort_testing
