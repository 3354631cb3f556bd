// SPDX-License-Identifier: Apache-2.0
//
// `os::Mapping` owns a range of addresses at which a memory file is mapped and
// shared, and unmaps it at the end of its life.
//
//   absl::StatusOr<os::Mapping> map = os::Mapping::Map(fd, 4096);
//   std::byte* first = map->data();   // page-aligned

#ifndef COHORT_OS_MAPPING_H_
#define COHORT_OS_MAPPING_H_

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

class Mapping final {
 public:
  // Maps the first `size` bytes of `file`, shared with everybody who maps it.
  // From 1 MiB on it is left out of core dumps: a dump of gigabytes would delay
  // the news of this process's death. ResourceExhausted: no memory or addresses
  // left.
  static absl::StatusOr<Mapping> Map(const Descriptor& file, size_t size,
                                     bool writable = true);

  // Likewise, writable, and no child of fork() ever has it. What a child copies of
  // this object then owns nothing: see Abandon().
  static absl::StatusOr<Mapping> MapForThisProcess(const Descriptor& file,
                                                   size_t size);

  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Reset();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~Mapping() { Reset(); }

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }

  // Takes all pages now, for this process too. ResourceExhausted where memory
  // is short.
  [[nodiscard]] absl::Status Populate() const;

  // Asks for huge pages. Advice: the kernel may have none, or be told by its
  // administrator to give none (transparent_hugepage/shmem_enabled).
  void AdviseHugePages() const;

  // Maps `file` at the same addresses instead, in one step: a thread that reads
  // meanwhile sees the one or the other. An error leaves it as it was. Children
  // of fork() have it from now on.
  [[nodiscard]] absl::Status ReplaceBy(const Descriptor& file, bool writable);

  // Likewise, writable, and no child of fork() ever has it.
  [[nodiscard]] absl::Status ReplaceForThisProcess(const Descriptor& file);

  // Forgets it, for a process that does not have it.
  void Abandon() { data_ = nullptr; }

  // Unmaps it now.
  void Reset();

 private:
  [[nodiscard]] absl::Status HideFromChildren() const;

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The size of a page in bytes.
size_t PageSize();

}  // namespace cohort::os

#endif  // COHORT_OS_MAPPING_H_
