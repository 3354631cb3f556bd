// SPDX-License-Identifier: Apache-2.0
//
// `OrDie` unwraps a status in examples, tests and small programs: it returns
// the value, or ends the program with the file, the line and the status.
//
//   cohort::ProcessPool pool = cohort::OrDie(cohort::ProcessPool::Create());
//
// A library or a server returns the `absl::Status` instead.

#ifndef COHORT_OS_OR_DIE_H_
#define COHORT_OS_OR_DIE_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cohort {
namespace os {

// Prints "FILE:LINE: STATUS" on one line of stderr and aborts.
[[noreturn]] void DieBecause(const absl::Status& status, const char* file,
                             int line);

}  // namespace os

inline void OrDie(const absl::Status& status,
                  const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (!status.ok()) os::DieBecause(status, file, line);
}

template <typename T>
T OrDie(absl::StatusOr<T> value, const char* file = __builtin_FILE(),
        int line = __builtin_LINE()) {
  if (!value.ok()) os::DieBecause(value.status(), file, line);
  return *std::move(value);
}

}  // namespace cohort

#endif  // COHORT_OS_OR_DIE_H_
