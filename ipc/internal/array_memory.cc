// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/internal/array_memory.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/shm/region.h"

namespace cohort::ipc_internal {
namespace {

constexpr size_t kLine = sizeof(ArrayControl);

// Where the control stands behind so many elements; nothing if nowhere.
std::optional<size_t> ControlOffset(uint64_t size, size_t element_size) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max() - 2 * kLine;
  if (size > kMost / element_size) return std::nullopt;
  return (size * element_size + kLine - 1) / kLine * kLine;
}

ArrayControl* ControlOf(std::span<std::byte> bytes) {
  return std::launder(
      reinterpret_cast<ArrayControl*>(&bytes[bytes.size() - kLine]));
}

}  // namespace

absl::StatusOr<Region> MakeArray(std::optional<std::string_view> name,
                                 size_t size, size_t element_size,
                                 uint64_t type_tag, FillArray fill) {
  const std::optional<size_t> offset = ControlOffset(size, element_size);
  if (!offset.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("shared array: ", size, " elements of ", element_size,
                     " bytes are more than there are addresses"));
  }
  const RegionOptions options = {
      .size = *offset + kLine, .label = "array", .type_tag = type_tag};
  const auto fill_all = [&](std::span<std::byte> bytes) {
    fill(bytes.data());
    (new (ControlOf(bytes)) ArrayControl)->size = size;
  };
  if (name.has_value()) return Region::OpenOrCreate(*name, options, fill_all);
  absl::StatusOr<Region> region = Region::Create(options);
  if (region.ok()) fill_all(region->bytes());
  return region;
}

absl::StatusOr<ArrayMemory> AttachArray(Region region, size_t element_size,
                                        uint64_t type_tag) {
  if (region.type_tag() != type_tag) {
    return absl::FailedPreconditionError(
        "shared array: the region holds something else; hand it to a "
        "SharedArray<T> with the T that it was created with");
  }
  const std::span<std::byte> bytes = region.bytes();
  if (bytes.size() < kLine || bytes.size() % kLine != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("shared array: damaged, as no array has a region of ",
                     bytes.size(), " bytes"));
  }
  ArrayControl* const control = ControlOf(bytes);
  // Another process may change it meanwhile: read once.
  const uint64_t size = *static_cast<const volatile uint64_t*>(&control->size);
  const std::optional<size_t> offset = ControlOffset(size, element_size);
  if (!offset.has_value() || *offset + kLine != bytes.size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "shared array: damaged, as ", size, " elements of ", element_size,
        " bytes do not fill a region of ", bytes.size(), " bytes"));
  }
  return ArrayMemory{.region = std::move(region),
                     .control = control,
                     .size = static_cast<size_t>(size)};
}

absl::Status OtherSize(size_t found, size_t wanted) {
  return absl::FailedPreconditionError(
      absl::StrCat("shared array: one with ", found, " elements has the name, ",
                   "not one with ", wanted, "; Open() takes it as it is"));
}

}  // namespace cohort::ipc_internal
