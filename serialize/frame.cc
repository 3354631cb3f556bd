// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/frame.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace cohort {

Frame::~Frame() { std::free(data_); }

Frame& Frame::operator=(Frame&& other) noexcept {
  if (this != &other) {
    std::free(data_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    descriptors_ = std::move(other.descriptors_);
    other.descriptors_.clear();
  }
  return *this;
}

void Frame::GrowBy(size_t count) {
  constexpr size_t kLargest = PTRDIFF_MAX;
  if (count > kLargest - size_) throw std::bad_alloc();
  Grow(std::max(
      {size_ + count, std::min(2 * capacity_, kLargest), size_t{128}}));
}

// realloc() lets the C library remap the pages of a large frame where
// operator new would copy them.
void Frame::Grow(size_t capacity) {
  void* data = std::realloc(data_, capacity);
  if (data == nullptr) throw std::bad_alloc();
  data_ = static_cast<char*>(data);
  capacity_ = capacity;
}

}  // namespace cohort
