// SPDX-License-Identifier: Apache-2.0
//
// Names of signals, and threads that none of them reaches.
//
//   os::SignalName(9)                         // "SIGKILL"
//   { os::BlockedSignals none; thread = std::thread(Work); }

#ifndef COHORT_OS_SIGNALS_H_
#define COHORT_OS_SIGNALS_H_

#include <csignal>
#include <string>

namespace cohort::os {

// "SIGKILL"; "signal 64" for one without a name.
std::string SignalName(int signal);

// While it lives, the calling thread receives no signal, and neither do threads
// that it starts, ever: the program's handlers run in the program's threads.
class BlockedSignals final {
 public:
  BlockedSignals();
  ~BlockedSignals();
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace cohort::os

#endif  // COHORT_OS_SIGNALS_H_
