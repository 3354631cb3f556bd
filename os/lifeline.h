// SPDX-License-Identifier: Apache-2.0
//
// A lifeline ties a process to another one: when the holder of the write end is
// gone, the kernel kills whoever armed the read end. No thread waits for that,
// and it holds whichever *thread* of the parent started the child, which the
// parent-death signal of prctl(2) does not.
//
//   absl::StatusOr<os::Lifeline> line = os::CreateLifeline();   // parent
//   absl::Status armed = os::ArmLifeline(line->read_end);       // child
//
// Forked copies of the holder must close their copy of the write end, or the
// line holds until they are gone too.

#ifndef COHORT_OS_LIFELINE_H_
#define COHORT_OS_LIFELINE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

struct Lifeline {
  Descriptor read_end;   // For the process that shall die.
  Descriptor write_end;  // For the process whose death it shall follow.
};

absl::StatusOr<Lifeline> CreateLifeline();

// From here on the calling process is killed (SIGKILL) once no write end is
// open anywhere; at once where that is so already. One process for each line.
absl::Status ArmLifeline(const Descriptor& read_end);

}  // namespace cohort::os

#endif  // COHORT_OS_LIFELINE_H_
