// SPDX-License-Identifier: Apache-2.0
//
// Anonymous memory behind a descriptor: what processes share, and what the
// kernel frees when the last descriptor and the last mapping are gone, however
// their owners ended.
//
//   absl::StatusOr<os::Descriptor> fd = os::CreateSealedMemfd("queue", 65536);
//   absl::StatusOr<size_t> size = os::CheckSealedMemfd(*fd);  // the far end
//
// The size is fixed for good: a peer can neither shrink the file under a reader
// (who would die of SIGBUS) nor grow it.

#ifndef COHORT_OS_MEMFD_H_
#define COHORT_OS_MEMFD_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// Returns an empty memory file, mode 0600, not executable where the kernel can
// forbid it, close-on-exec, not sealed yet. `label` is what /proc shows, at most
// 200 bytes of it. With `huge_pages` it lies in those that the administrator
// has reserved (vm.nr_hugepages), its size is a multiple of PageSizeOf() it
// (os/file.h), and it is written through mappings only.
absl::StatusOr<Descriptor> CreateMemfd(const std::string& label,
                                       bool huge_pages = false);

// Fixes the size of `memfd` for good, and its seals with it.
absl::Status SealSize(const Descriptor& memfd);

// Likewise, and its content too: nobody can write it any more, or map it
// writable. FailedPrecondition while somebody still has it mapped writable, or
// the kernel is at work on its pages; nothing is sealed then.
absl::Status SealContent(const Descriptor& memfd);

// Returns such a file of `size` bytes, zero-filled and sealed. The pages are
// taken at first touch; where memory runs out then, the kernel's out-of-memory
// killer decides.
// InvalidArgument: size 0. ResourceExhausted: no descriptors or memory left, or
// `size` is beyond what a file may have (`ulimit -f`).
absl::StatusOr<Descriptor> CreateSealedMemfd(const std::string& label,
                                             size_t size);

// Returns the size of `memfd` after a check that nobody can change it any more;
// FailedPrecondition where it is no memory file or its size is not sealed.
absl::StatusOr<size_t> CheckSealedMemfd(const Descriptor& memfd);

// Likewise, after a check that its content, too, is sealed.
absl::StatusOr<size_t> CheckSealedContent(const Descriptor& memfd);

}  // namespace cohort::os

#endif  // COHORT_OS_MEMFD_H_
