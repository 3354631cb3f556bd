// SPDX-License-Identifier: Apache-2.0
//
// Random SIGKILL for as long as one asks: workers run, one of them is killed
// in an irregular rhythm and at once replaced, until time is over.
//
//   ChaosReport report = KillAtRandom({
//       [&](const Worker& self) { while (!self.Stopping()) PutOne(*queue); },
//       [&](const Worker& self) { while (!self.Stopping()) GetOne(*queue); }});
//   EXPECT_EQ(report.failures, 0) << report;
//   EXPECT_EQ(CountMissing(*ledger), 0);   // the invariant is the caller's
//
// The rhythm comes from a seed, which is printed; COHORT_STRESS_SEED sets it.
// Unlike testing/kill_stepper.h this finds what happens inside system calls and
// between several processes at full speed, but it proves nothing by passing.

#ifndef COHORT_TESTING_STRESS_H_
#define COHORT_TESTING_STRESS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace cohort_testing {

// How long a stress test runs: the environment variable COHORT_STRESS_SECONDS
// (a decimal number), or 2 s.
std::chrono::milliseconds StressSeconds();

// What the body of a worker knows about itself.
class Worker final {
 public:
  // Whether time is over. A body returns soon after this has become true.
  bool Stopping() const;

  int index() const { return index_; }                  // In the list, from 0.
  int64_t incarnation() const { return incarnation_; }  // 0, then one per kill.

 private:
  friend class Chaos;
  Worker(int index, int64_t incarnation, const void* control)
      : index_(index), incarnation_(incarnation), control_(control) {}

  int index_;
  int64_t incarnation_;
  const void* control_;
};

struct ChaosOptions {
  // How long to kill.
  std::chrono::milliseconds duration = StressSeconds();
  // The mean time between two kills; each pause is drawn between 0 and twice
  // of it.
  std::chrono::microseconds rhythm = std::chrono::milliseconds(2);
  // Of the random numbers; 0 takes COHORT_STRESS_SEED or, without it, the
  // clock.
  uint64_t seed = 0;
  // Workers that do not return within this time after the end are a failure.
  std::chrono::milliseconds patience = std::chrono::seconds(20);
  // Time is over early after this many failures.
  int64_t max_failures = 10;
  // How a worker dies. With SIGSTOP it is stopped for a moment, not killed.
  int signal = 9;
};

struct ChaosReport {
  int64_t kills = 0;
  // Workers that ended by themselves with another status than 0, or before time
  // was over, or did not return after it.
  int64_t failures = 0;
  std::vector<std::string> messages;
  uint64_t seed = 0;

  friend std::ostream& operator<<(std::ostream& out, const ChaosReport& report);
};

// Runs one process per body and kills among them as described above. When time
// is over, the workers finish in peace; then the function returns. Prints one
// line of figures.
ChaosReport KillAtRandom(
    const std::vector<std::function<void(const Worker&)>>& bodies,
    const ChaosOptions& options = {});

}  // namespace cohort_testing

#endif  // COHORT_TESTING_STRESS_H_
