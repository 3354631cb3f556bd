// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/cpu.h"

#include <sched.h>

#include <cerrno>

namespace cohort::os {

int UsableCpus() {
  const int saved_errno = errno;
  cpu_set_t set;
  int count = CPU_SETSIZE;  // More processors than a cpu_set_t has bits.
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
  errno = saved_errno;
  return count < 1 ? 1 : count;
}

namespace {

// Taken before main() can have bound anything; children of fork() inherit it.
const bool began_with_several = UsableCpus() > 1;

}  // namespace

bool RivalsCanRun() { return began_with_several || UsableCpus() > 1; }

}  // namespace cohort::os
