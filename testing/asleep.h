// SPDX-License-Identifier: Apache-2.0
//
// Where another thread sleeps, as the kernel tells it: a test that needs "B
// waits for the lock" before it goes on asks here, and sleeps for no guessed
// time.
//
//   ASSERT_TRUE(cohort_testing::AwaitAsleepInFutex(child.pid()));
//
// Every function takes the id of a thread; a process id means the first thread
// of that process. The target must be a child of the caller or otherwise open
// to its inspection (ptrace(2), "access mode checking").

#ifndef COHORT_TESTING_ASLEEP_H_
#define COHORT_TESTING_ASLEEP_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cohort/os/deadline.h"

namespace cohort_testing {

// The number of the system call in which the thread sleeps at this moment;
// nothing where it runs, is stopped, is dead or does not exist.
std::optional<long> SleepsIn(pid_t thread);

// Whether it sleeps in futex(2) or futex_waitv(2).
bool AsleepInFutex(pid_t thread);

// Blocks until the thread sleeps in a futex. False when `until` has passed
// first or the thread has ended. The default is long: it bounds a failing test
// only.
bool AwaitAsleepInFutex(
    pid_t thread,
    cohort::Deadline until = cohort::Deadline::After(std::chrono::seconds(20)));

// Likewise for any one system call, such as SYS_epoll_wait.
bool AwaitAsleepIn(
    pid_t thread, long system_call,
    cohort::Deadline until = cohort::Deadline::After(std::chrono::seconds(20)));

// The threads of a process that exist now.
std::vector<pid_t> ThreadsOf(pid_t process);

// The children of a process, and theirs, and so on; zombies included.
std::vector<pid_t> DescendantsOf(pid_t process);

// One line about a process for a failure message:
// "1234 (mutex_test) S, thread 1234 in system call 202".
std::string DescribeProcess(pid_t process);

}  // namespace cohort_testing

#endif  // COHORT_TESTING_ASLEEP_H_
