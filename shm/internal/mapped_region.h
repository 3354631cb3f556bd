// SPDX-License-Identifier: Apache-2.0
//
// What the handles of a region share within a process: the file, its mapping,
// and what its header said. Nothing here is for users.

#ifndef COHORT_SHM_INTERNAL_MAPPED_REGION_H_
#define COHORT_SHM_INTERNAL_MAPPED_REGION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/mapping.h"
#include "cohort/shm/internal/region_name.h"

namespace cohort::shm_internal {

enum class Access { kRead, kReadWrite };

struct MappedRegion {
  Tenancy tenancy;  // Destroyed last: a mapping is an owner of the file, too.
  os::Mapping mapping;
  std::span<std::byte> bytes;
  uint64_t type_tag = 0;
  // Without a name it is anonymous, or foreign and was received.
  std::string name;
  // Made by another program: no header.
  bool foreign = false;
};

using SharedRegion = std::shared_ptr<const MappedRegion>;

// Maps what was found under a name or received.
absl::StatusOr<SharedRegion> MapRegion(Found found, Access access);

// The region behind a descriptor that came from elsewhere; `foreign` where the
// sender said that it has no header.
absl::StatusOr<SharedRegion> AttachRegion(os::Descriptor memory, Access access,
                                          bool foreign);

}  // namespace cohort::shm_internal

#endif  // COHORT_SHM_INTERNAL_MAPPED_REGION_H_
