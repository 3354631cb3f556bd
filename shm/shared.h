// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Shared<T>` is a handle to one T in shared memory of its own. Handles
// are copied and sent to other processes; the object stays where it is.
//
//   struct Board {
//     cohort::Mutex mu;
//     int64_t score ABSL_GUARDED_BY(mu) = 0;
//   };
//   absl::StatusOr<cohort::Shared<Board>> board =
//       cohort::Shared<Board>::Create();
//   if (!board.ok()) return board.status();
//   // void Play(cohort::Shared<Board> board);
//   auto child = cohort::Process::Start(Play, *board);
//   if (!child.ok()) return child.status();
//   cohort::MutexLock lock((*board)->mu);
//   (*board)->score += 1;
//
// Programs that are not related meet by a name. Whoever comes first constructs
// the object; the name goes with the last of them, however that one ends:
//
//   board = cohort::Shared<Board>::OpenOrCreate("board");
//
// T lies at another address in each process: no pointers, references, strings
// or containers in it, no virtual functions (shm/sharable.h). The object is
// never destroyed; its memory goes when the last handle of the last process has
// gone.
//
// For many small objects put them into one struct; for raw bytes or a size that
// is known at run time only, take a Region (shm/region.h).

#ifndef COHORT_SHM_SHARED_H_
#define COHORT_SHM_SHARED_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/check.h"
#include "cohort/os/descriptor.h"
#include "cohort/shm/region.h"
#include "cohort/shm/sharable.h"
#include "cohort/shm/type_tag.h"

namespace cohort {

// Shared<T>
//
// |       | Create, Open,  | *, ->  | copy             | process dies      |
// |       | Attach         |        |                  |                   |
// |-------+----------------+--------+------------------+-------------------|
// | Empty | Full           | fatal  | Empty            | --                |
// | Full  | --             | the T  | both Full: one T | T stays as it was |
//
// Contract
//   Placement:      private memory. The T begins at a page, in a region that
//                   bears TypeTag<T>().
//   Thread-safety:  each handle for itself, as a std::shared_ptr; the T as it
//                   says of itself.
//   Process-safety: as the T says of itself, in one PID namespace.
//   Fork-safety:    a handle works in the child and means the same T.
//   Crash-safety:   the T stays as the dead process left it, possibly in the
//                   middle of a change: guard it with a Mutex and repair.
//                   Death in OpenOrCreate() leaves no T or a complete one.
//   Signal-safety:  *, -> and get().
//   Errors:         as Region's; FailedPrecondition also for a region that
//                   holds something else than a T. Use of an empty handle is
//                   fatal.
//   Ordering:       a T is seen fully constructed by whoever got a handle.
//   Cost:           as Region's: at least two pages. Use: one load.
//   Reference:      docs/design/shared.md.
template <typename T>
class Shared final {
 public:
  // Refers to nothing, until assigned to.
  Shared() = default;

  // A new T, made of `args` by its constructor or, if it is an aggregate, in
  // braces; without any, every member has its initial value.
  template <typename... Args>
  static absl::StatusOr<Shared> Create(Args&&... args) {
    CheckSharable<T>();
    absl::StatusOr<Region> region = Region::Create(Options());
    if (!region.ok()) return region.status();
    Construct(region->bytes(), std::forward<Args>(args)...);
    return Shared(*std::move(region));
  }

  // The T with that name, of which this process becomes an owner; if there is
  // none, a new one, which appears under the name when it is complete. Of
  // several who come at once one makes it for all; the others may construct
  // one, too, that nobody ever sees. For names see Region.
  template <typename... Args>
  static absl::StatusOr<Shared> OpenOrCreate(std::string_view name,
                                             const Args&... args) {
    CheckSharable<T>();
    return AttachIfOk(Region::OpenOrCreate(
        name, Options(),
        [&](std::span<std::byte> bytes) { Construct(bytes, args...); }));
  }

  // Likewise; NotFound if there is none, or if all its owners have died.
  static absl::StatusOr<Shared> Open(std::string_view name) {
    CheckSharable<T>();
    return AttachIfOk(Region::Open(name));
  }

  // Takes the name away now; its owners keep the T, and others can have a new
  // one of that name. Otherwise the name goes with the last owner.
  static absl::Status Unlink(std::string_view name) {
    return Region::Unlink(name);
  }

  // The T in a region that another process made by one of the above.
  static absl::StatusOr<Shared> Attach(Region region) {
    CheckSharable<T>();
    if (region.type_tag() != kTag || region.size() != sizeof(T)) {
      return absl::FailedPreconditionError(
          "shared: an object of another type lies there; take a Shared<T> with "
          "the T that it was created with");
    }
    return Shared(std::move(region));
  }
  static absl::StatusOr<Shared> Attach(os::Descriptor memory) {
    return AttachIfOk(Region::Attach(std::move(memory)));
  }

  [[nodiscard]] bool empty() const { return object_ == nullptr; }

  // The object; null in an empty handle. A const handle points to a mutable T,
  // as a pointer does.
  [[nodiscard]] T* get() const { return object_; }

  // Likewise; fatal in an empty handle.
  T* operator->() const { return std::addressof(**this); }
  T& operator*() const {
    os::Check(object_ != nullptr, "an empty Shared<T> was used");
    return *object_;
  }

  // The memory that it lies in.
  [[nodiscard]] const Region& region() const { return region_; }

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(region_);
  }
  template <typename Archive>
  void load(Archive& archive) {
    Region region;
    archive(region);
    *this = Shared();
    if (region.empty()) return;
    absl::StatusOr<Shared> attached = Attach(std::move(region));
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  static constexpr uint64_t kTag = TypeTag<T>("shared");

  static RegionOptions Options() {
    return {.size = sizeof(T), .label = "shared", .type_tag = kTag};
  }

  template <typename... Args>
  static void Construct(std::span<std::byte> bytes, Args&&... args) {
    void* const place = bytes.data();
    if constexpr (std::is_aggregate_v<T>) {
      ::new (place) T{std::forward<Args>(args)...};
    } else {
      ::new (place) T(std::forward<Args>(args)...);
    }
  }

  static absl::StatusOr<Shared> AttachIfOk(absl::StatusOr<Region> region) {
    if (!region.ok()) return region.status();
    return Attach(*std::move(region));
  }

  explicit Shared(Region region)
      : region_(std::move(region)),
        object_(std::launder(reinterpret_cast<T*>(region_.bytes().data()))) {}

  Region region_;
  T* object_ = nullptr;
};

}  // namespace cohort

#endif  // COHORT_SHM_SHARED_H_
