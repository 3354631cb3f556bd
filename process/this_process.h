// SPDX-License-Identifier: Apache-2.0
//
// What the running process is called: for log lines and error messages.
//
//   std::cerr << cohort::this_process::Name() << ": " << status << "\n";
//
// Contract
//   Placement:      functions; no object.
//   Thread-safety:  any thread, once main runs.
//   Process-safety: each process has a name of its own.
//   Fork-safety:    a copy made by fork(2) keeps its parent's; a child made by
//                   Process::Start has its own before its function runs.
//   Crash-safety:   no shared state.
//   Signal-safety:  none.
//   Errors:         none.
//   Ordering:       none.
//   Cost:           a load.
//   Reference:      current_process().name of Python's multiprocessing.

#ifndef COHORT_PROCESS_THIS_PROCESS_H_
#define COHORT_PROCESS_THIS_PROCESS_H_

#include <string>

namespace cohort::this_process {

// "main" in the program itself; in a child, `ProcessOptions::name`.
const std::string& Name();

// True iff this process runs a function that Process::Start was given.
bool IsChild();

}  // namespace cohort::this_process

namespace cohort::process_internal {

// Makes this process the child called `name`. Before it has a second thread.
void BecomeChild(const std::string& name);

}  // namespace cohort::process_internal

#endif  // COHORT_PROCESS_THIS_PROCESS_H_
