// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/lifeline.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "cohort/os/status.h"

namespace cohort::os {

absl::StatusOr<Lifeline> CreateLifeline() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "pipe2", "lifeline");
  }
  Lifeline line;
  line.read_end = Descriptor(ends[0]);
  line.write_end = Descriptor(ends[1]);
  return line;
}

absl::Status ArmLifeline(const Descriptor& read_end) {
  const int fd = read_end.get();
  if (fcntl(fd, F_SETOWN, getpid()) != 0) {
    return ErrnoStatus(errno, "fcntl(F_SETOWN)", "lifeline");
  }
  if (fcntl(fd, F_SETSIG, SIGKILL) != 0) {
    return ErrnoStatus(errno, "fcntl(F_SETSIG)", "lifeline");
  }
  if (fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "fcntl(O_ASYNC)", "lifeline");
  }
  // The end may have come before the arming, and raises no signal again.
  char byte;
  if (read(fd, &byte, 1) == 0) (void)raise(SIGKILL);
  return absl::OkStatus();
}

}  // namespace cohort::os
