// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Sharable<T>` says whether a T can lie in memory that several
// processes map, each at another address. Where it cannot, `CheckSharable<T>()`
// stops the build with one sentence that names the mistake.
//
//   struct Board { cohort::Mutex mu; std::array<int64_t, 8> scores; };
//   static_assert(cohort::Sharable<Board>);
//   static_assert(!cohort::Sharable<std::string>);   // its text is elsewhere
//
//   template <class T>
//   void Publish() {
//     cohort::CheckSharable<T>();   // first in a body, never in a signature
//     ...
//
// What can be shared: numbers, enumerations, atomics without a lock of their
// own, everything of sync/, and arrays, pairs, tuples, optionals, variants,
// structs and classes of such. A T is never destroyed there, so it needs no
// destructor.
//
// The compiler looks for pointers among the first 24 members of an aggregate
// (each element of an array counts). What it cannot see, it takes for good:
// private members, and those of classes that have a constructor. So a class
// which knows what it does with a pointer of its own is not refused.

#ifndef COHORT_SHM_SHARABLE_H_
#define COHORT_SHM_SHARABLE_H_

#include <any>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <shared_mutex>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "cohort/serialize/internal/members.h"

namespace cohort {
namespace shm_internal {

// What keeps a type from being shared.
enum class Bar {
  kNone,
  kNoObject,
  kReference,
  kPointer,
  kView,
  kVirtual,
  kDestructor,
  kLocalLock,
  kHiddenLock,
  kAlignment,
  kHolds,
};

// Those of the standard library that work within one process.
template <class T>
inline constexpr bool kIsLocalLock =
    std::is_same_v<T, std::mutex> || std::is_same_v<T, std::timed_mutex> ||
    std::is_same_v<T, std::recursive_mutex> ||
    std::is_same_v<T, std::recursive_timed_mutex> ||
    std::is_same_v<T, std::shared_mutex> ||
    std::is_same_v<T, std::shared_timed_mutex> ||
    std::is_same_v<T, std::condition_variable> ||
    std::is_same_v<T, std::condition_variable_any> ||
    std::is_same_v<T, std::once_flag> || std::is_same_v<T, std::latch>;
template <std::ptrdiff_t n>
inline constexpr bool kIsLocalLock<std::counting_semaphore<n>> = true;

template <class T>
constexpr Bar FindBar();

// For serialize_internal::HasMember().
struct HasBar {
  template <class T>
  static constexpr bool Finds() {
    return FindBar<T>() != Bar::kNone;
  }
};

template <class... T>
constexpr Bar FindBarInParts() {
  return ((FindBar<T>() == Bar::kNone) && ...) ? Bar::kNone : Bar::kHolds;
}

// Of types that are known by name.
template <class T>
struct Inside {
  static constexpr Bar kBar =
      serialize_internal::HasMember<T, HasBar>() ? Bar::kHolds : Bar::kNone;
};
template <class A, class B>
struct Inside<std::pair<A, B>> {
  static constexpr Bar kBar = FindBarInParts<A, B>();
};
template <class... T>
struct Inside<std::tuple<T...>> {
  static constexpr Bar kBar = FindBarInParts<T...>();
};
template <class... T>
struct Inside<std::variant<T...>> {
  static constexpr Bar kBar = FindBarInParts<T...>();
};
template <class T>
struct Inside<std::optional<T>> {
  static constexpr Bar kBar = FindBarInParts<T>();
};
template <class T>
struct Inside<std::atomic<T>> {
  static constexpr Bar kBar = std::atomic<T>::is_always_lock_free
                                  ? FindBarInParts<T>()
                                  : Bar::kHiddenLock;
};

template <class T>
constexpr Bar FindBar() {
  if constexpr (std::is_reference_v<T>) {
    return Bar::kReference;
  } else if constexpr (std::is_void_v<T> || std::is_function_v<T> ||
                       std::is_unbounded_array_v<T>) {
    return Bar::kNoObject;
  } else if constexpr (std::is_const_v<T> || std::is_volatile_v<T>) {
    return FindBar<std::remove_cv_t<T>>();
  } else if constexpr (std::is_array_v<T>) {
    return FindBar<std::remove_all_extents_t<T>>();
  } else if constexpr (std::is_pointer_v<T> || std::is_null_pointer_v<T> ||
                       std::is_member_pointer_v<T>) {
    return Bar::kPointer;
  } else if constexpr (serialize_internal::kIsReferenceWrapper<T>) {
    return Bar::kReference;
  } else if constexpr (serialize_internal::kIsView<T>) {
    return Bar::kView;
  } else if constexpr (std::is_polymorphic_v<T>) {
    return Bar::kVirtual;
  } else if constexpr (kIsLocalLock<T>) {
    return Bar::kLocalLock;
  } else if constexpr (!std::is_trivially_destructible_v<T>) {
    return Bar::kDestructor;
  } else if constexpr (alignof(T) > 4096) {
    return Bar::kAlignment;
  } else {
    return Inside<T>::kBar;
  }
}

}  // namespace shm_internal

// Contract
//   Placement:      none: what this header says, it says to the compiler.
//   Thread-safety:  likewise.
//   Process-safety: a T that passes may lie at another address in each process.
//                   Whether they may use it at once, the T says.
//   Fork-safety:    nothing to fork.
//   Crash-safety:   nothing to lose.
//   Signal-safety:  nothing runs.
//   Errors:         `Sharable` is false; CheckSharable stops the build.
//   Ordering:       none.
//   Cost:           none at run time.
//   Reference:      Rust's marker traits Send and Sync.
template <class T>
concept Sharable = (shm_internal::FindBar<T>() == shm_internal::Bar::kNone);

namespace shm_internal {

template <Bar bar>
consteval void CheckBar() {
  static_assert(bar != Bar::kNoObject,
                "cohort: this is no object that memory could hold; of a length "
                "known at run time only, take a SharedArray");
  static_assert(bar != Bar::kReference,
                "cohort: a reference means nothing in another process; share "
                "the value it refers to");
  static_assert(bar != Bar::kPointer,
                "cohort: a pointer means nothing in another process; share the "
                "value itself, or an offset or an index");
  static_assert(bar != Bar::kView,
                "cohort: a view owns nothing, and what it looks at stays in "
                "this process; share a std::array or a SharedArray");
  static_assert(bar != Bar::kVirtual,
                "cohort: virtual functions are found through a pointer, which "
                "means nothing in another process; share a type without them");
  static_assert(bar != Bar::kDestructor,
                "cohort: an object in shared memory is never destroyed, so its "
                "type has no destructor of its own: no strings, containers or "
                "owners of anything");
  static_assert(bar != Bar::kLocalLock,
                "cohort: a lock of the standard library works within one "
                "process only; take its namesake of cohort/sync");
  static_assert(bar != Bar::kHiddenLock,
                "cohort: a std::atomic of this size has a lock that is private "
                "to each process; guard the value with a cohort::Mutex");
  static_assert(bar != Bar::kAlignment,
                "cohort: shared memory is aligned to a page of 4096 bytes, no "
                "more");
  static_assert(bar != Bar::kHolds,
                "cohort: a member of this type is a pointer, a reference, a "
                "view or something else that means nothing in another process; "
                "share values, offsets or indices");
}

}  // namespace shm_internal

// Stops the build, with the reason, unless T can be shared.
template <class T>
consteval void CheckSharable() {
  shm_internal::CheckBar<shm_internal::FindBar<T>()>();
}

}  // namespace cohort

#endif  // COHORT_SHM_SHARABLE_H_
