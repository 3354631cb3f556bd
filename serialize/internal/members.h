// SPDX-License-Identifier: Apache-2.0
//
// `HasMember<T, Judge>()` says whether the aggregate T has a member, an element
// of an array in it included, that a judge finds something in.
//
//   struct IsPointer {
//     template <class M>
//     static constexpr bool Finds() { return std::is_pointer_v<M>; }
//   };
//   struct Link { int id; Link* next; };
//   static_assert(HasMember<Link, IsPointer>());
//
// A member that is a reference is shown to the judge as one. What is no
// aggregate (it has private members, a base with a constructor, a constructor)
// is not looked into. A judge that should look into aggregates below T calls
// this itself.
//
// Below it, the types that one can tell by name to hold what is elsewhere.

#ifndef COHORT_SERIALIZE_INTERNAL_MEMBERS_H_
#define COHORT_SERIALIZE_INTERNAL_MEMBERS_H_

#include <cstddef>
#include <exception>
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace cohort::serialize_internal {

// Stand-ins for the initializers of the aggregate A. `Anything` becomes a value
// of any type, `Found` only one that the judge finds something in.
template <class A>
struct Anything {
  template <class M>
  // NOLINTNEXTLINE(google-explicit-constructor): that is its purpose.
  requires(!std::is_same_v<std::remove_cv_t<M>, A>) operator M()
      const noexcept {
    std::terminate();
  }
};
template <class M, class A, class Judge>
constexpr bool Finds() {
  if constexpr (std::is_same_v<std::remove_cv_t<M>, A>) {
    return false;
  } else {
    return Judge::template Finds<M>();
  }
}
template <class A, class Judge>
struct Found {
  template <class M>
  // NOLINTNEXTLINE(google-explicit-constructor): likewise.
  requires(Finds<M, A, Judge>()) operator M() const noexcept {
    std::terminate();
  }
};
// Two that tell of references: an object from elsewhere, which is not copied
// for what can only refer to it, and a value of a type without a default.
template <class A>
struct Elsewhere {
  template <class M>
  // NOLINTNEXTLINE(google-explicit-constructor): likewise.
  requires(!std::is_same_v<std::remove_cv_t<M>, A>) operator M&()
      const noexcept {
    std::terminate();
  }
};
template <class A>
struct NoDefault {
  template <class M>
  // NOLINTNEXTLINE(google-explicit-constructor): likewise.
  requires(!std::is_same_v<std::remove_cv_t<M>, A> &&
           !std::is_default_constructible_v<M>)
  operator M() const noexcept {
    std::terminate();
  }
};

template <class StandIn, size_t>
using Each = StandIn;

// Whether A can be made of so many of one kind, one of another, and so many of
// the first again.
template <class A, class StandIn, class... Other, size_t... I, size_t... J>
constexpr bool Takes(std::index_sequence<I...>, std::index_sequence<J...>) {
  return requires {
    A{Each<StandIn, I>{}..., Other{}..., Each<StandIn, J>{}...};
  };
}
template <size_t n>
using Times = std::make_index_sequence<n>;

// Each further member costs the compiler more.
inline constexpr size_t kMostMembers = 24;

// How many initializers A needs at least; more than `kMostMembers` if that is
// not to be found out.
template <class A, class StandIn, size_t n = 0>
constexpr size_t NeedOf() {
  if constexpr (n > kMostMembers || Takes<A, StandIn>(Times<n>(), Times<0>())) {
    return n;
  } else {
    return NeedOf<A, StandIn, n + 1>();
  }
}

// A reference among members that can all be copied, or a const one behind which
// nothing needs an initializer.
template <class A>
constexpr bool HasReference() {
  constexpr size_t need = NeedOf<A, Anything<A>>();
  if constexpr (need > kMostMembers) {
    return NeedOf<A, Elsewhere<A>>() <= kMostMembers;
  } else if constexpr (need > 0) {
    return !Takes<A, Anything<A>, NoDefault<A>>(Times<need - 1>(), Times<0>());
  } else {
    return false;
  }
}

template <class A, class Judge, size_t need, size_t at = 0>
constexpr bool HasValue() {
  constexpr size_t behind = need > at + 1 ? need - at - 1 : 0;
  if constexpr (at == kMostMembers) {
    return false;
  } else if constexpr (Takes<A, Anything<A>, Found<A, Judge>>(
                           Times<at>(), Times<behind>())) {
    return true;
  } else if constexpr (Takes<A, Anything<A>>(Times<at + 1>(),
                                             Times<behind>())) {
    return HasValue<A, Judge, need, at + 1>();
  } else {
    return false;
  }
}

template <class T, class Judge>
constexpr bool HasMember() {
  if constexpr (!std::is_aggregate_v<T> || std::is_empty_v<T>) {
    return false;
  } else if constexpr (HasReference<T>()) {
    return Judge::template Finds<int&>();
  } else {
    return HasValue<T, Judge, NeedOf<T, Anything<T>>()>();
  }
}

template <class T>
inline constexpr bool kIsView = false;
template <class C, class R>
inline constexpr bool kIsView<std::basic_string_view<C, R>> = true;
template <class T, size_t N>
inline constexpr bool kIsView<std::span<T, N>> = true;
template <class T>
inline constexpr bool kIsView<std::initializer_list<T>> = true;
template <class T>
inline constexpr bool kIsView<absl::Span<T>> = true;
template <>
inline constexpr bool kIsView<absl::string_view> = true;

template <class T>
inline constexpr bool kIsReferenceWrapper = false;
template <class T>
inline constexpr bool kIsReferenceWrapper<std::reference_wrapper<T>> = true;

}  // namespace cohort::serialize_internal

#endif  // COHORT_SERIALIZE_INTERNAL_MEMBERS_H_
