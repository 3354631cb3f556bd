// SPDX-License-Identifier: Apache-2.0
//
// The region of a SharedArray: where its elements and its lock are.
//
//   elements, from the region's first byte on, as a user of bytes expects them;
//   zeros up to a multiple of 64;
//   ArrayControl, to the region's last byte.
//
// docs/formats/shared_value.md draws it.

#ifndef COHORT_IPC_INTERNAL_ARRAY_MEMORY_H_
#define COHORT_IPC_INTERNAL_ARRAY_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/shm/region.h"
#include "cohort/sync/mutex.h"

namespace cohort::ipc_internal {

// On a cache line of its own: who waits for the lock does not disturb those who
// use elements by atomics.
struct alignas(64) ArrayControl {
  Mutex mu;
  uint64_t size = 0;                            // Elements; written once.
  [[maybe_unused]] uint64_t reserved_[2] = {};  // Zero.
};
static_assert(sizeof(ArrayControl) == 64, "shared layout");

// Of an attached array; the last two are void in one that is not.
struct ArrayMemory {
  Region region;
  ArrayControl* control = nullptr;
  size_t size = 0;  // As checked; what the memory says now is not believed.
};

// Puts the first values at the first element.
using FillArray = absl::FunctionRef<void(void*)>;

// A region for `size` elements: with that name, old or new, or a new one
// without. InvalidArgument where their bytes cannot be counted.
absl::StatusOr<Region> MakeArray(std::optional<std::string_view> name,
                                 size_t size, size_t element_size,
                                 uint64_t type_tag, FillArray fill);

// FailedPrecondition where the region is of another type, or not of the size
// that its own count of elements asks for.
absl::StatusOr<ArrayMemory> AttachArray(Region region, size_t element_size,
                                        uint64_t type_tag);

absl::Status OtherSize(size_t found, size_t wanted);

}  // namespace cohort::ipc_internal

#endif  // COHORT_IPC_INTERNAL_ARRAY_MEMORY_H_
