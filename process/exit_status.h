// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ExitStatus` says how a process ended: what the kernel knows of it
// (exit code or signal) and what its function said, which the kernel does not
// (an `absl::Status`, the text of an exception).
//
//   absl::StatusOr<cohort::ExitStatus> end = child.Join();
//   if (!end.ok()) return end.status();          // runs still, or unknown
//   if (end->signal == SIGSEGV) std::cerr << *end;
//   return end->ToStatus();  // ABORTED: process ingest (pid 7) was killed by
//                            // signal 11 (SIGSEGV), core dumped
//
// Contract
//   Placement:      anywhere but shared memory; a plain value.
//   Thread-safety:  as a std::string.
//   Process-safety: none.
//   Fork-safety:    copied with the process.
//   Crash-safety:   describes crashes; has no state that one could tear.
//   Signal-safety:  none.
//   Errors:         none.
//   Ordering:       none.
//   Cost:           a string and a status; no system call.
//   Reference:      waitid(2); docs/design/process_start.md.

#ifndef COHORT_PROCESS_EXIT_STATUS_H_
#define COHORT_PROCESS_EXIT_STATUS_H_

#include <ostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace cohort {

// The payload that ToStatus() attaches to a failure, for programs that want to
// read it: "name=ingest pid=7 code=0 signal=11".
inline constexpr std::string_view kExitStatusPayload = "cohort/exit_status";

struct ExitStatus {
  // What was passed to exit(), 0 to 255; 0 where a signal ended the process.
  int code = 0;
  // The signal that ended the process, or 0.
  int signal = 0;
  // Whether the kernel has written a core file.
  bool core_dumped = false;
  // What the function returned, where it returns a status; Unknown with the
  // text of the exception that left it. OK where it said nothing, which a
  // killed process cannot.
  absl::Status status = {};
  // Which process this is about. `pid` may be another's by now.
  std::string name = {};
  int pid = 0;

  // True iff it exited with code 0 and its function did not fail.
  [[nodiscard]] bool ok() const {
    return code == 0 && signal == 0 && status.ok();
  }

  // OK iff ok(). Otherwise names the process, its pid and what ended it: with
  // the code and payloads of `status` where that failed, Aborted for a signal
  // and for an exit code that came without a status.
  [[nodiscard]] absl::Status ToStatus() const;

  // "process ingest (pid 7) exited with code 3".
  [[nodiscard]] std::string ToString() const;
};

std::ostream& operator<<(std::ostream& out, const ExitStatus& end);

}  // namespace cohort

#endif  // COHORT_PROCESS_EXIT_STATUS_H_
