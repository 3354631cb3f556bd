// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/region.h"

#include <bit>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/memfd.h"
#include "cohort/os/process_id.h"
#include "cohort/os/robust.h"

namespace cohort {
namespace {

// The first page of a region: docs/formats/region_header.md. Written once, by
// Create(), before anybody else can have the descriptor.
struct Header {
  uint64_t magic;
  uint32_t abi_version;
  uint32_t byte_order;
  uint32_t word_size;
  int32_t futex_offset;
  uint64_t pid_namespace;
  uint64_t user_offset;
  uint64_t user_size;
  uint64_t type_tag;
};
static_assert(sizeof(Header) == 56 && std::is_trivially_copyable_v<Header>,
              "shared ABI");

constexpr uint64_t kMagic = 0x314e4f4947455243;  // "CREGION1"
constexpr uint32_t kAbiVersion = 1;
constexpr uint32_t kByteOrder = 0x01020304;

size_t PagesOf(size_t size) {
  const size_t page = os::PageSize();
  return (size + page - 1) / page * page;
}

absl::Status Refused(const std::string& why) {
  return absl::FailedPreconditionError(
      absl::StrCat("region: the memory received ", why));
}

// Copies the header out of memory that a peer may be changing: each word is
// read once, and checked afterwards in private.
Header ReadOnce(const std::byte* from) {
  constexpr size_t kWords = sizeof(Header) / sizeof(uint64_t);
  struct Words {
    uint64_t word[kWords];
  } words;
  const auto* word = reinterpret_cast<const volatile uint64_t*>(from);
  for (size_t i = 0; i < kWords; ++i) words.word[i] = word[i];
  return std::bit_cast<Header>(words);
}

absl::Status Check(const Header& header, size_t file_size,
                   uint64_t pid_namespace) {
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
  if (header.pid_namespace != pid_namespace) {
    return Refused(
        "was made in another PID namespace, where the locks in it would "
        "mistake one process for another; connect through a socket");
  }
  if (header.user_offset != os::PageSize() || header.user_size == 0 ||
      header.user_size > file_size - header.user_offset) {
    return Refused("states a size that it does not have");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Region> Region::Create(size_t size) {
  RegionOptions options;
  options.size = size;
  return Create(options);
}

absl::StatusOr<Region> Region::Create(const RegionOptions& options) {
  const size_t page = os::PageSize();
  if (options.size == 0 ||
      options.size > std::numeric_limits<int64_t>::max() - 2 * page) {
    return absl::InvalidArgumentError(
        absl::StrCat("region ", options.label, ": a size of ", options.size,
                     " bytes; ask for at least 1, and less than 2^63"));
  }
  absl::StatusOr<uint64_t> pid_namespace = os::PidNamespace();
  if (!pid_namespace.ok()) return pid_namespace.status();
  const size_t file_size = page + PagesOf(options.size);
  absl::StatusOr<os::Descriptor> memory =
      os::CreateSealedMemfd(options.label, file_size);
  if (!memory.ok()) return memory.status();
  absl::StatusOr<os::Mapping> mapping = os::Mapping::Map(*memory, file_size);
  if (!mapping.ok()) return mapping.status();
  new (mapping->data()) Header{.magic = kMagic,
                               .abi_version = kAbiVersion,
                               .byte_order = kByteOrder,
                               .word_size = sizeof(void*),
                               .futex_offset = -os::kRobustDistance,
                               .pid_namespace = *pid_namespace,
                               .user_offset = page,
                               .user_size = options.size,
                               .type_tag = options.type_tag};
  Mapped mapped;
  mapped.bytes = {mapping->data() + page, options.size};
  mapped.type_tag = options.type_tag;
  mapped.memory = *std::move(memory);
  mapped.mapping = *std::move(mapping);
  return Region(std::move(mapped));
}

absl::StatusOr<Region> Region::Attach(os::Descriptor memory) {
  if (!memory.valid()) {
    return absl::InvalidArgumentError("region: no descriptor to attach to");
  }
  absl::StatusOr<size_t> file_size = os::CheckSealedMemfd(memory);
  if (!file_size.ok()) return file_size.status();
  // At least the header page and one more. A file that does not end with a page
  // is none of ours, and the rest of its last page would be of no defined use.
  const size_t page = os::PageSize();
  if (*file_size < 2 * page || *file_size % page != 0) {
    return Refused(
        absl::StrCat("has ", *file_size, " bytes, which is no region's size"));
  }
  absl::StatusOr<uint64_t> pid_namespace = os::PidNamespace();
  if (!pid_namespace.ok()) return pid_namespace.status();
  absl::StatusOr<os::Mapping> mapping = os::Mapping::Map(memory, *file_size);
  if (!mapping.ok()) return mapping.status();
  const Header header = ReadOnce(mapping->data());
  absl::Status valid = Check(header, *file_size, *pid_namespace);
  if (!valid.ok()) return valid;
  Mapped mapped;
  mapped.bytes = {mapping->data() + header.user_offset, header.user_size};
  mapped.type_tag = header.type_tag;
  mapped.memory = std::move(memory);
  mapped.mapping = *std::move(mapping);
  return Region(std::move(mapped));
}

const os::Descriptor& Region::descriptor() const {
  static const os::Descriptor none;
  return mapped_ == nullptr ? none : mapped_->memory;
}

}  // namespace cohort
