// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/membarrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace cohort::os {

bool JoinBarriers() {
  const int saved_errno = errno;
  const bool joined =
      syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) ==
      0;
  errno = saved_errno;
  return joined;
}

void BarrierForAll() {
  const int saved_errno = errno;
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0) {
    timespec rest = {.tv_sec = 0, .tv_nsec = 1'000'000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
  }
  errno = saved_errno;
}

}  // namespace cohort::os
