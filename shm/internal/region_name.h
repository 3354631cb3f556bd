// SPDX-License-Identifier: Apache-2.0
//
// The life of a region's name, under rivals that come, go and die at any moment.
// A name is absent, or means a complete region; it is taken away by Unlink(), or
// by whoever finds that no owner lives. Nothing here is for users.
//
// Three locks of the kernel on the file itself (os/named_memory.h) decide:
//
//   owner    shared; from before the name appears until the last descriptor and
//            mapping of an open file are gone
//   remover  for the moment in which a name is taken away
//   cleaner  both of these alone: no owner lives, none can come, and nobody else
//            takes the name away
//
// Who removes a name holds the remover's lock on the file that it means, looks
// that it still means it, and only then removes it: no two can, so the name of
// another file, made in between, is never hit.

#ifndef COHORT_SHM_INTERNAL_REGION_NAME_H_
#define COHORT_SHM_INTERNAL_REGION_NAME_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/named_memory.h"
#include "cohort/shm/internal/region_header.h"

namespace cohort::shm_internal {

// A file, and at its end the duty to take its name away if nobody else has it.
// Without a name it is merely a descriptor. Outlived by no mapping of the file,
// for a mapping is an owner too.
class Tenancy final {
 public:
  Tenancy() = default;
  explicit Tenancy(os::Descriptor file) : file_(std::move(file)) {}
  // Requires that `file` has claimed to be an owner.
  Tenancy(os::Descriptor file, std::string name, os::FileId id)
      : file_(std::move(file)), name_(std::move(name)), id_(id) {}
  Tenancy(Tenancy&& other) noexcept
      : file_(std::move(other.file_)),
        name_(std::exchange(other.name_, {})),
        id_(other.id_) {}
  Tenancy& operator=(Tenancy&& other) noexcept;
  ~Tenancy() { Leave(); }

  [[nodiscard]] const os::Descriptor& file() const { return file_; }
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  void Leave();

  os::Descriptor file_;
  std::string name_;  // Empty: nothing to take away.
  os::FileId id_;
};

// What a name was found to mean. Without a header it is not ours: plain bytes,
// as of Python's SharedMemory.
struct Found {
  Tenancy tenancy;
  std::string name;  // Empty for an anonymous one.
  size_t file_size = 0;
  std::optional<RegionHeader> header;
};

// InvalidArgument unless it is 1 to 200 of A-Z a-z 0-9 . _ - and does not begin
// with a dot.
absl::Status CheckName(std::string_view name);

// AlreadyExists where something lives under the name. What is dead goes.
absl::Status CheckVacant(const std::string& name);

// Gives `file`, complete with its header, the name; at once it is owned. On
// failure it is nameless still, and the caller's. AlreadyExists: as above.
// Unavailable: a stopped process is just taking a dead region's name away.
absl::StatusOr<Tenancy> Publish(os::Descriptor& file, const std::string& name);

// Becomes an owner of what has the name. NotFound: nothing, or what is dead,
// and is gone now. FailedPrecondition: it is not to be trusted.
absl::StatusOr<Found> Join(const std::string& name);

// Likewise for a file that was received.
absl::StatusOr<Found> Adopt(os::Descriptor file);

// Takes the name away from whoever has it.
absl::Status RemoveRegionName(const std::string& name);

// Takes away the names of all dead regions; returns how many.
absl::StatusOr<int> SweepNames();

}  // namespace cohort::shm_internal

#endif  // COHORT_SHM_INTERNAL_REGION_NAME_H_
