// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/pidfd.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cohort/os/poll.h"
#include "cohort/os/status.h"

namespace cohort::os {

absl::StatusOr<Descriptor> OpenPidfd(pid_t pid) {
  Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid()) {
    return ErrnoStatus(errno, "pidfd_open", std::to_string(pid));
  }
  return process;
}

absl::Status SignalPidfd(const Descriptor& process, int signal) {
  if (syscall(SYS_pidfd_send_signal, process.get(), signal, nullptr, 0) == 0 ||
      errno == ESRCH) {
    return absl::OkStatus();
  }
  return ErrnoStatus(errno, "pidfd_send_signal", std::to_string(signal));
}

absl::StatusOr<bool> WaitPidfd(const Descriptor& process, Deadline until) {
  return PollReadable(process, until);
}

absl::StatusOr<ExitFacts> ReapPidfd(const Descriptor& process) {
  siginfo_t info = {};
  int result;
  do {
    result = waitid(P_PIDFD, static_cast<id_t>(process.get()), &info,
                    WEXITED | WNOHANG);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    if (errno == ECHILD) {
      return absl::NotFoundError(
          "exit status unknown: the process is no child of this one, or its "
          "status was collected elsewhere (is SIGCHLD ignored or handled by "
          "waiting for any child?)");
    }
    return ErrnoStatus(errno, "waitid", "pidfd");
  }
  if (info.si_pid == 0) {
    return absl::FailedPreconditionError("the process still runs");
  }
  ExitFacts facts;
  if (info.si_code == CLD_EXITED) {
    facts.code = info.si_status;
  } else {
    facts.signal = info.si_status;
    facts.core_dumped = info.si_code == CLD_DUMPED;
  }
  return facts;
}

}  // namespace cohort::os
