// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Frame` is a message at rest: a run of bytes and the descriptors that
// travel beside them. Codecs fill frames, carriers (start arguments, sockets,
// queues) move them; neither needs to know the other.
//
//   cohort::Frame frame;
//   frame.Append("hello");
//   frame.descriptors().push_back(*std::move(log_file));
//   Transmit(frame.bytes(), frame.descriptors());
//   frame.Clear();                    // the next message reuses the memory
//
// Growing never zeroes bytes that are about to be overwritten, and a cleared
// frame keeps its memory; that is what sets it apart from a `std::string`,
// which is the better choice for text.

#ifndef COHORT_SERIALIZE_FRAME_H_
#define COHORT_SERIALIZE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "cohort/os/descriptor.h"

namespace cohort {

// The version of docs/formats/wire.md, changed with whatever changes there. Who
// talks to a program that may be of another build sends it first (WireVersion,
// serialize/codec.h). Below 2^16.
inline constexpr uint32_t kWireVersion = 2;

// Frame
//
// Contract
//   Placement:      anywhere but shared memory: it owns heap memory.
//   Thread-safety:  as a std::vector: one writer, or any number of readers.
//   Process-safety: none; what crosses is its content.
//   Fork-safety:    a child has a copy of the bytes and duplicates of the
//                   descriptors, and may use or destroy both.
//   Crash-safety:   the kernel closes the descriptors with the process.
//   Signal-safety:  none.
//   Errors:         memory that runs out throws std::bad_alloc, which the codec
//                   turns into ResourceExhausted.
//   Ordering:       none.
//   Cost:           three words for the bytes, three for the descriptors; no
//                   allocation until the first byte; growth doubles.
//   Reference:      docs/design/serialize.md.
class Frame final {
 public:
  Frame() = default;

  // Holds a copy of `bytes`.
  explicit Frame(std::string_view bytes) { Append(bytes); }

  Frame(Frame&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)),
        descriptors_(std::move(other.descriptors_)) {
    other.descriptors_.clear();
  }
  Frame& operator=(Frame&& other) noexcept;
  ~Frame();

  // Valid until the frame grows, moves or ends.
  [[nodiscard]] std::string_view bytes() const { return {data_, size_}; }
  [[nodiscard]] char* data() { return data_; }
  [[nodiscard]] const char* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }

  // The descriptors, which the frame owns. Taking some, or all, is the way to
  // hand them on.
  [[nodiscard]] std::vector<os::Descriptor>& descriptors() {
    return descriptors_;
  }
  [[nodiscard]] const std::vector<os::Descriptor>& descriptors() const {
    return descriptors_;
  }

  // Makes room for `capacity` bytes in all.
  void Reserve(size_t capacity) {
    if (capacity > capacity_) Grow(capacity);
  }

  // Adds `count` bytes with indeterminate content and returns the first. What
  // arrives from elsewhere is read straight into them.
  char* Extend(size_t count) {
    if (count > capacity_ - size_) [[unlikely]]
      GrowBy(count);
    char* first = data_ + size_;
    size_ += count;
    return first;
  }

  void Append(std::string_view bytes) {
    if (!bytes.empty()) {
      std::memcpy(Extend(bytes.size()), bytes.data(), bytes.size());
    }
  }

  // Forgets the bytes from `size` on. Requires size <= this->size().
  void Truncate(size_t size) { size_ = size; }

  // Empties it: closes the descriptors, keeps the memory.
  void Clear() {
    size_ = 0;
    descriptors_.clear();
  }

 private:
  void GrowBy(size_t count);
  void Grow(size_t capacity);

  char* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
  std::vector<os::Descriptor> descriptors_;
};

}  // namespace cohort

#endif  // COHORT_SERIALIZE_FRAME_H_
