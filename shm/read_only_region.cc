// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/read_only_region.h"

#include "cohort/os/file.h"

namespace cohort {

absl::StatusOr<ReadOnlyRegion> ReadOnlyRegion::Attach(os::Descriptor memory) {
  return Attach(std::move(memory), /*foreign=*/false);
}

absl::StatusOr<ReadOnlyRegion> ReadOnlyRegion::Attach(os::Descriptor memory,
                                                      bool foreign) {
  os::Descriptor sent;  // Owns a name until the reader does.
  if (memory.valid() && os::IsWritable(memory)) {
    absl::StatusOr<os::Descriptor> reader = os::ReopenForReading(memory);
    if (!reader.ok()) return reader.status();
    sent = std::exchange(memory, *std::move(reader));
  }
  absl::StatusOr<shm_internal::SharedRegion> attached =
      shm_internal::AttachRegion(std::move(memory), shm_internal::Access::kRead,
                                 foreign);
  if (!attached.ok()) return attached.status();
  return ReadOnlyRegion(*std::move(attached));
}

const os::Descriptor& ReadOnlyRegion::descriptor() const {
  static const os::Descriptor none;
  return mapped_ == nullptr ? none : mapped_->tenancy.file();
}

}  // namespace cohort
