// SPDX-License-Identifier: Apache-2.0
//
// Waiting until descriptors are ready. `PollReadable` waits for one; `Poller`
// waits for many, remembers them between waits, and can be kicked awake by any
// thread of the process.
//
//   absl::StatusOr<os::Poller> poller = os::Poller::Create();
//   poller->Add(socket, /*tag=*/7);
//   std::vector<uint64_t> ready = poller->Wait(Deadline::Infinite());

#ifndef COHORT_OS_POLL_H_
#define COHORT_OS_POLL_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// Waits until `descriptor` is readable or hung up; false: not by `until`.
absl::StatusOr<bool> PollReadable(const Descriptor& descriptor, Deadline until);

// Waits until `descriptor` can be written to or is broken; false: not by
// `until`.
absl::StatusOr<bool> PollWritable(const Descriptor& descriptor, Deadline until);

// Waits until one of `descriptors` is readable or hung up and returns the index
// of the first that is; nothing: none by `until`.
absl::StatusOr<std::optional<size_t>> PollAnyReadable(
    absl::Span<const int> descriptors, Deadline until);

// Add, Remove and Kick may be called while another thread waits.
class Poller final {
 public:
  static absl::StatusOr<Poller> Create();

  // Watches `descriptor`; Wait() reports `tag` while it is readable or hung up.
  // ~0 is not a tag. The descriptor stays the caller's: Remove() it before it
  // is closed.
  absl::Status Add(const Descriptor& descriptor, uint64_t tag);
  void Remove(const Descriptor& descriptor);

  // Blocks until something is ready, Kick() was called or `until` is over.
  // Returns the tags of what is ready; may be empty.
  std::vector<uint64_t> Wait(Deadline until);

  // Ends a Wait() that runs, or else the next one. Async-signal-safe.
  void Kick() const;

 private:
  Poller() = default;
  Descriptor epoll_;
  Descriptor kick_;
};

}  // namespace cohort::os

#endif  // COHORT_OS_POLL_H_
