// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/deadline.h"

#include <ctime>

namespace cohort {
namespace os {

int64_t NowNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace os

Deadline Deadline::AfterNanoseconds(int64_t wait) {
  const int64_t now = os::NowNanoseconds();
  if (wait > std::numeric_limits<int64_t>::max() - now) return Infinite();
  return Deadline(now + wait);
}

}  // namespace cohort
