// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ResultOf<R>` says what the caller of a function that returns R gets,
// where the call itself can fail too.
//
//   template <class Fn>
//   typename ResultOf<std::invoke_result_t<Fn&>>::type CallThere(Fn& fn);
//
// So that nobody has to unpack a StatusOr<StatusOr<int>>.

#ifndef COHORT_SERIALIZE_RESULT_OF_H_
#define COHORT_SERIALIZE_RESULT_OF_H_

#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cohort {

// void and absl::Status become absl::Status, T and absl::StatusOr<T> become
// absl::StatusOr<T>, and a reference becomes a copy of what it refers to.
// `value` is that T, or void.
//
// Contract
//   Placement:      none: what this header says, it says to the compiler.
//   Thread-safety:  likewise.
//   Process-safety: likewise.
//   Fork-safety:    nothing to fork.
//   Crash-safety:   nothing to lose.
//   Signal-safety:  nothing runs.
//   Errors:         none.
//   Ordering:       none.
//   Cost:           none at run time.
//   Reference:      Rust's Result::and_then().
template <class R>
struct ResultOf {
  using type = absl::StatusOr<R>;
  using value = R;
};
template <class R>
requires(std::is_reference_v<R> || std::is_const_v<R>) struct ResultOf<R>
    : ResultOf<std::remove_cvref_t<R>> {
};
template <>
struct ResultOf<void> {
  using type = absl::Status;
  using value = void;
};
template <>
struct ResultOf<absl::Status> : ResultOf<void> {};
template <class T>
struct ResultOf<absl::StatusOr<T>> : ResultOf<T> {};

}  // namespace cohort

#endif  // COHORT_SERIALIZE_RESULT_OF_H_
