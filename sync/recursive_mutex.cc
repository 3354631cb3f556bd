// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/recursive_mutex.h"

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "cohort/os/check.h"
#include "cohort/os/deadline.h"

namespace cohort {

bool RecursiveMutex::try_lock_until(Deadline deadline)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (held()) {
    Deepen();
    return true;
  }
  if (!mu_.try_lock_until(deadline)) return false;
  depth_ = 1;
  return true;
}

uint32_t RecursiveMutex::unlock_all() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (!held()) NotTheHolder();
  const uint32_t depth = depth_;
  mu_.unlock();
  return depth;
}

void RecursiveMutex::lock_all(uint32_t depth) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (depth == 0) os::Fatal("RecursiveMutex: lock_all() of depth 0");
  if (held()) os::Fatal("RecursiveMutex: lock_all() by its holder");
  mu_.lock();
  depth_ = depth;
}

void RecursiveMutex::TooDeep() {
  os::Fatal("RecursiveMutex: locked more than 4294967295 times");
}

void RecursiveMutex::NotTheHolder() {
  os::Fatal("RecursiveMutex: unlocked by another than its holder");
}

}  // namespace cohort
