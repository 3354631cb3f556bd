// SPDX-License-Identifier: Apache-2.0
//
// Processes by descriptor. A pidfd names one process for ever, where a number
// may be another process's by the time a signal arrives; it becomes readable
// when all threads of the process have ended.
//
//   absl::StatusOr<os::Descriptor> child = os::OpenPidfd(pid);
//   absl::StatusOr<bool> ended = os::WaitPidfd(*child, Deadline::After(1s));
//   if (ended.ok() && *ended) std::optional<os::ExitFacts> how =
//       os::ReapPidfd(*child);

#ifndef COHORT_OS_PIDFD_H_
#define COHORT_OS_PIDFD_H_

#include <sys/types.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// How a process ended: by exit with `code`, or by `signal` where that is not 0.
struct ExitFacts {
  int code = 0;
  int signal = 0;
  bool core_dumped = false;
};

// NotFound: no such process. The number of a child that nobody has waited for
// cannot be another's.
absl::StatusOr<Descriptor> OpenPidfd(pid_t pid);

// Sends `signal`. OK where the process has ended already: nothing is left to
// signal, and it never reaches another.
absl::Status SignalPidfd(const Descriptor& process, int signal);

// Waits until the process has ended; false: not by `until`. Works for any
// process, not for children only.
absl::StatusOr<bool> WaitPidfd(const Descriptor& process, Deadline until);

// Collects the exit status of an ended child. FailedPrecondition: it still
// runs. NotFound: it is no child of the caller, or somebody else has collected
// it (a handler of SIGCHLD, an ignored SIGCHLD), so that its status is unknown.
absl::StatusOr<ExitFacts> ReapPidfd(const Descriptor& process);

}  // namespace cohort::os

#endif  // COHORT_OS_PIDFD_H_
