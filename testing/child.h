// SPDX-License-Identifier: Apache-2.0
//
// `cohort_testing::Child` is a forked process whose code stands in the test,
// where its result is expected.
//
//   cohort_testing::Shared<std::atomic<int>> x;
//   Child child = Child::Fork([&] { *x = 1; return 3; });
//   EXPECT_EQ(child.Wait(), Exited(3));
//   EXPECT_EQ(*x, 1);
//
// The callable returns int, the exit status, or void, which is 0. It may use
// EXPECT_ and ASSERT_: their messages appear in the test's output, and the
// child ends with kFailedExpectation. It leaves by _exit(2), so nothing of the
// test framework and no static destructor runs twice.
//
// A child dies with the thread that forked it, so none outlives its test. For
// processes as a program starts them take process/process.h.

#ifndef COHORT_TESTING_CHILD_H_
#define COHORT_TESTING_CHILD_H_

#include <sys/types.h>

#include <functional>
#include <optional>
#include <ostream>
#include <type_traits>
#include <utility>

#include "cohort/os/deadline.h"

namespace cohort_testing {

// Exit statuses of a child that did not come to its own end. A callable should
// return less than 100.
inline constexpr int kFailedExpectation = 101;  // An EXPECT_ or ASSERT_ failed.
inline constexpr int kThrew = 102;        // An exception left the callable.
inline constexpr int kLostParent = 103;   // The test ended before it began.
inline constexpr int kNoNamespace = 104;  // A PID namespace was refused.

// How a process ended. Prints as "Exited(0)" or "KilledBy(SIGKILL)".
class End final {
 public:
  static End FromWaitStatus(int status);  // As waitpid(2) reports it.

  bool exited() const { return !signal_; }
  int code() const { return code_; }  // The exit status, or the signal.

  friend bool operator==(const End&, const End&) = default;
  friend std::ostream& operator<<(std::ostream& out, const End& end);

 private:
  friend End Exited(int status);
  friend End KilledBy(int signal);
  End(bool signal, int code) : signal_(signal), code_(code) {}

  bool signal_;
  int code_;
};

End Exited(int status);
End KilledBy(int signal);

class [[nodiscard]] Child final {
 public:
  // Runs `body` in a forked copy of this process. Standard output is flushed
  // first. A fork that fails ends the test with a message.
  template <typename Body>
  static Child Fork(Body&& body) {
    if constexpr (std::is_void_v<std::invoke_result_t<Body&>>) {
      return ForkAndRun([&body] {
        std::invoke(body);
        return 0;
      });
    } else {
      static_assert(std::is_same_v<std::invoke_result_t<Body&>, int>,
                    "The body of a Child returns int or void.");
      return ForkAndRun([&body]() -> int { return std::invoke(body); });
    }
  }

  // Likewise, but in a PID namespace of its own, whose first process it is; the
  // processes outside keep theirs. Exited(kNoNamespace) where a sandbox refuses
  // one: a reason to skip the test.
  static Child ForkIntoPidNamespace(const std::function<int()>& body);

  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  // Kills the process if it still runs, and reaps it.
  ~Child();

  // Blocks until the process has ended, and says how; later calls say it again.
  // Only the watchdog bounds it (testing/watchdog.h).
  End Wait();

  // Likewise, but gives up at `until` and returns nothing.
  std::optional<End> WaitFor(cohort::Deadline until);

  // Whether it has not ended yet. Never blocks.
  bool Running();

  // Sends a signal; none is sent to a process that has already been waited for.
  void Kill(int signal);

  // Stops it with SIGSTOP, and returns when it has stopped (or ended).
  void Stop();
  void Continue();

  // See testing/asleep.h. The first is about the child's first thread; the last
  // two count and await threads, whichever they are.
  bool AsleepInFutex() const;
  bool AwaitAsleepInFutex() const;
  int ThreadsAsleepInFutex() const;
  bool AwaitThreadsAsleepInFutex(int count) const;

  // Its process id; it stays reserved until the child has been waited for.
  pid_t pid() const { return pid_; }

 private:
  explicit Child(pid_t pid, int pidfd) : pid_(pid), pidfd_(pidfd) {}
  static Child ForkAndRun(const std::function<int()>& body);
  void Dispose();

  pid_t pid_ = -1;
  int pidfd_ = -1;  // Signals go through it: a process id may be reused.
  std::optional<End> end_;
};

}  // namespace cohort_testing

#endif  // COHORT_TESTING_CHILD_H_
