// SPDX-License-Identifier: Apache-2.0
//
// `Split(value, f)` calls `f` with the members of an aggregate, arrays in it
// undivided, without anybody having listed them.
//
//   struct Switch { int32_t id; bool on[3]; };
//   static_assert(CountMembers<Switch>() == 2);
//   Split(a_switch, [](const int32_t& id, const bool (&on)[3]) { ... });
//
// A bit field has no address, so `f` is given a copy of it: who needs to know
// compares addresses. What has a base, a union without a name, a
// std::tuple_size or too many members is not split; CountMembers() is 0 then.

#ifndef COHORT_SERIALIZE_INTERNAL_SPLIT_H_
#define COHORT_SERIALIZE_INTERNAL_SPLIT_H_

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cohort/serialize/internal/members.h"

namespace cohort::serialize_internal {

// As many as Split() has cases for.
inline constexpr size_t kMostSplit = 16;

// For HasMember(): what a structured binding cannot be made for.
template <class A>
struct CannotBind {
  template <class M>
  static constexpr std::string_view Name() {
    return __PRETTY_FUNCTION__;
  }
  template <class M>
  static constexpr bool Finds() {
    if constexpr (std::is_reference_v<M>) {
      return true;
    } else if constexpr (std::is_class_v<M>) {
      // GCC and Clang spell members without a name so, in this order.
      return std::is_base_of_v<M, A> ||
             Name<M>().find("<unnamed ") != std::string_view::npos ||
             Name<M>().find("(unnamed ") != std::string_view::npos ||
             Name<M>().find("(anonymous struct") != std::string_view::npos;
    } else {
      return std::is_union_v<M>;
    }
  }
};

// A{anything * before, {anything * within}, anything * behind}.
template <class A, size_t... B, size_t... W, size_t... H>
constexpr bool TakesGroup(std::index_sequence<B...>, std::index_sequence<W...>,
                          std::index_sequence<H...>) {
  return requires {
    A{Each<Anything<A>, B>{}...,
      {Each<Anything<A>, W>{}...},
      Each<Anything<A>, H>{}...};
  };
}
template <class A, size_t before, size_t within, size_t behind>
constexpr bool TakesGroup() {
  return TakesGroup<A>(Times<before>(), Times<within>(), Times<behind>());
}

// How many initializers A takes without braces around arrays.
template <class A, size_t At = 0>
constexpr size_t CountInitializers() {
  if constexpr (At <= 2 * kMostSplit &&
                Takes<A, Anything<A>>(Times<At + 1>(), Times<0>())) {
    return CountInitializers<A, At + 1>();
  } else {
    return At;
  }
}

// How many of `all` initializers the member takes that begins at `at`: more
// than one for an array. A group of them in braces leaves an array nothing to
// take, while another class would have been content with one.
template <class A, size_t all, size_t at, size_t size = 2>
constexpr size_t InitializersOf() {
  if constexpr (at + size > all || !TakesGroup<A, at, size, 0>()) {
    return 1;
  } else if constexpr (TakesGroup<A, at, size, all - at - size>() &&
                       !TakesGroup<A, at, size, all - at - size + 1>() &&
                       !TakesGroup<A, at, size + 1, 0>()) {
    return size;
  } else {
    return InitializersOf<A, all, at, size + 1>();
  }
}

template <class A, size_t all, size_t at = 0>
constexpr size_t CountFrom() {
  if constexpr (at >= all) {
    return 0;
  } else {
    return 1 + CountFrom<A, all, at + InitializersOf<A, all, at>()>();
  }
}

// The number of members of A; 0 if A is not to be split.
template <class A>
constexpr size_t CountMembers() {
  if constexpr (!std::is_aggregate_v<A> || std::is_empty_v<A> ||
                std::is_union_v<A> || std::is_array_v<A> ||
                requires { std::tuple_size<A>::value; } ||
                HasMember<A, CannotBind<A>>()) {
    return 0;
  } else {
    constexpr size_t kAll = CountInitializers<A>();
    if constexpr (kAll > 2 * kMostSplit) {
      return 0;
    } else {
      constexpr size_t kCount = CountFrom<A, kAll>();
      return kCount <= kMostSplit ? kCount : 0;
    }
  }
}

// Requires CountMembers<A>() != 0.
template <class A, class F>
constexpr decltype(auto) Split(const A& value, F f) {
  constexpr size_t kCount = CountMembers<A>();
  static_assert(kCount != 0);
  // clang-format off
  if constexpr (kCount == 1) {
    const auto& [a] = value;
    return f(a);
  } else if constexpr (kCount == 2) {
    const auto& [a, b] = value;
    return f(a, b);
  } else if constexpr (kCount == 3) {
    const auto& [a, b, c] = value;
    return f(a, b, c);
  } else if constexpr (kCount == 4) {
    const auto& [a, b, c, d] = value;
    return f(a, b, c, d);
  } else if constexpr (kCount == 5) {
    const auto& [a, b, c, d, e] = value;
    return f(a, b, c, d, e);
  } else if constexpr (kCount == 6) {
    const auto& [a, b, c, d, e, g] = value;
    return f(a, b, c, d, e, g);
  } else if constexpr (kCount == 7) {
    const auto& [a, b, c, d, e, g, h] = value;
    return f(a, b, c, d, e, g, h);
  } else if constexpr (kCount == 8) {
    const auto& [a, b, c, d, e, g, h, i] = value;
    return f(a, b, c, d, e, g, h, i);
  } else if constexpr (kCount == 9) {
    const auto& [a, b, c, d, e, g, h, i, j] = value;
    return f(a, b, c, d, e, g, h, i, j);
  } else if constexpr (kCount == 10) {
    const auto& [a, b, c, d, e, g, h, i, j, k] = value;
    return f(a, b, c, d, e, g, h, i, j, k);
  } else if constexpr (kCount == 11) {
    const auto& [a, b, c, d, e, g, h, i, j, k, l] = value;
    return f(a, b, c, d, e, g, h, i, j, k, l);
  } else if constexpr (kCount == 12) {
    const auto& [a, b, c, d, e, g, h, i, j, k, l, m] = value;
    return f(a, b, c, d, e, g, h, i, j, k, l, m);
  } else if constexpr (kCount == 13) {
    const auto& [a, b, c, d, e, g, h, i, j, k, l, m, n] = value;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n);
  } else if constexpr (kCount == 14) {
    const auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o] = value;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o);
  } else if constexpr (kCount == 15) {
    const auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p] = value;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p);
  } else {
    const auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q] = value;
    return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q);
  }
  // clang-format on
}

}  // namespace cohort::serialize_internal

#endif  // COHORT_SERIALIZE_INTERNAL_SPLIT_H_
