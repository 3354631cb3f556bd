// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/buffer.h"

#include <atomic>
#include <limits>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "cohort/os/file.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/os/process_id.h"

namespace cohort {

struct Buffer::Memory {
  ~Memory() {
    // Other bytes may lie there by now.
    if (!sealed && !creator.IsMe()) mapping.Abandon();
  }

  os::Creator creator;
  size_t size = 0;
  os::Mapping mapping;
  // Set once, after which neither `file` nor the mapping changes.
  std::atomic<bool> sealed = false;
  absl::Mutex mu;
  // Writable until it is sealed, then of a kind that cannot write.
  os::Descriptor file;
};

Buffer::Buffer() noexcept = default;
Buffer::Buffer(std::unique_ptr<Memory> memory) : memory_(std::move(memory)) {}
Buffer::Buffer(Buffer&& other) noexcept = default;
Buffer& Buffer::operator=(Buffer&& other) noexcept = default;
Buffer::~Buffer() = default;

absl::StatusOr<Buffer> Buffer::Create(size_t size) {
  if (size == 0) return Buffer();
  if (size > std::numeric_limits<int64_t>::max() - os::PageSize()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "buffer: a size of ", size, " bytes; ask for less than 2^63"));
  }
  auto memory = std::make_unique<Memory>();
  memory->size = size;
  absl::StatusOr<os::Descriptor> file = os::CreateMemfd("buffer");
  if (!file.ok()) return file.status();
  if (absl::Status s = os::Resize(*file, size); !s.ok()) return s;
  // A child that has it mapped writable would keep it from being sealed.
  absl::StatusOr<os::Mapping> mapping =
      os::Mapping::MapForThisProcess(*file, size);
  if (!mapping.ok()) return mapping.status();
  memory->file = *std::move(file);
  memory->mapping = *std::move(mapping);
  return Buffer(std::move(memory));
}

absl::StatusOr<Buffer> Buffer::Attach(os::Descriptor file) {
  if (!file.valid()) {
    return absl::InvalidArgumentError("buffer: no descriptor to attach to");
  }
  absl::StatusOr<size_t> size = os::CheckSealedContent(file);
  if (!size.ok()) return size.status();
  // Of reserved huge pages there may be none left at the first touch.
  absl::StatusOr<size_t> page = os::PageSizeOf(file);
  if (!page.ok()) return page.status();
  if (*size == 0 || *page != os::PageSize()) {
    return absl::FailedPreconditionError(
        "buffer: the memory received is none that a Buffer is made of");
  }
  // Older kernels refuse to share sealed memory through a descriptor that could
  // write, and a peer may have sent one.
  if (os::IsWritable(file)) {
    absl::StatusOr<os::Descriptor> reader = os::ReopenForReading(file);
    if (!reader.ok()) return reader.status();
    file = *std::move(reader);
  }
  absl::StatusOr<os::Mapping> mapping =
      os::Mapping::Map(file, *size, /*writable=*/false);
  if (!mapping.ok()) return mapping.status();
  auto memory = std::make_unique<Memory>();
  memory->size = *size;
  memory->file = std::move(file);
  memory->mapping = *std::move(mapping);
  memory->sealed = true;
  return Buffer(std::move(memory));
}

bool Buffer::IsHere() const {
  return memory_ != nullptr &&
         (memory_->sealed.load(std::memory_order_acquire) ||
          memory_->creator.IsMe());
}

std::span<const std::byte> Buffer::bytes() const {
  if (!IsHere()) return {};
  return {memory_->mapping.data(), memory_->size};
}

std::span<std::byte> Buffer::mutable_bytes() {
  if (!IsHere()) return {};
  os::Check(!sealed(),
            "a Buffer was to be written after it was sent or sealed");
  return {memory_->mapping.data(), memory_->size};
}

bool Buffer::sealed() const {
  return memory_ != nullptr && memory_->sealed.load(std::memory_order_acquire);
}

const os::Descriptor& Buffer::descriptor() const {
  static const os::Descriptor none;
  return sealed() ? memory_->file : none;
}

// The kernel seals only what nobody has mapped writable, and counts as such
// each mapping through a descriptor that could write. So the own mapping is
// replaced first, by one through a descriptor that cannot.
absl::Status Buffer::Seal() const {
  if (!IsHere() || sealed()) return absl::OkStatus();
  Memory& memory = *memory_;
  const absl::MutexLock lock(&memory.mu);
  if (sealed()) return absl::OkStatus();
  absl::StatusOr<os::Descriptor> reader = os::ReopenForReading(memory.file);
  if (!reader.ok()) return reader.status();
  if (absl::Status s = memory.mapping.ReplaceBy(*reader, /*writable=*/false);
      !s.ok()) {
    return s;
  }
  if (absl::Status s = os::SealContent(memory.file); !s.ok()) {
    os::Check(memory.mapping.ReplaceForThisProcess(memory.file).ok(),
              "a Buffer could neither be sealed nor be made writable again");
    return s;
  }
  memory.file = *std::move(reader);
  memory.sealed.store(true, std::memory_order_release);
  return absl::OkStatus();
}

}  // namespace cohort
