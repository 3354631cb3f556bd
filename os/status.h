// SPDX-License-Identifier: Apache-2.0
//
// Turns an `errno` value into an `absl::Status` that names the call that
// failed, the object it failed on and, where there is one, the mend.
//
//   int fd = memfd_create("queue", MFD_CLOEXEC);
//   if (fd < 0) return os::ErrnoStatus(errno, "memfd_create", "queue");
//   // RESOURCE_EXHAUSTED: memfd_create(queue): Too many open files; raise the
//   // limit with `ulimit -n`
//
// For a caller's mistake, which no status can mend, take os/check.h.

#ifndef COHORT_OS_STATUS_H_
#define COHORT_OS_STATUS_H_

#include <string_view>

#include "absl/status/status.h"

namespace cohort::os {

// Returns the status for `error`, a positive errno value. The code tells a
// program what to do: ResourceExhausted (descriptors, memory, disk, processes),
// PermissionDenied, NotFound, AlreadyExists, Unavailable (the peer is gone),
// DeadlineExceeded, Unimplemented (this kernel lacks the call),
// InvalidArgument; Internal for all others.
absl::Status ErrnoStatus(int error, std::string_view call,
                         std::string_view object);

}  // namespace cohort::os

#endif  // COHORT_OS_STATUS_H_
