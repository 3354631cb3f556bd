// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/internal/mapped_region.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "cohort/os/file.h"
#include "cohort/os/memfd.h"
#include "cohort/shm/internal/region_header.h"

namespace cohort::shm_internal {
namespace {

absl::Status Refused(absl::string_view why) {
  return absl::FailedPreconditionError(why);
}

// An anonymous one. That its size is sealed has been checked.
absl::StatusOr<Found> FindSealed(os::Descriptor memory, size_t file_size) {
  absl::StatusOr<std::optional<RegionHeader>> header =
      ReadRegionHeader(memory, file_size);
  if (!header.ok()) return header.status();
  if (!header->has_value()) {
    return Refused("region: the memory received holds no region");
  }
  if (!(*header)->name().empty()) {
    return Refused(
        "region: the memory received claims a name that it cannot have");
  }
  return Found{.tenancy = Tenancy(std::move(memory)),
               .name = {},
               .file_size = file_size,
               .header = *header};
}

absl::StatusOr<Found> Find(os::Descriptor memory) {
  if (!memory.valid()) {
    return absl::InvalidArgumentError("region: no descriptor to attach to");
  }
  absl::StatusOr<size_t> file_size = os::CheckSealedMemfd(memory);
  if (file_size.ok()) return FindSealed(std::move(memory), *file_size);
  absl::StatusOr<Found> named = Adopt(std::move(memory));
  if (!absl::IsFailedPrecondition(named.status())) return named;
  return Refused(absl::StrCat(
      file_size.status().message(),
      "; nor is it a region with a name: ", named.status().message()));
}

}  // namespace

absl::StatusOr<SharedRegion> MapRegion(Found found, Access access) {
  size_t user_size = found.file_size;
  auto mapped = std::make_shared<MappedRegion>();
  if (found.header.has_value()) {
    absl::Status valid = CheckRegionHeader(*found.header, found.file_size);
    if (!valid.ok()) return valid;
    user_size = found.header->user_size;
    mapped->type_tag = found.header->type_tag;
  }
  mapped->name = std::move(found.name);
  mapped->foreign = !found.header.has_value();
  mapped->tenancy = std::move(found.tenancy);
  const os::Descriptor& file = mapped->tenancy.file();
  absl::StatusOr<size_t> page = os::PageSizeOf(file);
  if (!page.ok()) return page.status();
  if (*page != os::PageSize() && access == Access::kReadWrite) {
    // Reserved huge pages that its maker left out would be a SIGBUS later.
    absl::Status taken = os::Allocate(file, found.file_size);
    if (!taken.ok()) return taken;
  }
  // Without the header, where that lies on a page of its own.
  const size_t map_size = (user_size + *page - 1) / *page * *page;
  absl::StatusOr<os::Mapping> mapping =
      os::Mapping::Map(file, map_size, access == Access::kReadWrite);
  if (!mapping.ok()) return mapping.status();
  mapped->mapping = *std::move(mapping);
  mapped->bytes = {mapped->mapping.data(), user_size};
  return mapped;
}

absl::StatusOr<SharedRegion> AttachRegion(os::Descriptor memory, Access access,
                                          bool foreign) {
  absl::StatusOr<Found> found = Find(std::move(memory));
  if (!found.ok()) return found.status();
  if (!found->header.has_value() && !foreign) {
    return Refused("region: the memory received holds no region");
  }
  return MapRegion(*std::move(found), access);
}

}  // namespace cohort::shm_internal
