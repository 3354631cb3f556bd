// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/internal/region_name.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/deadline.h"

namespace cohort::shm_internal {
namespace {

using os::Claim;
using os::Holder;

// How long a rival may take for the few steps of taking a name away. Only one
// that is stopped takes longer.
constexpr std::chrono::seconds kPatience(1);

struct Look {
  os::NamedMemory memory;
  std::optional<RegionHeader> header;

  // Whether it is a region that was made under this very name: a copy or a
  // renamed one is somebody's on purpose.
  [[nodiscard]] bool IsRegion(const std::string& name) const {
    return header.has_value() && IsKnownLayout(*header) &&
           header->name() == name;
  }
};

absl::StatusOr<Look> LookAt(const std::string& name) {
  absl::StatusOr<os::NamedMemory> memory = os::OpenNamedMemory(name);
  if (!memory.ok()) return memory.status();
  absl::StatusOr<std::optional<RegionHeader>> header =
      ReadRegionHeader(memory->file, memory->size);
  if (!header.ok()) return header.status();
  return Look{.memory = *std::move(memory), .header = *header};
}

absl::Status Refused(const std::string& name, const std::string& why) {
  return absl::FailedPreconditionError(
      absl::StrCat("region ", name, ": ", why));
}

absl::Status Stopped(const std::string& name) {
  return absl::UnavailableError(
      absl::StrCat("region ", name,
                   ": another process is just taking the name away and does "
                   "not go on; continue or end it"));
}

// Takes the name away from a file that nobody owns. False where somebody does,
// or is at it himself.
bool Clean(const os::NamedMemory& memory, const std::string& name) {
  if (!os::TryClaim(memory.file, Claim::kCleaner)) return false;
  return os::IsNameOf(name, memory.id) && os::RemoveName(name).ok();
}

}  // namespace

Tenancy& Tenancy::operator=(Tenancy&& other) noexcept {
  if (this != &other) {
    Leave();
    file_ = std::move(other.file_);
    name_ = std::exchange(other.name_, {});
    id_ = other.id_;
  }
  return *this;
}

void Tenancy::Leave() {
  if (name_.empty()) return;
  // Only an open file of its own can find out: this one may be shared, with
  // children or with whoever was sent it, and its lock is theirs too.
  absl::StatusOr<os::NamedMemory> fresh = os::OpenNamedMemory(name_);
  file_.Reset();
  // The number that was missing may have been the own file's.
  if (absl::IsResourceExhausted(fresh.status())) {
    fresh = os::OpenNamedMemory(name_);
  }
  if (fresh.ok() && fresh->id == id_) (void)Clean(*fresh, name_);
  name_.clear();
}

absl::Status CheckName(std::string_view name) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
           c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kLongestName && name.front() != '.' &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "region: a name is 1 to 200 of the characters A-Z a-z 0-9 . _ - and does "
      "not begin with a dot");
}

absl::Status CheckVacant(const std::string& name) {
  const Deadline deadline = Deadline::After(kPatience);
  do {
    absl::StatusOr<Look> look = LookAt(name);
    if (absl::IsNotFound(look.status())) return absl::OkStatus();
    if (!look.ok()) {
      if (!absl::IsFailedPrecondition(look.status())) return look.status();
      return absl::AlreadyExistsError(look.status().message());
    }
    if (!look->IsRegion(name)) {
      return absl::AlreadyExistsError(
          absl::StrCat("region ", name,
                       ": the name is taken by something that was not made "
                       "by this library; take another name"));
    }
    if (os::WhoHas(look->memory.file) == Holder::kOwner) {
      return absl::AlreadyExistsError(
          absl::StrCat("region ", name, ": it exists; open it"));
    }
    if (Clean(look->memory, name)) return absl::OkStatus();
    os::Nap();
  } while (!deadline.Passed());
  return Stopped(name);
}

absl::StatusOr<Tenancy> Publish(os::Descriptor& file, const std::string& name) {
  if (!os::TryClaim(file, Claim::kOwner)) {
    return absl::InternalError(
        absl::StrCat("region ", name, ": /dev/shm does not offer locks"));
  }
  absl::StatusOr<os::FileId> id = os::IdOf(file);
  if (!id.ok()) return id.status();
  const Deadline deadline = Deadline::After(kPatience);
  do {
    absl::Status named = os::NameMemory(file, name);
    if (named.ok()) return Tenancy(std::move(file), name, *id);
    if (!absl::IsAlreadyExists(named)) return named;
    if (absl::Status s = CheckVacant(name); !s.ok()) return s;
  } while (!deadline.Passed());
  return Stopped(name);
}

absl::StatusOr<Found> Join(const std::string& name) {
  const Deadline deadline = Deadline::After(kPatience);
  do {
    absl::StatusOr<Look> look = LookAt(name);
    if (!look.ok()) return look.status();
    os::NamedMemory& memory = look->memory;
    const Holder holder = os::WhoHas(memory.file);
    if (!look->header.has_value()) {
      if (holder != Holder::kNobody) {
        return Refused(name, "its end was cut off or overwritten");
      }
      if (memory.size == 0) {
        return Refused(name, "it is empty; its maker may not be done yet");
      }
      return Found{.tenancy = Tenancy(std::move(memory.file)),
                   .name = name,
                   .file_size = memory.size,
                   .header = std::nullopt};
    }
    if (!look->IsRegion(name)) {
      absl::Status why = CheckRegionHeader(*look->header, memory.size);
      return why.ok() ? Refused(name, "it was made under another name") : why;
    }
    // An owner that dies from here on is not missed: its heir is here.
    if (holder != Holder::kOwner || !os::TryClaim(memory.file, Claim::kOwner)) {
      (void)Clean(memory, name);
      return absl::NotFoundError(
          absl::StrCat("region ", name, ": nobody alive owns it"));
    }
    Found found{.tenancy = Tenancy(std::move(memory.file), name, memory.id),
                .name = name,
                .file_size = memory.size,
                .header = look->header};
    // From the lock on only Unlink() takes the name away. Before it, anybody
    // may have.
    if (os::IsNameOf(name, memory.id)) return found;
  } while (!deadline.Passed());
  return absl::UnavailableError(
      absl::StrCat("region ", name, ": it is replaced all the time"));
}

absl::StatusOr<Found> Adopt(os::Descriptor file) {
  absl::StatusOr<os::NamedMemory> memory =
      os::CheckNamedMemory(std::move(file));
  if (!memory.ok()) return memory.status();
  absl::StatusOr<std::optional<RegionHeader>> header =
      ReadRegionHeader(memory->file, memory->size);
  if (!header.ok()) return header.status();
  if (!header->has_value()) {
    return Found{.tenancy = Tenancy(std::move(memory->file)),
                 .name = {},
                 .file_size = memory->size,
                 .header = std::nullopt};
  }
  const std::string name((*header)->name());
  if (absl::Status s = CheckName(name); !s.ok()) {
    return absl::FailedPreconditionError(
        "region: the memory received is neither of a size that is sealed nor "
        "has it a name");
  }
  // The sender's open file is this one, so its lock is here already.
  if (!os::TryClaim(memory->file, Claim::kOwner)) {
    return Refused(name, "nobody alive owned it when it was received");
  }
  return Found{.tenancy = Tenancy(std::move(memory->file), name, memory->id),
               .name = name,
               .file_size = memory->size,
               .header = *header};
}

absl::Status RemoveRegionName(const std::string& name) {
  const Deadline deadline = Deadline::After(kPatience);
  do {
    absl::StatusOr<Look> look = LookAt(name);
    if (!look.ok()) return look.status();
    if (!os::TryClaim(look->memory.file, Claim::kRemover)) {
      os::Nap();
    } else if (os::IsNameOf(name, look->memory.id)) {
      return os::RemoveName(name);
    }
  } while (!deadline.Passed());
  return Stopped(name);
}

absl::StatusOr<int> SweepNames() {
  absl::StatusOr<std::vector<std::string>> names = os::NamesOfMemory();
  if (!names.ok()) return names.status();
  int swept = 0;
  for (const std::string& name : *names) {
    if (!CheckName(name).ok()) continue;
    absl::StatusOr<Look> look = LookAt(name);
    if (absl::IsResourceExhausted(look.status())) return look.status();
    if (look.ok() && look->IsRegion(name) && Clean(look->memory, name)) ++swept;
  }
  return swept;
}

}  // namespace cohort::shm_internal
