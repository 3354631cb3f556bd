// SPDX-License-Identifier: Apache-2.0
//
// `cohort::OffsetPtr<T>` is a pointer that may stand in shared memory: it holds
// how far away its target is, not where, so it is right in every process, at
// whatever address each of them maps the memory.
//
//   struct Node {
//     int value = 0;
//     cohort::OffsetPtr<Node> next;
//   };
//   node->next = other;                     // both in the same memory
//   for (Node* n = first.get(); n != nullptr; n = n->next.get()) ...
//
// It is all that the containers of Boost.Container ask of a pointer; with
// ArenaAllocator (shm/arena_allocator.h) they live in an arena.
//
// A pointer that is followed is believed: whoever can write to the memory can
// send it anywhere. Between processes that do not trust each other, hand over
// BlockRefs (shm/arena.h), which are checked.

#ifndef COHORT_SHM_OFFSET_PTR_H_
#define COHORT_SHM_OFFSET_PTR_H_

#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <type_traits>

namespace cohort {

// OffsetPtr<T>
//
// |         | = pointer  | copied elsewhere | memory mapped      | its process |
// |         |            |                  | elsewhere          | dies        |
// |---------+------------+------------------+--------------------+-------------|
// | null    | points     | null             | null               | stays       |
// | pointing| points     | same target      | same target, if    | stays       |
// |         |            |                  | mapped with it     |             |
//
// Contract
//   Placement:      anywhere; 8 bytes, of which all zero are null. Its target
//                   must lie in the same mapping, or else it is valid in this
//                   process alone.
//   Thread-safety:  as a pointer.
//   Process-safety: as a pointer; guard it with a lock.
//   Fork-safety:    as its memory.
//   Crash-safety:   a store is one word: the old target or the new.
//   Signal-safety:  as a pointer.
//   Errors:         none; following null or a wild one is undefined.
//   Ordering:       none.
//   Cost:           an addition and a comparison on top of a pointer's.
//   Reference:      boost::interprocess::offset_ptr; [pointer.traits] of C++20.
template <typename T>
class OffsetPtr final {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using pointer = OffsetPtr;
  using reference = std::add_lvalue_reference_t<T>;
  using difference_type = ptrdiff_t;
  using iterator_category = std::random_access_iterator_tag;
  template <typename U>
  using rebind = OffsetPtr<U>;

  constexpr OffsetPtr() = default;
  // From nullptr, and from 0, too.
  OffsetPtr(T* target) { Set(target); }  // NOLINT: as a pointer.
  OffsetPtr(const OffsetPtr& other) { Set(other.get()); }
  // From what a U* becomes a T* by itself: to const, to void, to a base.
  template <typename U>
  requires std::convertible_to<U*, T*> OffsetPtr(  // NOLINT: as a pointer.
      const OffsetPtr<U>& other) {
    Set(other.get());
  }
  // And by a static_cast alone: from void, from a base.
  template <typename U>
  requires(!std::convertible_to<U*, T*> && requires(U * from) {
    static_cast<T*>(from);
  }) explicit OffsetPtr(const OffsetPtr<U>& other) {
    Set(static_cast<T*>(other.get()));
  }

  OffsetPtr& operator=(const OffsetPtr& other) {
    Set(other.get());
    return *this;
  }
  OffsetPtr& operator=(T* target) {
    Set(target);
    return *this;
  }

  // Where its target is, in this process.
  [[nodiscard]] T* get() const {
    if (distance_ == 0) return nullptr;
    // By numbers: a pointer may not leave the object that it was made of.
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(this) +
                                static_cast<uintptr_t>(distance_) -
                                (distance_ > 0 ? 1 : 0));
  }

  T* operator->() const { return get(); }
  template <typename U = T>
  requires(!std::is_void_v<U>) U& operator*() const { return *get(); }
  template <typename U = T>
  requires(!std::is_void_v<U>) U& operator[](difference_type index) const {
    return get()[index];
  }
  constexpr explicit operator bool() const { return distance_ != 0; }
  constexpr bool operator!() const { return distance_ == 0; }

  // What std::pointer_traits and those of Boost look for.
  template <typename U = T>
  requires(!std::is_void_v<U>) static OffsetPtr pointer_to(U& target) {
    return OffsetPtr(std::addressof(target));
  }
  static T* to_address(const OffsetPtr& from) { return from.get(); }
  template <typename U>
  static OffsetPtr static_cast_from(const OffsetPtr<U>& from) {
    return OffsetPtr(static_cast<T*>(from.get()));
  }
  template <typename U>
  static OffsetPtr const_cast_from(const OffsetPtr<U>& from) {
    return OffsetPtr(const_cast<T*>(from.get()));
  }
  template <typename U>
  static OffsetPtr dynamic_cast_from(const OffsetPtr<U>& from) {
    return OffsetPtr(dynamic_cast<T*>(from.get()));
  }

  // Arithmetic as that of a T*. Requires a T that is not void.
  OffsetPtr& operator+=(difference_type count) {
    Set(get() + count);
    return *this;
  }
  OffsetPtr& operator-=(difference_type count) { return *this += -count; }
  OffsetPtr& operator++() { return *this += 1; }
  OffsetPtr& operator--() { return *this += -1; }
  OffsetPtr operator++(int) {
    OffsetPtr before = *this;
    ++*this;
    return before;
  }
  OffsetPtr operator--(int) {
    OffsetPtr before = *this;
    --*this;
    return before;
  }
  friend OffsetPtr operator+(const OffsetPtr& from, difference_type count) {
    return OffsetPtr(from.get() + count);
  }
  friend OffsetPtr operator+(difference_type count, const OffsetPtr& from) {
    return OffsetPtr(from.get() + count);
  }
  friend OffsetPtr operator-(const OffsetPtr& from, difference_type count) {
    return OffsetPtr(from.get() - count);
  }
  friend difference_type operator-(const OffsetPtr& a, const OffsetPtr& b) {
    return a.get() - b.get();
  }

  template <typename U>
  friend bool operator==(const OffsetPtr& a, const OffsetPtr<U>& b) {
    return a.get() == b.get();
  }
  friend bool operator==(const OffsetPtr& a, const T* b) {
    return a.get() == b;
  }
  friend std::strong_ordering operator<=>(const OffsetPtr& a,
                                          const OffsetPtr& b) {
    return std::compare_three_way()(a.get(), b.get());
  }

 private:
  void Set(T* target) {
    const intptr_t distance =
        static_cast<intptr_t>(reinterpret_cast<uintptr_t>(target) -
                              reinterpret_cast<uintptr_t>(this));
    distance_ = target == nullptr ? 0 : distance + (distance >= 0 ? 1 : 0);
  }

  // Bytes to the target, plus 1 where that is not negative; 0 is null. So an
  // object may point to itself, as an empty list does.
  int64_t distance_ = 0;
};
static_assert(sizeof(OffsetPtr<int>) == 8, "shared ABI");

}  // namespace cohort

#endif  // COHORT_SHM_OFFSET_PTR_H_
