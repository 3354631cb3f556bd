// SPDX-License-Identifier: Apache-2.0
//
// The last bytes of a region's file: docs/formats/region_header.md. Written
// once, before anybody else can have the file, and copied out of it as a whole
// before anything in it is believed. Nothing here is for users.

#ifndef COHORT_SHM_INTERNAL_REGION_HEADER_H_
#define COHORT_SHM_INTERNAL_REGION_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::shm_internal {

inline constexpr size_t kLongestName = 200;

struct RegionHeader {
  uint64_t magic;
  uint32_t abi_version;
  uint32_t byte_order;
  uint32_t word_size;
  int32_t futex_offset;
  uint64_t pid_namespace;
  uint64_t user_size;
  uint64_t type_tag;
  uint64_t reserved;
  std::array<char, kLongestName> name_bytes;

  // Without the zero bytes at its end; empty for an anonymous region.
  [[nodiscard]] std::string_view name() const;
};
static_assert(sizeof(RegionHeader) == 256 &&
                  std::is_trivially_copyable_v<RegionHeader>,
              "shared ABI");

// Of a new region; an anonymous one has no name.
absl::StatusOr<RegionHeader> MakeRegionHeader(size_t user_size,
                                              uint64_t type_tag,
                                              std::string_view name);

// What the last bytes of a file of `file_size` bytes say; nothing where it is
// no region's file.
absl::StatusOr<std::optional<RegionHeader>> ReadRegionHeader(
    const os::Descriptor& file, size_t file_size);

// Whether the layout is the one that this program knows.
[[nodiscard]] bool IsKnownLayout(const RegionHeader& header);

// Whether what is in it can be used here, by the processes of this namespace.
absl::Status CheckRegionHeader(const RegionHeader& header, size_t file_size);

}  // namespace cohort::shm_internal

#endif  // COHORT_SHM_INTERNAL_REGION_HEADER_H_
