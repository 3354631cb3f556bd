// SPDX-License-Identifier: Apache-2.0
//
// `cohort_testing::Shared<T>` is a `T` that a test and the children it forks
// see alike: zero-filled bytes of shared anonymous memory, without a name, gone
// when the last process that has them is gone.
//
//   struct Counter { std::atomic<int> hits; };
//   cohort_testing::Shared<Counter> counter;            // all bytes are zero
//   cohort_testing::Shared<Clock> clock(std::in_place, 7);   // constructed
//   cohort_testing::Shared<char[]> ring(1 << 16);       // a span of bytes
//
//   Child::Fork([&] { counter->hits = 1; }).Wait();
//   EXPECT_EQ(counter->hits, 1);
//
// No constructor runs without `std::in_place`, and no destructor ever: a type
// that says "all-zero bytes are a valid object" is taken at its word, and a
// type with other initial values starts at zero all the same. Outside of tests
// take shm/shared.h, which checks layouts and can be handed to unrelated
// programs.

#ifndef COHORT_TESTING_SHARED_H_
#define COHORT_TESTING_SHARED_H_

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace cohort_testing {
namespace testing_internal {

// Zero-filled pages, shared with children; unmapped at the end. Running out of
// memory ends the test with a message.
class SharedPages final {
 public:
  explicit SharedPages(std::size_t size);
  SharedPages(SharedPages&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  SharedPages& operator=(SharedPages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~SharedPages();

  void* data() const { return data_; }

 private:
  void* data_;
  std::size_t size_;
};

}  // namespace testing_internal

// One `T`. It points, so a const `Shared<T>` still gives a mutable `T`.
template <typename T>
class Shared final {
 public:
  // Zero-filled; T's constructor does not run.
  Shared() : pages_(sizeof(T)) {}

  // Constructs the object from `args` in the zero-filled memory.
  template <typename... Args>
  explicit Shared(std::in_place_t, Args&&... args) : Shared() {
    ::new (pages_.data()) T(std::forward<Args>(args)...);
  }

  T* get() const { return std::launder(static_cast<T*>(pages_.data())); }
  T* operator->() const { return get(); }
  T& operator*() const { return *get(); }

 private:
  testing_internal::SharedPages pages_;
};

// `count` values of type `T` in a row, zero-filled, aligned to a page.
template <typename T>
class Shared<T[]> final {
 public:
  explicit Shared(std::size_t count)
      : pages_(count * sizeof(T)), count_(count) {}

  T* data() const { return static_cast<T*>(pages_.data()); }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t index) const { return data()[index]; }
  std::span<T> span() const { return {data(), count_}; }

 private:
  testing_internal::SharedPages pages_;
  std::size_t count_;
};

}  // namespace cohort_testing

#endif  // COHORT_TESTING_SHARED_H_
