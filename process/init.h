// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Init` is the first line of main in every program that starts
// processes. A child that was started afresh (`StartMethod::kSpawn`) is the
// same program once more: it enters main, and leaves it for good in this call,
// in which it does what it was started for.
//
//   int main(int argc, char** argv) {
//     cohort::Init(argc, argv);
//     // From here on this is the program itself, never a child.
//   }
//
// What stands before the call, static constructors too, runs in every child
// again. In a program that never calls it, `Process::Start` refuses to work.
//
// Contract
//   Placement:      in main, before flags are parsed and threads are started.
//   Thread-safety:  none; call it while the program has one thread.
//   Process-safety: a child trusts its parent: whoever can start this program
//                   with a socket of its own as descriptor 3 chooses what runs,
//                   in a process that it owns already.
//   Fork-safety:    a forked copy counts as having called it.
//   Crash-safety:   a child whose parent dies before it has begun the user's
//                   function ends without running it.
//   Signal-safety:  none.
//   Errors:         a program started by hand with the marker of a child says
//                   so in one line on stderr and exits with code 2.
//   Ordering:       what the parent wrote before Process::Start is visible in
//                   shared memory to the function.
//   Cost:           in the program itself, two comparisons.
//   Reference:      the freeze_support() of Python's multiprocessing;
//                   docs/design/process_start.md.

#ifndef COHORT_PROCESS_INIT_H_
#define COHORT_PROCESS_INIT_H_

namespace cohort {

// Runs and ends a child; returns in every other process. `argc` and `argv` are
// main's own, and stay as they are.
void Init(int& argc, char**& argv);

}  // namespace cohort

#endif  // COHORT_PROCESS_INIT_H_
