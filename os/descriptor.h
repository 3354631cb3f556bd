// SPDX-License-Identifier: Apache-2.0
//
// `os::Descriptor` owns one file descriptor and closes it at the end of its
// life. Every descriptor of this library is close-on-exec from birth; one
// reaches another process only by being listed (os/spawn.h) or sent
// (os/socket.h).
//
//   os::Descriptor read_end(fds[0]);
//   absl::StatusOr<os::Descriptor> twin = read_end.Duplicate();

#ifndef COHORT_OS_DESCRIPTOR_H_
#define COHORT_OS_DESCRIPTOR_H_

#include <utility>

#include "absl/status/statusor.h"

namespace cohort::os {

class Descriptor final {
 public:
  Descriptor() = default;

  // Takes over `fd`. A negative number makes an invalid descriptor.
  explicit Descriptor(int fd) : fd_(fd < 0 ? -1 : fd) {}

  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = other.Release();
    }
    return *this;
  }
  ~Descriptor() { Reset(); }

  // The number, or -1. It stays this object's.
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }

  // Gives the number away; the caller closes it.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }

  // Closes it now. The variable errno keeps its value.
  void Reset();

  // A second descriptor of the same open file, close-on-exec too.
  // ResourceExhausted where the process has no number left.
  [[nodiscard]] absl::StatusOr<Descriptor> Duplicate() const;

 private:
  int fd_ = -1;
};

}  // namespace cohort::os

#endif  // COHORT_OS_DESCRIPTOR_H_
