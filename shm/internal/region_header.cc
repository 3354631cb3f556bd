// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/internal/region_header.h"

#include <algorithm>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "cohort/os/file.h"
#include "cohort/os/process_id.h"
#include "cohort/os/robust.h"

namespace cohort::shm_internal {
namespace {

constexpr uint64_t kMagic = 0x314e4f4947455243;  // "CREGION1"
constexpr uint32_t kAbiVersion = 2;
constexpr uint32_t kByteOrder = 0x01020304;

absl::Status Refused(const std::string& why) {
  return absl::FailedPreconditionError(
      absl::StrCat("region: the memory ", why));
}

}  // namespace

std::string_view RegionHeader::name() const {
  size_t size = name_bytes.size();
  while (size > 0 && name_bytes[size - 1] == '\0') --size;
  return {name_bytes.data(), size};
}

absl::StatusOr<RegionHeader> MakeRegionHeader(size_t user_size,
                                              uint64_t type_tag,
                                              std::string_view name) {
  absl::StatusOr<uint64_t> pid_namespace = os::PidNamespace();
  if (!pid_namespace.ok()) return pid_namespace.status();
  RegionHeader header = {.magic = kMagic,
                         .abi_version = kAbiVersion,
                         .byte_order = kByteOrder,
                         .word_size = sizeof(void*),
                         .futex_offset = -os::kRobustDistance,
                         .pid_namespace = *pid_namespace,
                         .user_size = user_size,
                         .type_tag = type_tag,
                         .reserved = 0,
                         .name_bytes = {}};
  std::copy(name.begin(), name.end(), header.name_bytes.begin());
  return header;
}

absl::StatusOr<std::optional<RegionHeader>> ReadRegionHeader(
    const os::Descriptor& file, size_t file_size) {
  if (file_size <= sizeof(RegionHeader)) return std::nullopt;
  RegionHeader header;
  absl::Status read = os::ReadAt(file, file_size - sizeof(header),
                                 std::as_writable_bytes(std::span(&header, 1)));
  // Somebody has just shortened it.
  if (absl::IsOutOfRange(read)) return std::nullopt;
  if (!read.ok()) return read;
  if (header.magic != kMagic) return std::nullopt;
  return header;
}

bool IsKnownLayout(const RegionHeader& header) {
  return header.magic == kMagic && header.abi_version == kAbiVersion &&
         header.byte_order == kByteOrder;
}

absl::Status CheckRegionHeader(const RegionHeader& header, size_t file_size) {
  if (header.magic != kMagic) return Refused("holds no region");
  if (header.byte_order != kByteOrder || header.word_size != sizeof(void*) ||
      header.futex_offset != -os::kRobustDistance) {
    return Refused(
        "comes from a program of another byte order, word size or C library; "
        "send it the values instead, through a socket");
  }
  if (header.abi_version != kAbiVersion) {
    return Refused(absl::StrCat("has layout ", header.abi_version,
                                ", this program knows ", kAbiVersion,
                                "; build both from the same release"));
  }
  absl::StatusOr<uint64_t> pid_namespace = os::PidNamespace();
  if (!pid_namespace.ok()) return pid_namespace.status();
  if (header.pid_namespace != *pid_namespace) {
    return Refused(
        "was made in another PID namespace, where the locks in it would "
        "mistake one process for another; connect through a socket");
  }
  if (header.user_size == 0 ||
      header.user_size > file_size - sizeof(RegionHeader)) {
    return Refused("states a size that it does not have");
  }
  return absl::OkStatus();
}

}  // namespace cohort::shm_internal
