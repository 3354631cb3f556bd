// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Process` runs a function in a process of its own, watches it and
// says how it ended.
//
//   absl::Status Ingest(std::string path, int shard);
//
//   int main(int argc, char** argv) {
//     cohort::Init(argc, argv);                       // process/init.h
//     absl::StatusOr<cohort::Process> child = cohort::Process::Start(
//         {.name = "ingest"}, Ingest, "/var/log", 3);
//     if (!child.ok()) return 1;                      // it never began
//     absl::StatusOr<cohort::ExitStatus> end = child->Join(absl::Seconds(5));
//     if (absl::IsDeadlineExceeded(end.status())) child->Terminate();
//   }
//
// The function returns void, int (the exit code) or `absl::Status`, which comes
// back in `ExitStatus::status`. Results come from `ProcessPool::Submit`
// (pool/process_pool.h); many processes with one end from `ProcessGroup`
// (process/process_group.h); other programs from posix_spawn(3).
//
// Arguments are converted to the types of the function's parameters, encoded,
// and decoded in the child: a value arrives as a copy, a handle (`Queue<T>`,
// `Shared<T>`, an end of a pipe) as a handle on the same object. What cannot
// cross is refused at compile time.

#ifndef COHORT_PROCESS_PROCESS_H_
#define COHORT_PROCESS_PROCESS_H_

#include <concepts>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/process/exit_status.h"
#include "cohort/serialize/callable.h"
#include "cohort/serialize/frame.h"

namespace cohort {

// How a process comes to be.
//
// |         | kSpawn                        | kFork                          |
// |---------+-------------------------------+--------------------------------|
// | image   | the same program, run afresh  | a copy of the parent as it is  |
// | sees    | its arguments, descriptors 0  | all of the parent's memory and |
// |         | to 2 and those of its handles | descriptors, but for those by  |
// |         |                               | which children are watched     |
// | signals | none blocked, no handlers;    | none blocked; handlers as the  |
// |         | what was ignored stays so     | parent has them                |
// | leaves  | by exit(): static destructors | by _exit(): stdout and stderr  |
// | by      | and atexit handlers run       | are flushed, nothing else runs |
// | other   | do no harm                    | are a reason to refuse: what   |
// | threads |                               | they lock would stay locked    |
// | costs   | a millisecond and more        | a tenth of that                |
enum class StartMethod {
  kDefault,  // kSpawn.
  kSpawn,
  kFork,
};

// What becomes of a child whose `Process` is destroyed, or whose parent dies.
//
// |                | destructor of Process             | death of the parent |
// |----------------+-----------------------------------+---------------------|
// | kJoin          | SIGTERM; after `grace`, SIGKILL;  | runs on             |
// |                | collects the exit status          |                     |
// | kDieWithParent | likewise                          | SIGKILL, by the     |
// |                |                                   | kernel, at once     |
// | kDetach        | lets it run; a later Start()      | runs on             |
// |                | collects its exit status          |                     |
enum class Lifetime { kJoin, kDieWithParent, kDetach };

struct ProcessOptions {
  StartMethod start_method = StartMethod::kDefault;
  // For messages, `this_process::Name()` and, for kSpawn, ps(1). Empty:
  // "process-1", "process-2" ..., and "ingest:1" below a child called "ingest".
  std::string name = {};
  Lifetime lifetime = Lifetime::kJoin;
  // How long the destructor waits between SIGTERM and SIGKILL. Zero or less:
  // SIGKILL at once. Infinite: no SIGKILL.
  absl::Duration grace = absl::Seconds(5);
  // kFork although other threads exist. What they had locked stays locked in
  // the child, the allocator's locks excepted: its function must take no such
  // lock.
  bool allow_threads = false;
  // How long Start() waits for the child to be ready. One that is not by then
  // is killed, and Start() returns DeadlineExceeded. Infinite: no limit.
  absl::Duration start_timeout = absl::Minutes(1);
};

namespace process_internal {

struct Control;

template <typename F, typename Options>
concept NotOptions = !std::same_as<std::remove_cvref_t<F>, Options>;

// Whether what the far side returns is an exit code or nothing but a status.
template <typename Value>
inline constexpr bool kEndsAProcess =
    std::is_void_v<Value> || std::same_as<Value, int>;

// OK iff a process may be started so, now and here.
absl::Status CheckStart(const ProcessOptions& options);

}  // namespace process_internal

// Process
//
// |         | Join()                | Signal(), Kill() ... | is_alive() |
// |---------+-----------------------+----------------------+------------|
// | Running | blocks                | reaches the child    | true       |
// | Ended   | collects; its status  | nothing              | false      |
// | Joined  | the same status again | nothing              | false      |
// | Inert   | FailedPrecondition    | nothing              | false      |
//
// A moved-from object is inert, and so is the copy of one in a forked process.
//
// Contract
//   Placement:      anywhere but shared memory.
//   Thread-safety:  every member from any thread, several at a time; moving and
//                   destroying excludes all others. Any thread may start a
//                   process, and may end before it.
//   Process-safety: the process that started a child is its only owner.
//   Fork-safety:    a forked copy is inert, and its destructor touches nothing
//                   but memory; fork() closes the copies of the descriptors by
//                   which children are watched.
//   Crash-safety:   whatever kills the child, at whatever point, Start() and
//                   Join() return promptly. Where the parent dies, see
//                   Lifetime; before the function has begun, the child ends.
//   Signal-safety:  none.
//   Errors:         of Start(): FailedPrecondition (Init() was not called;
//                   kFork beside other threads), ResourceExhausted
//                   (descriptors, processes, memory), the child's own (an
//                   argument that can't be decoded), Aborted (the child ended
//                   before it was ready, by which signal or exit code;
//                   Unknown where its status went elsewhere),
//                   DeadlineExceeded. The child is gone and collected then;
//                   handles that were moved into the arguments are closed,
//                   except where the start was refused before anything was
//                   encoded (FailedPrecondition, InvalidArgument). Of Join():
//                   see there.
//   Ordering:       what the parent did before Start() is visible to the
//                   function; what the child did before it ended is visible
//                   after Join().
//   Cost:           two descriptors for each running child (pidfd, socket) and
//                   a third for kDieWithParent; one when joined. No thread, no
//                   signal handler. docs/design/process_start.md has figures.
//   Reference:      Python's multiprocessing.Process; pidfd_open(2), fork(2),
//                   posix_spawn(3); docs/design/process_start.md.
class Process final {
 public:
  // Starts a process that runs `function(arguments...)`. Returns when the child
  // has decoded its arguments and is about to call it.
  template <typename F, typename... Args>
  static absl::StatusOr<Process> Start(const ProcessOptions& options,
                                       F&& function, Args&&... arguments) {
    CheckCall<F, Args...>();
    using Value = RemoteValue<F, Args...>;
    static_assert(process_internal::kEndsAProcess<Value>,
                  "cohort: a process function returns void, int (its exit "
                  "code) or absl::Status; for a result use "
                  "ProcessPool::Submit");
    // First, so that a refused start leaves moved arguments where they are.
    if (absl::Status may = process_internal::CheckStart(options); !may.ok()) {
      return may;
    }
    Frame call;
    if (absl::Status encoded = EncodeCall(call, std::forward<F>(function),
                                          std::forward<Args>(arguments)...);
        !encoded.ok()) {
      return encoded;
    }
    return StartEncoded(options, std::move(call));
  }
  template <typename F, typename... Args>
  requires process_internal::NotOptions<F, ProcessOptions>
  static absl::StatusOr<Process> Start(F&& function, Args&&... arguments) {
    return Start(ProcessOptions{}, std::forward<F>(function),
                 std::forward<Args>(arguments)...);
  }

  Process(Process&& other) noexcept;
  // Ends the process that this object had as the destructor does.
  Process& operator=(Process&& other) noexcept;

  // As `Lifetime` says. It blocks for `grace` at most, plus what the kernel
  // takes to end a killed process; no zombie stays.
  ~Process();

  // 0 in an inert object. Stays the child's until Join() or the destructor.
  [[nodiscard]] int pid() const;
  [[nodiscard]] const std::string& name() const;

  // True iff it has not ended yet. Collects nothing.
  [[nodiscard]] bool is_alive() const;

  // A descriptor that becomes readable when the process has ended: for poll(2)
  // and its like. It stays this object's; -1 in an inert one.
  [[nodiscard]] int poll_handle() const;

  // Waits until the process has ended and returns how; zero or less polls once.
  // DeadlineExceeded: it still runs. Unknown: it has ended, but its exit status
  // went elsewhere: the program ignores SIGCHLD, or waits for any child.
  // FailedPrecondition: the object is inert.
  absl::StatusOr<ExitStatus> Join(
      absl::Duration timeout = absl::InfiniteDuration()) const;

  // Sends `signal`. OK where the process has ended: no other can be hit.
  // PermissionDenied: it has taken on another user's identity.
  absl::Status Signal(int signal) const;

  // SIGINT, SIGTERM, SIGKILL. The first two can be handled or ignored.
  void Interrupt() const { (void)Signal(kInterrupt); }
  void Terminate() const { (void)Signal(kTerminate); }
  void Kill() const { (void)Signal(kKill); }

 private:
  friend class ProcessGroup;
  // Linux's numbers; <csignal> would bring its macros to every user.
  static constexpr int kInterrupt = 2;
  static constexpr int kTerminate = 15;
  static constexpr int kKill = 9;

  explicit Process(std::unique_ptr<process_internal::Control> control);
  static absl::StatusOr<Process> StartEncoded(const ProcessOptions& options,
                                              Frame call);
  absl::StatusOr<ExitStatus> JoinUntil(Deadline until) const;
  Lifetime lifetime() const;
  absl::Duration grace() const;
  void Dispose();

  std::unique_ptr<process_internal::Control> control_;
};

}  // namespace cohort

#endif  // COHORT_PROCESS_PROCESS_H_
