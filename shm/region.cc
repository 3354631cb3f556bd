// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/region.h"

#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <new>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cohort/os/deadline.h"
#include "cohort/os/file.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/os/named_memory.h"
#include "cohort/shm/internal/region_header.h"
#include "cohort/shm/internal/region_name.h"

namespace cohort {
namespace {

using shm_internal::Access;
using shm_internal::Found;
using shm_internal::MappedRegion;
using shm_internal::RegionHeader;
using shm_internal::SharedRegion;
using shm_internal::Tenancy;

size_t RoundUp(size_t size, size_t page) {
  return (size + page - 1) / page * page;
}

std::span<const std::byte> BytesOf(const RegionHeader& header) {
  return std::as_bytes(std::span(&header, 1));
}

absl::Status CheckOptions(const RegionOptions& options, std::string_view who) {
  constexpr size_t kLargest = std::numeric_limits<int64_t>::max() / 2;
  if (options.size > 0 && options.size <= kLargest) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "region ", absl::string_view(who.data(), who.size()), ": a size of ",
      options.size, " bytes; ask for at least 1, and less than 2^62"));
}

// Maps the user's pages of a new file, and does what `options` ask for.
absl::StatusOr<std::shared_ptr<MappedRegion>> MapNew(
    const os::Descriptor& file, size_t map_size, const RegionOptions& options) {
  absl::StatusOr<os::Mapping> mapping = os::Mapping::Map(file, map_size);
  if (!mapping.ok()) return mapping.status();
  if (options.huge_pages == HugePages::kAdvise) mapping->AdviseHugePages();
  if (options.prefault) {
    if (absl::Status s = mapping->Populate(); !s.ok()) return s;
  }
  auto mapped = std::make_shared<MappedRegion>();
  mapped->mapping = *std::move(mapping);
  mapped->bytes = {mapped->mapping.data(), options.size};
  mapped->type_tag = options.type_tag;
  return mapped;
}

// In reserved huge pages, which cannot be written but through a mapping.
absl::StatusOr<SharedRegion> CreateHuge(const RegionOptions& options,
                                        const RegionHeader& header) {
  const auto none = [&](const absl::Status& why) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "region ", options.label, ": too few huge pages are set aside for ",
        options.size, " bytes; raise vm.nr_hugepages (", why.message(), ")"));
  };
  absl::StatusOr<os::Descriptor> memory =
      os::CreateMemfd(options.label, /*huge_pages=*/true);
  if (!memory.ok()) return memory.status();
  absl::StatusOr<size_t> page = os::PageSizeOf(*memory);
  if (!page.ok()) return page.status();
  const size_t file_size = RoundUp(options.size + sizeof(header), *page);
  if (absl::Status s = os::Allocate(*memory, file_size); !s.ok()) {
    return none(s);
  }
  if (absl::Status s = os::SealSize(*memory); !s.ok()) return s;
  auto mapped = MapNew(*memory, file_size, options);
  if (!mapped.ok()) return none(mapped.status());
  new ((*mapped)->mapping.data() + file_size - sizeof(header))
      RegionHeader(header);
  (*mapped)->tenancy = Tenancy(*std::move(memory));
  return *std::move(mapped);
}

// A named region that has no name yet.
struct Draft {
  os::Descriptor file;
  std::shared_ptr<MappedRegion> mapped;
};

absl::StatusOr<Draft> MakeDraft(const std::string& name,
                                const RegionOptions& options,
                                Region::Fill fill) {
  // What the dead left would count against the space that is asked for.
  static std::atomic<bool> swept = false;
  if (!swept.exchange(true)) (void)shm_internal::SweepNames();
  absl::StatusOr<RegionHeader> header =
      shm_internal::MakeRegionHeader(options.size, options.type_tag, name);
  if (!header.ok()) return header.status();
  const size_t page = os::PageSize();
  const size_t file_size = RoundUp(options.size + sizeof(*header), page);
  absl::StatusOr<os::Descriptor> file = os::CreateNamelessMemory(file_size);
  if (!file.ok()) return file.status();
  absl::Status written =
      os::WriteAt(*file, file_size - sizeof(*header), BytesOf(*header));
  if (!written.ok()) return written;
  auto mapped = MapNew(*file, RoundUp(options.size, page), options);
  if (!mapped.ok()) return mapped.status();
  (*mapped)->name = name;
  fill((*mapped)->bytes);
  return Draft{.file = *std::move(file), .mapped = *std::move(mapped)};
}

absl::Status Publish(Draft& draft) {
  absl::StatusOr<Tenancy> tenancy =
      shm_internal::Publish(draft.file, draft.mapped->name);
  if (!tenancy.ok()) return tenancy.status();
  draft.mapped->tenancy = *std::move(tenancy);
  return absl::OkStatus();
}

absl::Status CheckNamed(std::string_view name, const RegionOptions& options) {
  if (absl::Status s = shm_internal::CheckName(name); !s.ok()) return s;
  if (options.huge_pages == HugePages::kReserve) {
    return absl::InvalidArgumentError(absl::StrCat(
        "region ", absl::string_view(name.data(), name.size()),
        ": what has a name cannot lie in reserved huge pages; take "
        "HugePages::kAdvise, or Create() and send the handle"));
  }
  return CheckOptions(options, name);
}

absl::StatusOr<SharedRegion> OpenRegion(const std::string& name) {
  absl::StatusOr<Found> found = shm_internal::Join(name);
  if (!found.ok()) return found.status();
  return shm_internal::MapRegion(*std::move(found), Access::kReadWrite);
}

}  // namespace

absl::StatusOr<Region> Region::Create(size_t size) {
  RegionOptions options;
  options.size = size;
  return Create(options);
}

absl::StatusOr<Region> Region::Create(const RegionOptions& options) {
  if (absl::Status s = CheckOptions(options, options.label); !s.ok()) return s;
  absl::StatusOr<RegionHeader> header =
      shm_internal::MakeRegionHeader(options.size, options.type_tag, "");
  if (!header.ok()) return header.status();
  if (options.huge_pages == HugePages::kReserve) {
    absl::StatusOr<SharedRegion> huge = CreateHuge(options, *header);
    if (!huge.ok()) return huge.status();
    return Region(*std::move(huge));
  }
  const size_t page = os::PageSize();
  const size_t file_size = RoundUp(options.size + sizeof(*header), page);
  absl::StatusOr<os::Descriptor> memory = os::CreateMemfd(options.label);
  if (!memory.ok()) return memory.status();
  if (options.prefault) {
    if (absl::Status s = os::Allocate(*memory, file_size); !s.ok()) return s;
  }
  // Makes the file as long as it shall be, and spares the fault that a write
  // through a mapping would cost.
  absl::Status written =
      os::WriteAt(*memory, file_size - sizeof(*header), BytesOf(*header));
  if (!written.ok()) return written;
  if (absl::Status s = os::SealSize(*memory); !s.ok()) return s;
  auto mapped = MapNew(*memory, RoundUp(options.size, page), options);
  if (!mapped.ok()) return mapped.status();
  (*mapped)->tenancy = Tenancy(*std::move(memory));
  return Region(*std::move(mapped));
}

absl::StatusOr<Region> Region::CreateNamed(std::string_view name,
                                           const RegionOptions& options,
                                           Fill fill) {
  if (absl::Status s = CheckNamed(name, options); !s.ok()) return s;
  const std::string named(name);
  // Before the work of making one.
  if (absl::Status s = shm_internal::CheckVacant(named); !s.ok()) return s;
  absl::StatusOr<Draft> draft = MakeDraft(named, options, fill);
  if (!draft.ok()) return draft.status();
  if (absl::Status s = Publish(*draft); !s.ok()) return s;
  return Region(std::move(draft->mapped));
}

absl::StatusOr<Region> Region::Open(std::string_view name) {
  if (absl::Status s = shm_internal::CheckName(name); !s.ok()) return s;
  absl::StatusOr<SharedRegion> opened = OpenRegion(std::string(name));
  if (!opened.ok()) return opened.status();
  return Region(*std::move(opened));
}

absl::StatusOr<Region> Region::OpenOrCreate(std::string_view name,
                                            const RegionOptions& options,
                                            Fill fill) {
  if (absl::Status s = CheckNamed(name, options); !s.ok()) return s;
  const std::string named(name);
  std::optional<Draft> draft;
  // Each round that ends with neither, somebody else made it and let it go.
  const Deadline deadline = Deadline::After(std::chrono::seconds(10));
  do {
    absl::StatusOr<SharedRegion> opened = OpenRegion(named);
    if (opened.ok()) {
      Region region(*std::move(opened));
      if (region.size() == options.size &&
          region.type_tag() == options.type_tag) {
        return region;
      }
      return absl::FailedPreconditionError(absl::StrCat(
          "region ", named, ": it exists with ", region.size(),
          " bytes and type tag ", region.type_tag(), ", not ", options.size,
          " and ", options.type_tag, "; Open() takes it as it is"));
    }
    if (!absl::IsNotFound(opened.status())) return opened.status();
    if (!draft.has_value()) {
      absl::StatusOr<Draft> made = MakeDraft(named, options, fill);
      if (!made.ok()) return made.status();
      draft = *std::move(made);
    }
    absl::Status published = Publish(*draft);
    if (published.ok()) return Region(std::move(draft->mapped));
    if (!absl::IsAlreadyExists(published)) return published;
  } while (!deadline.Passed());
  return absl::UnavailableError(
      absl::StrCat("region ", named, ": others make and drop it all the time"));
}

absl::Status Region::Unlink(std::string_view name) {
  if (absl::Status s = shm_internal::CheckName(name); !s.ok()) return s;
  return shm_internal::RemoveRegionName(std::string(name));
}

absl::StatusOr<int> Region::Sweep() { return shm_internal::SweepNames(); }

absl::StatusOr<Region> Region::Attach(os::Descriptor memory) {
  absl::StatusOr<SharedRegion> attached = shm_internal::AttachRegion(
      std::move(memory), Access::kReadWrite, /*foreign=*/false);
  if (!attached.ok()) return attached.status();
  return Region(*std::move(attached));
}

absl::StatusOr<ReadOnlyRegion> Region::ReadOnly() const {
  if (empty()) return ReadOnlyRegion();
  absl::StatusOr<os::Descriptor> reader = os::ReopenForReading(descriptor());
  if (!reader.ok()) return reader.status();
  return ReadOnlyRegion::Attach(*std::move(reader), mapped_->foreign);
}

const os::Descriptor& Region::descriptor() const {
  static const os::Descriptor none;
  return mapped_ == nullptr ? none : mapped_->tenancy.file();
}

}  // namespace cohort
