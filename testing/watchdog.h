// SPDX-License-Identifier: Apache-2.0
//
// The watchdog bounds the time of every test in a program that links this
// target
// (//testing:child brings it along). It needs no line of code. A test that
// takes longer than its limit is ended: standard error names the test and says
// in which system call each of its processes sleeps, the processes it started
// are killed, and the test itself gets SIGABRT.
//
//   TEST(QueueTest, TakesItsTime) {
//     cohort_testing::TimeLimit limit(std::chrono::minutes(10));   // till here
//     ...
//   }
//
// The limit is COHORT_TEST_SECONDS for each test; without that, 120 s or
// Bazel's limit for the whole program (TEST_TIMEOUT), if that is more. The
// program must end 5 s before Bazel's limit in any case: Bazel's own message
// would say nothing. The watchdog is a process of its own, no child of the test
// and no thread in it: it works when the test is stopped or blocks every
// signal, and fork(2) stays the fork of a single-threaded program.

#ifndef COHORT_TESTING_WATCHDOG_H_
#define COHORT_TESTING_WATCHDOG_H_

#include <chrono>
#include <cstdint>

namespace cohort_testing {

// Replaces the limit of the running test, counted from now, until the object's
// end; then the earlier limit holds again. It does not move Bazel's limit.
class [[nodiscard]] TimeLimit final {
 public:
  explicit TimeLimit(std::chrono::nanoseconds limit);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;

 private:
  int64_t earlier_;
};

}  // namespace cohort_testing

#endif  // COHORT_TESTING_WATCHDOG_H_
