// SPDX-License-Identifier: Apache-2.0
//
// Memory that a copy of the process finds empty, whichever way the copy was
// made: fork(), _Fork() or a raw clone(). One load from it tells a process from
// its copy.
//
//   static auto* const page = os::MapWipedOnFork(sizeof(std::atomic<int>));
//   static auto* const bound = new (page) std::atomic<int>(1);   // 0: a copy

#ifndef COHORT_OS_WIPED_ON_FORK_H_
#define COHORT_OS_WIPED_ON_FORK_H_

#include <cstddef>

namespace cohort::os {

// Zeroed pages of this process alone, which the kernel zeroes in every copy of
// it; munmap() ends them. Fatal where there is no memory, and on a kernel that
// cannot do it (before Linux 4.14). Keeps `errno`.
void* MapWipedOnFork(size_t size);

}  // namespace cohort::os

#endif  // COHORT_OS_WIPED_ON_FORK_H_
