// SPDX-License-Identifier: Apache-2.0
//
// `cohort_testing::LeakLedger` writes down what the process holds of the system
// (descriptors, shared mappings, children, threads, names in /dev/shm) and says
// later what has come on top.
//
//   class QueueTest : public ::testing::Test {
//     cohort_testing::LeakGuard guard_;     // fails the test that leaks
//   };
//
//   LeakLedger before;
//   { auto queue = Queue<int>::Create(); }
//   EXPECT_TRUE(before.Check());
//
// It sees what outlives the objects of a test, not memory; for that build with
// AddressSanitizer.

#ifndef COHORT_TESTING_LEAK_LEDGER_H_
#define COHORT_TESTING_LEAK_LEDGER_H_

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "gtest/gtest.h"

namespace cohort_testing {

struct LeakLedgerOptions {
  // Only names in /dev/shm that contain this count: other programs use it too.
  std::string shm_name_part = "cohort";
  // How long Check() waits for what is just going away, such as a joined thread
  // that the kernel has not yet taken off its list. Costs nothing where nothing
  // leaks.
  std::chrono::milliseconds patience = std::chrono::seconds(2);
};

class LeakLedger final {
 public:
  explicit LeakLedger(LeakLedgerOptions options = {});

  // Whether nothing is there that was not there at construction. The message
  // lists what is: "descriptor 7 -> /memfd:queue (deleted)". What has gone
  // since is no leak.
  ::testing::AssertionResult Check() const;

 private:
  // "descriptor 7 -> socket:[123]" -> how many of them.
  using Snapshot = std::map<std::string, int>;
  Snapshot Take() const;

  LeakLedgerOptions options_;
  Snapshot before_;
};

// A ledger that checks itself at its end. Declare it first, so that it is
// destroyed last.
class LeakGuard final {
 public:
  explicit LeakGuard(LeakLedgerOptions options = {})
      : ledger_(std::move(options)) {}
  ~LeakGuard() { EXPECT_TRUE(ledger_.Check()); }
  LeakGuard(const LeakGuard&) = delete;
  LeakGuard& operator=(const LeakGuard&) = delete;

 private:
  LeakLedger ledger_;
};

}  // namespace cohort_testing

#endif  // COHORT_TESTING_LEAK_LEDGER_H_
