// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Region` is a piece of memory that several processes map: anonymous,
// of fixed size, zero-filled. It has no name that could be guessed, squatted or
// left behind; the kernel frees it when the last handle in the last process is
// gone, however that process ended.
//
//   absl::StatusOr<cohort::Region> region = cohort::Region::Create(1 << 20);
//   if (!region.ok()) return region.status();
//   auto* hits = new (region->bytes().data()) std::atomic<int>(0);
//   Process::Start({}, Count, *region);       // the child sees the same bytes
//
// A handle travels: as a start argument and through everything that carries
// descriptors. For one object take `cohort::Shared<T>` (shm/shared.h), which
// also checks its type; for a stream of values, a queue (ipc/queue.h).

#ifndef COHORT_SHM_REGION_H_
#define COHORT_SHM_REGION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/mapping.h"

namespace cohort {

struct RegionOptions {
  // Bytes for the user; at least 1.
  size_t size = 0;
  // What /proc/PID/maps and /proc/PID/fd show. No other purpose.
  std::string label = "region";
  // What lies in it: TypeTag<T>() of shm/type_tag.h, or 0 for mere bytes.
  uint64_t type_tag = 0;
};

// Region
//
// |        | Create, Attach | copy          | last handle of | process dies   |
// |        |                |               | the process    |                |
// |--------+----------------+---------------+----------------+----------------|
// | Empty  | Mapped         | Empty         | --             | --             |
// | Mapped | --             | both Mapped   | unmapped here; | unmapped here; |
// |        |                | (one mapping) | freed if no    | freed if no    |
// |        |                |               | process has it | process has it |
//
// Contract
//   Placement:      private memory; what it refers to is shared. Its layout is
//                   in docs/formats/region_header.md.
//   Thread-safety:  as a std::shared_ptr: each handle for itself; bytes() may
//                   be used by all threads, under rules that their users agree.
//   Process-safety: likewise, among processes of one PID namespace.
//   Fork-safety:    a handle works in the child; the bytes are the same ones.
//   Crash-safety:   a process that dies leaves neither memory nor a descriptor
//                   behind. What stands in the bytes is its users' affair:
//                   sync/mutex.h.
//   Signal-safety:  bytes() and size(); no other.
//   Errors:         InvalidArgument: size 0. ResourceExhausted: no memory,
//                   addresses or descriptors left. Attach() moreover:
//                   FailedPrecondition for what is no region, has another
//                   layout, stems from another PID namespace or could still
//                   change its size. No content makes it crash, and no access
//                   to bytes() raises SIGBUS, whatever a peer does.
//   Ordering:       what was written before a handle was sent is visible to
//                   whoever received it.
//   Cost:           Create and Attach: some ten system calls and one page on
//                   top of the size. Pages take memory at first touch. Copies
//                   cost one atomic increment. Left out of core dumps.
//   Reference:      memfd_create(2), F_SEAL_SHRINK; docs/design/region.md.
class Region final {
 public:
  // Refers to nothing, until assigned to.
  Region() = default;

  // A new region of `size` bytes, all zero.
  static absl::StatusOr<Region> Create(size_t size);
  static absl::StatusOr<Region> Create(const RegionOptions& options);

  // The region behind a descriptor that came from elsewhere. Nothing in it is
  // believed unchecked.
  static absl::StatusOr<Region> Attach(os::Descriptor memory);

  // The user's bytes, aligned to a page; none in an empty handle. Valid as long
  // as any handle of this process to this mapping lives.
  [[nodiscard]] std::span<std::byte> bytes() const {
    return mapped_ == nullptr ? std::span<std::byte>() : mapped_->bytes;
  }
  [[nodiscard]] size_t size() const { return bytes().size(); }
  [[nodiscard]] bool empty() const { return mapped_ == nullptr; }

  // As given to Create().
  [[nodiscard]] uint64_t type_tag() const {
    return mapped_ == nullptr ? 0 : mapped_->type_tag;
  }

  // What Attach() takes; this handle keeps it. Invalid in an empty handle.
  [[nodiscard]] const os::Descriptor& descriptor() const;

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(descriptor());
  }
  template <typename Archive>
  void load(Archive& archive) {
    os::Descriptor memory;
    archive(memory);
    *this = Region();
    if (!memory.valid()) return;
    absl::StatusOr<Region> attached = Attach(std::move(memory));
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  struct Mapped {
    os::Descriptor memory;
    os::Mapping mapping;  // The header page, then the user's.
    std::span<std::byte> bytes;
    uint64_t type_tag = 0;
  };

  explicit Region(Mapped mapped)
      : mapped_(std::make_shared<const Mapped>(std::move(mapped))) {}

  std::shared_ptr<const Mapped> mapped_;
};

}  // namespace cohort

#endif  // COHORT_SHM_REGION_H_
