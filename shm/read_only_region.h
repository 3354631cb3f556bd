// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ReadOnlyRegion` is a handle to a region for processes that shall only
// read it. Its descriptor was opened for reading, so the kernel refuses to map
// the memory writable through it, or to make the mapping writable later.
//
//   absl::StatusOr<cohort::ReadOnlyRegion> reader = region->ReadOnly();
//   if (!reader.ok()) return reader.status();
//   Process::Start({}, Read, *reader);   // void Read(cohort::ReadOnlyRegion);
//
// It guards against mistakes, such as a write through a stray pointer, and
// against a reader that is confined (no /proc, or another user). It is no wall
// to a process of the same user, which can open /proc/self/fd/N anew for
// writing. For content that nobody may change any more, its maker included, take
// a Buffer (shm/buffer.h), which is sealed.

#ifndef COHORT_SHM_READ_ONLY_REGION_H_
#define COHORT_SHM_READ_ONLY_REGION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/shm/internal/mapped_region.h"

namespace cohort {

// ReadOnlyRegion
//
// |        | ReadOnly, Attach | copy        | last handle of | process dies  |
// |        |                  |             | the process    |               |
// |--------+------------------+-------------+----------------+---------------|
// | Empty  | Mapped           | Empty       | --             | --            |
// | Mapped | --               | both Mapped | as a Region's  | as a Region's |
//
// Contract
//   Placement:      private memory; what it refers to is shared.
//   Thread-safety:  each handle for itself, as a std::shared_ptr; bytes() may be
//                   read by all threads. They change under the reader if a
//                   writer of the region changes them.
//   Process-safety: likewise, among processes of one PID namespace.
//   Fork-safety:    a handle works in the child.
//   Crash-safety:   as Region's. Of a region with a name, a reader is an owner.
//   Signal-safety:  bytes() and size(); no other.
//   Errors:         Region::ReadOnly(): ResourceExhausted; NotFound where /proc
//                   is missing. Attach(): as Region's.
//   Ordering:       as Region's.
//   Cost:           as an attached Region.
//   Reference:      mmap(2), EACCES; docs/design/region.md says why there is no
//                   F_SEAL_FUTURE_WRITE.
class ReadOnlyRegion final {
 public:
  // Refers to nothing, until assigned to.
  ReadOnlyRegion() = default;

  // The region behind a descriptor that came from elsewhere. One that can write
  // is exchanged for one that cannot.
  static absl::StatusOr<ReadOnlyRegion> Attach(os::Descriptor memory);

  // The user's bytes, aligned to a page; none in an empty handle. Valid as long
  // as any handle of this process to this mapping lives.
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return mapped_ == nullptr ? std::span<std::byte>() : mapped_->bytes;
  }
  [[nodiscard]] size_t size() const { return bytes().size(); }
  [[nodiscard]] bool empty() const { return mapped_ == nullptr; }
  [[nodiscard]] uint64_t type_tag() const {
    return mapped_ == nullptr ? 0 : mapped_->type_tag;
  }
  [[nodiscard]] std::string_view name() const {
    return mapped_ == nullptr ? std::string_view() : mapped_->name;
  }

  // What Attach() takes; this handle keeps it. Invalid in an empty handle.
  [[nodiscard]] const os::Descriptor& descriptor() const;

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(descriptor(), mapped_ != nullptr && mapped_->foreign);
  }
  template <typename Archive>
  void load(Archive& archive) {
    os::Descriptor memory;
    bool foreign = false;
    archive(memory, foreign);
    *this = ReadOnlyRegion();
    if (!memory.valid()) return;
    absl::StatusOr<ReadOnlyRegion> attached =
        Attach(std::move(memory), foreign);
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  friend class Region;

  static absl::StatusOr<ReadOnlyRegion> Attach(os::Descriptor memory,
                                               bool foreign);

  explicit ReadOnlyRegion(shm_internal::SharedRegion mapped)
      : mapped_(std::move(mapped)) {}

  shm_internal::SharedRegion mapped_;
};

}  // namespace cohort

#endif  // COHORT_SHM_READ_ONLY_REGION_H_
