// SPDX-License-Identifier: Apache-2.0
//
// Two ways to make a process. `Spawn` runs a program afresh with exactly the
// descriptors that are listed; `Fork` copies the calling one.
//
//   os::SpawnRequest request{.arguments = {"worker", "--verbose"}};
//   request.descriptors = {log.get()};            // becomes descriptor 3
//   absl::StatusOr<os::Child> child = os::Spawn(request);
//
// Programs start processes with process/process.h.

#ifndef COHORT_OS_SPAWN_H_
#define COHORT_OS_SPAWN_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// The number that the first listed descriptor has in a spawned process.
inline constexpr int kFirstListedDescriptor = 3;

struct SpawnRequest {
  // The program; by default the very image that the caller runs, also where
  // its file has been replaced or removed since.
  std::string program = "/proc/self/exe";
  // All of argv, the program's own name included.
  std::vector<std::string> arguments;
  // The i-th appears in the child as kFirstListedDescriptor + i. All others but
  // 0, 1 and 2 are closed there.
  std::vector<int> descriptors;
};

struct Child {
  pid_t pid = 0;
  Descriptor pidfd;
};

// Starts `request.program` with the caller's environment, no blocked signals,
// and the listed descriptors. Returns once the program is loaded: one that
// cannot be run is an error here. May be called with other threads running.
absl::StatusOr<Child> Spawn(const SpawnRequest& request);

// In a spawned process: takes over the listed descriptor of this index, which
// is close-on-exec from here on. NotFound: none was listed.
absl::StatusOr<Descriptor> AdoptListed(int index);

// Copies the calling process; `pid` is 0 in the copy, which has no blocked
// signals, whatever its creator blocks to keep them off a helper thread. Only
// the calling thread lives on there: with other threads, the copy must call
// nothing that takes a lock. What stdio has buffered is written out first, or
// both would write it.
absl::StatusOr<Child> Fork();

}  // namespace cohort::os

#endif  // COHORT_OS_SPAWN_H_
