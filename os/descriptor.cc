// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cohort/os/status.h"

namespace cohort::os {

void Descriptor::Reset() {
  if (fd_ < 0) return;
  const int saved = errno;
  // Linux frees the number even where close() reports EINTR or EIO: a second
  // call could close somebody else's descriptor.
  close(std::exchange(fd_, -1));
  errno = saved;
}

absl::StatusOr<Descriptor> Descriptor::Duplicate() const {
  const int twin = fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (twin < 0) {
    return ErrnoStatus(errno, "fcntl(F_DUPFD_CLOEXEC)", std::to_string(fd_));
  }
  return Descriptor(twin);
}

}  // namespace cohort::os
