// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ArenaAllocator<T>` makes a container live in an arena (shm/arena.h),
// as a part of one of its named objects. Its pointers are OffsetPtrs, so the
// container is the same one in every process, at whatever address.
//
//   template <typename T>
//   using Vector = boost::container::vector<T, cohort::ArenaAllocator<T>>;
//
//   struct Log {
//     explicit Log(cohort::ArenaAllocator<void> in) : lines(in) {}
//     cohort::Mutex mu;
//     Vector<int> lines ABSL_GUARDED_BY(mu);
//   };
//   absl::StatusOr<Log*> log = arena.FindOrConstruct<Log>("log");
//   if (!log.ok()) return log.status();
//   cohort::MutexLock lock((*log)->mu);
//   (*log)->lines.push_back(1);
//
// It comes from the arena alone, as the last argument of the object's
// constructor, and from containers (get_allocator()). All it allocates belongs
// to the object and goes with it.
//
// A process that dies in the middle of push_back() leaves the container torn:
// perhaps without an element that has been moved out, perhaps with a block that
// nothing refers to. Nobody can mend that; but the Mutex above says `poisoned`
// to the next one, who clears the object and makes the container anew:
//
//   cohort::MutexLock lock(log->mu, [&] {      // to throw leaves the poison
//     auto in = arena.Clear("log").value();     // all blocks of the old one
//     std::construct_at(&log->lines, in);
//   });
//
// The containers of the standard library will not do, except for std::vector:
// they keep plain pointers inside. Boost.Container has what is missing, strings
// too; what is in a container allocates from the same arena:
//
//   using String = boost::container::basic_string<char, std::char_traits<char>,
//                                                 cohort::ArenaAllocator<char>>;
//   Vector<String> names(in);
//   names.emplace_back("one", names.get_allocator());

#ifndef COHORT_SHM_ARENA_ALLOCATOR_H_
#define COHORT_SHM_ARENA_ALLOCATOR_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

#include "cohort/os/check.h"
#include "cohort/shm/internal/arena_heap.h"
#include "cohort/shm/offset_ptr.h"

namespace cohort {

namespace shm_internal {

// A container that allocates from the heap of one process, or has such a one in
// it.
template <typename T>
constexpr bool KeepsOnHeap() {
  if constexpr (requires { typename T::allocator_type::value_type; }) {
    using Allocator = typename T::allocator_type;
    return std::is_same_v<Allocator,
                          std::allocator<typename Allocator::value_type>> ||
           KeepsOnHeap<typename T::value_type>();
  } else if constexpr (requires {
                         typename T::first_type;
                         typename T::second_type;
                       }) {
    return KeepsOnHeap<std::remove_cv_t<typename T::first_type>>() ||
           KeepsOnHeap<std::remove_cv_t<typename T::second_type>>();
  } else {
    return false;
  }
}

template <typename T>
consteval void CheckKeepsNothingOnHeap() {
  static_assert(!KeepsOnHeap<T>(),
                "cohort: this container keeps what is in it on the heap of one "
                "process; give it an ArenaAllocator");
}

}  // namespace shm_internal

// ArenaAllocator<T>
//
// |              | allocate()         | deallocate()     | a process dies that |
// |              |                    |                  | has allocated       |
// |--------------+--------------------+------------------+---------------------|
// | object lives | a block of its     | the block is     | the block stays the |
// |              | own; bad_alloc     | free             | object's            |
// | object ended | bad_alloc          | fatal, or frees  | --                  |
// |              |                    | a successor's    |                     |
//
// Contract
//   Placement:      in the arena, as a member of a container; or in private
//                   memory, for as long as the arena stays mapped. 16 bytes.
//   Thread-safety:  every member; the container as it says.
//   Process-safety: likewise.
//   Fork-safety:    works in the child.
//   Crash-safety:   each block is the object's from its first moment on, so none
//                   is lost, whatever instruction a process dies at.
//   Signal-safety:  none.
//   Errors:         allocate() throws std::bad_alloc where the arena is full and
//                   where the object has ended. Freeing what is not the object's
//                   is fatal.
//   Ordering:       as the arena's.
//   Cost:           as Arena::Allocate() and Free().
//   Reference:      [allocator.requirements] of C++20; docs/design/arena.md.
template <typename T>
class ArenaAllocator {  // Not final: containers derive from it.
 public:
  using value_type = T;
  using pointer = OffsetPtr<T>;
  using const_pointer = OffsetPtr<const T>;
  using void_pointer = OffsetPtr<void>;
  using const_void_pointer = OffsetPtr<const void>;
  using size_type = size_t;
  using difference_type = ptrdiff_t;
  template <typename U>
  struct rebind {
    using other = ArenaAllocator<U>;
  };

  ArenaAllocator(const ArenaAllocator&) = default;
  ArenaAllocator& operator=(const ArenaAllocator&) = default;
  template <typename U>
  ArenaAllocator(const ArenaAllocator<U>& other)  // NOLINT: as allocators do.
      : heap_(other.heap_), object_(other.object_) {
    shm_internal::CheckKeepsNothingOnHeap<T>();
  }

  [[nodiscard]] pointer allocate(size_type count) {
    static_assert(alignof(T) <= shm_internal::ArenaHeap::kMaxAlignment);
    if (count > max_size()) throw std::bad_alloc();
    const shm_internal::ArenaHeap::Taken taken =
        Heap().Take(count * sizeof(T), alignof(T),
                    shm_internal::BlockState::kObject, object_);
    if (taken.end != shm_internal::HeapEnd::kDone) throw std::bad_alloc();
    return pointer(reinterpret_cast<T*>(taken.bytes));
  }

  void deallocate(const pointer& block, size_type /*count*/) {
    os::Check(
        Heap().FreeOf(object_, block.get()) == shm_internal::HeapEnd::kDone,
        "an ArenaAllocator was given back a block that is not its "
        "object's; was the object destroyed while in use?");
  }

  [[nodiscard]] size_type max_size() const {
    return std::numeric_limits<ptrdiff_t>::max() / sizeof(T);
  }

  // True iff what the one allocates the other may free.
  template <typename U>
  friend bool operator==(const ArenaAllocator& a, const ArenaAllocator<U>& b) {
    return a.SameAs(b);
  }

 private:
  template <typename U>
  friend class ArenaAllocator;
  friend class Arena;

  ArenaAllocator(std::byte* heap, uint64_t object)
      : heap_(heap), object_(object) {}

  shm_internal::ArenaHeap Heap() const {
    return shm_internal::ArenaHeap::At(heap_.get());
  }
  template <typename U>
  bool SameAs(const ArenaAllocator<U>& other) const {
    return heap_ == other.heap_ && object_ == other.object_;
  }

  OffsetPtr<std::byte> heap_;
  uint64_t object_;  // Its id in there.
};

// Allocates nothing; becomes an allocator of any other type.
template <>
class ArenaAllocator<void> {
 public:
  using value_type = void;
  using pointer = OffsetPtr<void>;
  template <typename U>
  struct rebind {
    using other = ArenaAllocator<U>;
  };

  template <typename U>
  ArenaAllocator(const ArenaAllocator<U>& other)  // NOLINT: as allocators do.
      : heap_(other.heap_), object_(other.object_) {}

 private:
  template <typename U>
  friend class ArenaAllocator;
  friend class Arena;

  ArenaAllocator(std::byte* heap, uint64_t object)
      : heap_(heap), object_(object) {}

  OffsetPtr<std::byte> heap_;
  uint64_t object_;
};

}  // namespace cohort

#endif  // COHORT_SHM_ARENA_ALLOCATOR_H_
