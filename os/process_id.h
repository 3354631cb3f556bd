// SPDX-License-Identifier: Apache-2.0
//
// Facts about the calling process: which PID namespace it lives in, how many
// threads it runs, whether it is a forked copy.

#ifndef COHORT_OS_PROCESS_ID_H_
#define COHORT_OS_PROCESS_ID_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace cohort::os {

// The number of the caller's PID namespace. Two processes may share robust
// locks only where theirs are equal: the kernel compares thread numbers, and a
// number means another thread in another namespace. Costs a load, after the
// first call of a process.
absl::StatusOr<uint64_t> PidNamespace();

// How many threads this process has now; at least 1. A thread that pthread_join
// has just collected may still be counted for some microseconds.
int ThreadCount();

// True where the caller is the only thread. Grants threads that were joined a
// moment ago the time to vanish from the kernel's books.
bool IsSingleThreaded();

// The process that created an object: objects with effects outside of memory
// keep one and turn inert in a forked copy.
class Creator final {
 public:
  Creator();
  // True iff the caller is the very process that constructed this, and no copy
  // of it by fork(), _Fork() or clone(). Costs a load.
  [[nodiscard]] bool IsMe() const;

 private:
  uint64_t generation_;
};

}  // namespace cohort::os

#endif  // COHORT_OS_PROCESS_ID_H_
