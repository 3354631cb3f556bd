// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Region` is a piece of memory that several processes map, of fixed
// size, zero-filled: anonymous, or under a name by which programs that are not
// related find it.
//
//   absl::StatusOr<cohort::Region> region = cohort::Region::Create(1 << 20);
//   if (!region.ok()) return region.status();
//   auto* hits = new (region->bytes().data()) std::atomic<int>(0);
//   auto child = cohort::Process::Start(Count, *region);  // the same bytes
//
//   region = cohort::Region::OpenOrCreate("hits", {.size = 4096});
//
// Prefer the anonymous one. It has no name that could be guessed, squatted or
// left behind; the kernel frees it when the last handle in the last process is
// gone, however that process ended. A handle travels: as a start argument and
// through everything that carries descriptors.
//
// A name lives as long as an owner does: each process with a handle is one. The
// last one out takes it away; where that one was killed, the next who asks for
// the name, or calls Sweep(). It stands in /dev/shm as it is, so that Python's
// SharedMemory(name) finds the same bytes. Two things to know then: behind the
// user's bytes stands a trailer, so give numpy the shape and write nothing up to
// Python's `size`; and Python before 3.13 takes the name away when it exits
// (docs/design/python_interop.md), so that the next OpenOrCreate() makes another
// region.
//
// For one object take `cohort::Shared<T>` (shm/shared.h), which also checks its
// type; for a stream of values, a queue (ipc/queue.h).

#ifndef COHORT_SHM_REGION_H_
#define COHORT_SHM_REGION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/shm/internal/mapped_region.h"
#include "cohort/shm/read_only_region.h"

namespace cohort {

enum class HugePages {
  kNone,
  // Asks for them. The kernel gives none, some or all, and never fails.
  kAdvise,
  // Those that the administrator set aside (vm.nr_hugepages), all taken at
  // Create(). Anonymous regions only.
  kReserve,
};

struct RegionOptions {
  // Bytes for the user; at least 1.
  size_t size = 0;
  // What /proc/PID/maps and /proc/PID/fd show of an anonymous region. No other
  // purpose.
  std::string label = "region";
  // What lies in it: TypeTag<T>() of shm/type_tag.h, or 0 for mere bytes.
  uint64_t type_tag = 0;
  // Takes all pages at once, so that no first touch costs time or fails.
  bool prefault = false;
  HugePages huge_pages = HugePages::kNone;
};

// Region
//
// |        | Create, Open,  | copy          | last handle of | process dies   |
// |        | Attach         |               | the process    |                |
// |--------+----------------+---------------+----------------+----------------|
// | Empty  | Mapped         | Empty         | --             | --             |
// | Mapped | --             | both Mapped   | unmapped here; | unmapped here; |
// |        |                | (one mapping) | freed if no    | freed if no    |
// |        |                |               | process has it | process has it |
//
// A name
//
// |         | CreateNamed | Open      | Unlink     | last owner | last owner   |
// |         |             |           |            | leaves     | dies         |
// |---------+-------------+-----------+------------+------------+--------------|
// | Absent  | Owned       | NotFound  | NotFound   | --         | --           |
// | Owned   | Already-    | an owner  | Absent;    | Absent     | Dead         |
// |         | Exists      | more      | memory     |            |              |
// |         |             |           | stays      |            |              |
// | Dead    | Owned; the  | Absent,   | Absent     | --         | --           |
// |         | old is gone | NotFound  |            |            |              |
// | Foreign | Already-    | its plain | Absent;    | --         | --           |
// |         | Exists      | bytes     | memory     |            |              |
// |         |             |           | stays      |            |              |
//
// Sweep() makes all Dead ones Absent. Foreign is what another program made;
// nobody here owns it, and it stays when handles go.
//
// Contract
//   Placement:      private memory; what it refers to is shared. Its layout is
//                   in docs/formats/region_header.md.
//   Thread-safety:  as a std::shared_ptr: each handle for itself; bytes() may
//                   be used by all threads, under rules that their users agree.
//   Process-safety: likewise, among processes of one PID namespace; by name,
//                   among those of one user.
//   Fork-safety:    a handle works in the child; the bytes are the same ones,
//                   and the child is an owner until it drops them or ends.
//   Crash-safety:   a process that dies leaves neither memory nor a descriptor
//                   behind, and of a name only what the table says: a name is
//                   absent or means complete memory at every moment. What
//                   stands in the bytes is its users' affair: sync/mutex.h.
//   Signal-safety:  bytes() and size(); no other.
//   Errors:         InvalidArgument: size 0, an impossible name, reserved huge
//                   pages for a name. ResourceExhausted: no memory, addresses,
//                   descriptors, huge pages or space in /dev/shm left.
//                   Unavailable: a stopped process is just taking the name
//                   away, for more than a second. Attach() and Open() moreover:
//                   FailedPrecondition for what is no region, has another
//                   layout, stems from another PID namespace, may be read by
//                   other users or could, being anonymous, still change its
//                   size. No content makes it crash. No access to bytes()
//                   raises SIGBUS, whatever a peer does; except that the size
//                   of what has a name, and reserved huge pages, cannot be
//                   sealed: these need peers that do not take them away on
//                   purpose. What another program made may lack pages where
//                   /dev/shm is full.
//   Ordering:       what was written before a handle was sent, or by `fill`, is
//                   visible to whoever received or opened it.
//   Cost:           Create and Attach: some ten system calls and at most one
//                   page on top of the size. With a name, some twenty, and the
//                   pages are taken at once; else at first touch. Copies cost
//                   one atomic increment. From 1 MiB on, left out of core dumps.
//   Reference:      memfd_create(2), F_SEAL_SHRINK, O_TMPFILE, F_OFD_SETLK;
//                   docs/design/region.md.
class Region final {
 public:
  // What puts a region's first content there, before anybody else can see it.
  using Fill = absl::FunctionRef<void(std::span<std::byte>)>;

  // Refers to nothing, until assigned to.
  Region() = default;

  // A new anonymous region of `size` bytes, all zero.
  static absl::StatusOr<Region> Create(size_t size);
  static absl::StatusOr<Region> Create(const RegionOptions& options);

  // A new region that appears under `name`, complete, after `fill` has returned.
  // A name is 1 to 200 of A-Z a-z 0-9 . _ - and begins with no dot.
  // AlreadyExists: a living owner, or another program, has the name. The first
  // call in a process sweeps.
  static absl::StatusOr<Region> CreateNamed(std::string_view name,
                                            const RegionOptions& options,
                                            Fill fill = FillNothing);

  // The region with that name, of which the caller becomes an owner. NotFound:
  // there is none, or its owners have all died, and now there is none.
  static absl::StatusOr<Region> Open(std::string_view name);

  // Open(), or CreateNamed() where there is nothing to open. Of several callers
  // one creates it; `fill` may run in the others, too, for memory that is then
  // dropped. FailedPrecondition: it exists with another size or type.
  static absl::StatusOr<Region> OpenOrCreate(std::string_view name,
                                             const RegionOptions& options,
                                             Fill fill = FillNothing);

  // Takes the name away now. The memory stays with its owners. NotFound where
  // nothing has the name.
  static absl::Status Unlink(std::string_view name);

  // Takes the names of all regions away whose owners have all died, and returns
  // how many. Names of other users and other programs stay.
  static absl::StatusOr<int> Sweep();

  // The region behind a descriptor that came from elsewhere. Nothing in it is
  // believed unchecked.
  static absl::StatusOr<Region> Attach(os::Descriptor memory);

  // A handle of another type for those who shall only read.
  [[nodiscard]] absl::StatusOr<ReadOnlyRegion> ReadOnly() const;

  // The user's bytes, aligned to a page; none in an empty handle. Valid as long
  // as any handle of this process to this mapping lives.
  [[nodiscard]] std::span<std::byte> bytes() const {
    return mapped_ == nullptr ? std::span<std::byte>() : mapped_->bytes;
  }
  [[nodiscard]] size_t size() const { return bytes().size(); }
  [[nodiscard]] bool empty() const { return mapped_ == nullptr; }

  // As given to Create(); 0 for what another program made.
  [[nodiscard]] uint64_t type_tag() const {
    return mapped_ == nullptr ? 0 : mapped_->type_tag;
  }

  // As given to CreateNamed() or Open(); empty for an anonymous one. Unlink()
  // does not change it.
  [[nodiscard]] std::string_view name() const {
    return mapped_ == nullptr ? std::string_view() : mapped_->name;
  }

  // What Attach() takes; this handle keeps it. Invalid in an empty handle.
  [[nodiscard]] const os::Descriptor& descriptor() const;

  // For the codec (serialize/codec.h). What another program made goes as such.
  template <typename Archive>
  void save(Archive& archive) const {
    archive(descriptor(), mapped_ != nullptr && mapped_->foreign);
  }
  template <typename Archive>
  void load(Archive& archive) {
    os::Descriptor memory;
    bool foreign = false;
    archive(memory, foreign);
    *this = Region();
    if (!memory.valid()) return;
    absl::StatusOr<shm_internal::SharedRegion> attached =
        shm_internal::AttachRegion(std::move(memory),
                                   shm_internal::Access::kReadWrite, foreign);
    if (!attached.ok()) archive.Fail(attached.status());
    mapped_ = *std::move(attached);
  }

 private:
  static void FillNothing(std::span<std::byte>) {}

  explicit Region(shm_internal::SharedRegion mapped)
      : mapped_(std::move(mapped)) {}

  shm_internal::SharedRegion mapped_;
};

}  // namespace cohort

#endif  // COHORT_SHM_REGION_H_
