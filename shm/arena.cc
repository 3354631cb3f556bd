// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/arena.h"

#include <chrono>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/check.h"
#include "cohort/sync/mutex.h"

namespace cohort {

using shm_internal::BlockState;
using shm_internal::HeapEnd;
using shm_internal::ObjectState;

namespace {

constexpr uint64_t kTag = TypeTag<shm_internal::ArenaHeap>("arena");

RegionOptions RegionOf(const ArenaOptions& options) {
  return {.size = options.size, .label = options.label, .type_tag = kTag};
}

absl::Status CheckOptions(const ArenaOptions& options) {
  using shm_internal::ArenaHeap;
  if (ArenaHeap::PagesIn(options.size, options.objects) != 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("arena ", options.label, ": ", options.size, " bytes for ",
                   options.objects, " named objects; ask for at most ",
                   ArenaHeap::kMaxObjects, " of these, and for ",
                   3 * ArenaHeap::kPageSize, " bytes and 128 for each"));
}

absl::Status NoSuchObject(std::string_view name) {
  return absl::NotFoundError(
      absl::StrCat("arena: no object is called ", std::string(name)));
}

}  // namespace

absl::StatusOr<Arena> Arena::Create(const ArenaOptions& options) {
  if (absl::Status fit = CheckOptions(options); !fit.ok()) return fit;
  absl::StatusOr<Region> region = Region::Create(RegionOf(options));
  if (!region.ok()) return region.status();
  ArenaHeap::Format(region->bytes(), options.objects);
  return Attach(*std::move(region));
}

absl::StatusOr<Arena> Arena::OpenOrCreate(std::string_view name,
                                          const ArenaOptions& options) {
  if (absl::Status fit = CheckOptions(options); !fit.ok()) return fit;
  absl::StatusOr<Region> region = Region::OpenOrCreate(
      name, RegionOf(options), [&](std::span<std::byte> bytes) {
        ArenaHeap::Format(bytes, options.objects);
      });
  if (!region.ok()) return region.status();
  return Attach(*std::move(region));
}

absl::StatusOr<Arena> Arena::Open(std::string_view name) {
  absl::StatusOr<Region> region = Region::Open(name);
  if (!region.ok()) return region.status();
  return Attach(*std::move(region));
}

absl::Status Arena::Unlink(std::string_view name) {
  return Region::Unlink(name);
}

absl::StatusOr<Arena> Arena::Attach(Region region) {
  Arena arena;
  arena.region_ = std::move(region);
  if (arena.region_.type_tag() == kTag) {
    arena.heap_ = ArenaHeap::Attach(arena.region_.bytes());
  }
  if (!arena.heap_.has_value()) {
    return absl::FailedPreconditionError(
        "arena: the region received holds no arena of this layout; build both "
        "programs from the same release");
  }
  arena.heap_->Reap();
  return arena;
}

absl::Status Arena::Refusal(HeapEnd end, size_t size) const {
  switch (end) {
    case HeapEnd::kDone:
      return absl::OkStatus();
    case HeapEnd::kFull:
      return absl::ResourceExhaustedError(
          absl::StrCat("arena: no room for ", size, " bytes among ",
                       region_.size(), "; free some, or create it larger"));
    case HeapEnd::kCrowded:
      return absl::ResourceExhaustedError(
          absl::StrCat("arena: ", ArenaHeap::kProcesses,
                       " living processes have owned blocks, which is all "
                       "that it can tell apart"));
    case HeapEnd::kStale:
      return absl::FailedPreconditionError(
          "arena: the block is no more: somebody freed it, or its owner died");
    case HeapEnd::kForeign:
      return absl::FailedPreconditionError(
          "arena: the block belongs to a named object, and goes with it");
    case HeapEnd::kDamaged:
      break;
  }
  return absl::DataLossError(
      "arena: its memory holds what no arena wrote; create a new one");
}

absl::StatusOr<Block> Arena::Allocate(size_t size, size_t alignment) const {
  if (empty()) return Refusal(HeapEnd::kStale);
  if (size == 0 || alignment == 0 || (alignment & (alignment - 1)) != 0 ||
      alignment > ArenaHeap::kMaxAlignment) {
    return absl::InvalidArgumentError(absl::StrCat(
        "arena: a block of ", size, " bytes, aligned to ", alignment,
        "; ask for at least 1, and a power of two up to 4096"));
  }
  const ArenaHeap::Taken taken =
      heap_->Take(size, alignment, BlockState::kProcess);
  if (taken.end != HeapEnd::kDone) return Refusal(taken.end, size);
  return Block{taken.ref, {taken.bytes, taken.size}};
}

absl::Status Arena::Free(BlockRef ref) const {
  return Refusal(empty() ? HeapEnd::kStale : heap_->Free(ref));
}

absl::Status Arena::Keep(BlockRef ref) const {
  return Refusal(empty() ? HeapEnd::kStale : heap_->Keep(ref));
}

absl::Status Arena::Adopt(BlockRef ref) const {
  return Refusal(empty() ? HeapEnd::kStale : heap_->Adopt(ref));
}

absl::StatusOr<std::span<std::byte>> Arena::Resolve(BlockRef ref) const {
  if (empty()) return Refusal(HeapEnd::kStale);
  const ArenaHeap::Taken taken = heap_->Look(ref);
  if (taken.end != HeapEnd::kDone) return Refusal(taken.end);
  return std::span<std::byte>(taken.bytes, taken.size);
}

int64_t Arena::Reap() const {
  return empty() ? 0 : static_cast<int64_t>(heap_->Reap());
}

ArenaCount Arena::Count() const {
  return empty() ? ArenaCount() : heap_->Count();
}

// Named objects.

absl::Status Arena::WrongType() {
  return absl::FailedPreconditionError(
      "arena: there is an object of another type; ask for the type that it was "
      "made with");
}

absl::Status Arena::CheckName(std::string_view name) const {
  if (name.empty() || name.size() > ArenaHeap::kMaxName) {
    return absl::InvalidArgumentError(
        absl::StrCat("arena: an object's name has 1 to ", ArenaHeap::kMaxName,
                     " bytes, not ", name.size()));
  }
  if (empty()) {
    return absl::FailedPreconditionError("arena: the handle is empty");
  }
  if (heap_->damaged()) return Refusal(HeapEnd::kDamaged);
  return absl::OkStatus();
}

absl::StatusOr<void*> Arena::Check(const ArenaHeap::Object& object,
                                   uint64_t tag, size_t size,
                                   size_t alignment) const {
  if (object.tag != tag || object.size != size) return WrongType();
  std::byte* const bytes = heap_->BytesOf(object, alignment);
  if (bytes == nullptr) return Refusal(HeapEnd::kDamaged);
  return static_cast<void*>(bytes);
}

absl::StatusOr<void*> Arena::FindMade(std::string_view name, uint64_t tag,
                                      size_t size, size_t alignment) const {
  if (absl::Status usable = CheckName(name); !usable.ok()) return usable;
  const std::optional<ArenaHeap::Object> found = heap_->FindObject(name);
  if (!found.has_value() || found->state != ObjectState::kLive) {
    return NoSuchObject(name);
  }
  return Check(*found, tag, size, alignment);
}

absl::StatusOr<void*> Arena::FindOrMake(std::string_view name, uint64_t tag,
                                        size_t size, size_t alignment,
                                        Maker make) const {
  for (bool reaped = false;;) {
    if (absl::Status usable = CheckName(name); !usable.ok()) return usable;
    const std::optional<ArenaHeap::Object> found = heap_->FindObject(name);
    if (!found.has_value()) {
      if (reaped) {
        return absl::ResourceExhaustedError(
            "arena: no entry is left for another named object; create it with "
            "more `objects`");
      }
      reaped = true;
      heap_->Reap();
      continue;
    }
    if (found->state == ObjectState::kLive) {
      return Check(*found, tag, size, alignment);
    }
    Mutex& making = heap_->making(found->slot);
    os::Check(!making.held(),
              "arena: FindOrConstruct() from within the constructor of the "
              "object that it asks for");
    if (found->state != ObjectState::kVacant) {
      MutexLock lock(making);
      // Whoever was at it has finished, or is dead.
      heap_->EndObject(*found);
      continue;
    }
    // Whoever holds this is about to begin an object of another name, and its
    // constructor may wait for ours: there is another entry for that.
    const std::unique_lock<Mutex> lock(making, std::chrono::milliseconds(1));
    if (!lock.owns_lock()) continue;
    const std::optional<ArenaHeap::Object> begun =
        heap_->BeginObject(*found, name, tag, size);
    if (begun.has_value()) return Make(*begun, alignment, make);
    // Another was faster.
  }
}

// Under the object's lock; either it is live then, or there is nothing left.
absl::StatusOr<void*> Arena::Make(const ArenaHeap::Object& object,
                                  size_t alignment, Maker make) const {
  const ArenaHeap::Taken taken =
      heap_->Take(object.size, alignment, BlockState::kObject, object.id());
  if (taken.end != HeapEnd::kDone) {
    heap_->EndObject(object);
    return Refusal(taken.end, object.size);
  }
  try {
    make(taken.bytes, ArenaAllocator<void>(heap_->base(), object.id()));
  } catch (const std::bad_alloc&) {
    heap_->EndObject(object);
    return Refusal(HeapEnd::kFull, object.size);
  } catch (...) {
    heap_->EndObject(object);
    throw;
  }
  heap_->PublishObject(object, taken.ref.position);
  return static_cast<void*>(taken.bytes);
}

absl::Status Arena::Destroy(std::string_view name) const {
  for (;;) {
    if (absl::Status usable = CheckName(name); !usable.ok()) return usable;
    const std::optional<ArenaHeap::Object> found = heap_->FindObject(name);
    if (!found.has_value() || found->state == ObjectState::kVacant) {
      return NoSuchObject(name);
    }
    Mutex& making = heap_->making(found->slot);
    os::Check(!making.held(),
              "arena: Destroy() from within the constructor of the object");
    MutexLock lock(making);
    // Where a dead process was making or ending it, there was no object.
    const std::optional<ArenaHeap::Object> now = heap_->FindObject(name);
    if (!now.has_value() || now->word != found->word) continue;
    heap_->EndObject(*found);
    if (found->state == ObjectState::kLive) return absl::OkStatus();
  }
}

absl::StatusOr<ArenaAllocator<void>> Arena::Clear(std::string_view name) const {
  if (absl::Status usable = CheckName(name); !usable.ok()) return usable;
  const std::optional<ArenaHeap::Object> found = heap_->FindObject(name);
  if (!found.has_value() || found->state != ObjectState::kLive) {
    return NoSuchObject(name);
  }
  heap_->ClearObject(*found);
  return ArenaAllocator<void>(heap_->base(), found->id());
}

}  // namespace cohort
