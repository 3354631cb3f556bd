// SPDX-License-Identifier: Apache-2.0
//
// What memory files need of a file: a size, pages, bytes at a place, a second
// descriptor that cannot write.
//
//   if (absl::Status s = os::Allocate(file, 1 << 20); !s.ok()) return s;
//   if (absl::Status s = os::WriteAt(file, 0, bytes); !s.ok()) return s;
//   absl::StatusOr<os::Descriptor> reader = os::ReopenForReading(file);
//
// A limit on file sizes (`ulimit -f`) is ResourceExhausted here; no SIGXFSZ
// ends the process.

#ifndef COHORT_OS_FILE_H_
#define COHORT_OS_FILE_H_

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// Makes `file` `size` bytes long. Pages are taken when they are touched.
absl::Status Resize(const Descriptor& file, size_t size);

// Likewise, at least so long, with all pages taken now: no access to them can
// fail later for want of space. ResourceExhausted where there are too few.
absl::Status Allocate(const Descriptor& file, size_t size);

// Writes all of `bytes` at `offset`, beyond the end too.
absl::Status WriteAt(const Descriptor& file, size_t offset,
                     std::span<const std::byte> bytes);

// Fills `bytes` from `offset` on. OutOfRange where the file ends before.
absl::Status ReadAt(const Descriptor& file, size_t offset,
                    std::span<std::byte> bytes);

// A descriptor of the same file through which the kernel neither writes nor
// maps it writable. Not the same open file: locks of `file` are not its own.
// FailedPrecondition for what is no regular file: to open a device may do
// something, as a terminal becomes the caller's.
absl::StatusOr<Descriptor> ReopenForReading(const Descriptor& file);

// Whether `file` was opened for writing.
bool IsWritable(const Descriptor& file);

// The page size of what `file` lies in: larger for reserved huge pages.
absl::StatusOr<size_t> PageSizeOf(const Descriptor& file);

}  // namespace cohort::os

#endif  // COHORT_OS_FILE_H_
