// SPDX-License-Identifier: Apache-2.0
//
// `cohort_testing::Gate` blocks processes until it is opened, once and for all.
// It lies in shared memory; all-zero bytes are a closed gate.
//
//   cohort_testing::Shared<cohort_testing::Gate> gate;
//   Child child = Child::Fork([&] { gate->Pass(); return 0; });
//   gate->Open();

#ifndef COHORT_TESTING_GATE_H_
#define COHORT_TESTING_GATE_H_

#include <atomic>
#include <cstdint>

#include "cohort/os/deadline.h"

namespace cohort_testing {

class Gate final {
 public:
  // Blocks until the gate is open; with `until`, no longer than that.
  void Pass(cohort::Deadline until = cohort::Deadline::Infinite());

  void Open();

 private:
  std::atomic<uint32_t> open_ = 0;
};

}  // namespace cohort_testing

#endif  // COHORT_TESTING_GATE_H_
