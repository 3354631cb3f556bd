// SPDX-License-Identifier: Apache-2.0
//
// Ends the program where its own code is wrong: one line on stderr, then
// abort(). For what the world can do to a correct program, return the status of
// os/status.h instead.
//
//   os::Check(size <= kMaxSize, "ring: the record is larger than the ring");

#ifndef COHORT_OS_CHECK_H_
#define COHORT_OS_CHECK_H_

namespace cohort::os {

// Writes "cohort: MESSAGE\n" to stderr by one write(2) and aborts. The line is
// cut at 500 bytes. Async-signal-safe; allocates nothing.
[[noreturn]] void Fatal(const char* message);

// Calls Fatal(message) unless `ok`. `message` says what the caller did wrong.
inline void Check(bool ok, const char* message) {
  if (!ok) [[unlikely]] {
    Fatal(message);
  }
}

}  // namespace cohort::os

#endif  // COHORT_OS_CHECK_H_
