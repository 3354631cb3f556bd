// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Once` runs a function one time among all processes that map it: the
// first caller runs it, the others wait until it has come to its end. If the
// runner is killed halfway, or the function throws, the next caller runs it
// anew and can be told so.
//
//   struct Board {
//     cohort::Once set_up;
//     int64_t cells[64];
//   };
//
//   // `board` points into shared memory.
//   board->set_up.call([&] { Fill(board->cells); });
//
//   // Where it matters what an earlier attempt may have left:
//   board->set_up.call([&](bool again) {
//     if (again) RemoveTemporaryFiles();
//     ...
//   });
//
// What one process makes for itself, a static local variable or
// `absl::call_once` does; neither is seen by another process. Data that is torn
// by deaths later on too belongs behind a cohort::Mutex and its repair.

#ifndef COHORT_SYNC_ONCE_H_
#define COHORT_SYNC_ONCE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include "cohort/os/deadline.h"
#include "cohort/sync/mutex.h"

namespace cohort {

namespace sync_internal {

// All of a Once but the call of the function.
class OnceCore final {
 public:
  enum class Turn {
    kNone,   // Done meanwhile, or not in time.
    kFirst,  // The caller is the runner, as for the other.
    kAgain,  // Somebody began before.
  };

  constexpr OnceCore() = default;

  [[nodiscard]] bool done() const {
    return state_.load(std::memory_order_acquire) == kDone;
  }

  // Makes the caller the runner, or finds that there is to be none.
  [[nodiscard]] Turn Begin(Deadline deadline);

  // The runner ends its run; `ended` says whether the function did.
  void End(bool ended);

 private:
  // Set under the mutex, in this order; read by everybody.
  enum State : uint32_t {
    kNotYet = 0,
    kBegun = 1,  // Somebody runs it, or did and came to no end.
    kDone = 2,
  };

  std::atomic<uint32_t> state_ = kNotYet;
  [[maybe_unused]] uint32_t reserved_ = 0;  // Zero.
  Mutex mu_;                                // Held by the runner.
};

}  // namespace sync_internal

// Once
//
// |         | call(f)                | f returns | f throws  | runner dies    |
// |---------+------------------------+-----------+-----------+----------------|
// | Not yet | Running: f(false)      | --        | --        | --             |
// | Running | waits; from inside f:  | Done      | Halfway,  | Halfway        |
// |         | fatal                  |           | rethrown  |                |
// | Halfway | Running: f(true)       | --        | --        | --             |
// | Done    | returns                | --        | --        | --             |
//
// A function that takes nothing is called as `f()`. One store makes it Done. A
// runner that dies after the last instruction of f and before that store has
// died halfway: f has to bear being run again. "Fatal" is one line on stderr,
// then abort(): a bug that no result can mend.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 48 bytes, aligned to 8; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. All callers
//                   have to mean the same function.
//   Process-safety: likewise, among all processes of one PID namespace that
//                   map the same bytes.
//   Fork-safety:    a child that is forked from inside f is not the runner: it
//                   must leave f by exec or _exit.
//   Crash-safety:   the kernel tells when the running thread ends, and when its
//                   process dies, by SIGKILL too, or calls execve(). The next
//                   caller, a waiting one too, then runs f. Not so when
//                   another than the main thread calls that from inside f:
//                   then all wait for ever.
//   Signal-safety:  done(). Keep the others out of handlers.
//   Errors:         none is returned. "Not in time" is false; misuse is fatal.
//   Ordering:       what f did is visible to whoever returns from call(), or
//                   finds done(). What a runner did before it died is visible
//                   to the next one.
//   Cost:           done(), and call() after it: one load. A waiter looks up
//                   every 100 ms.
//   Reference:      std::call_once; Rust's std::sync::Once::call_once_force;
//                   docs/design/once.md.
class Once final {
 public:
  // Starts as not yet run. All-zero bytes are such an object: a fresh page
  // needs no construction, and nothing needs destruction.
  constexpr Once() = default;

  Once(const Once&) = delete;
  Once& operator=(const Once&) = delete;

  // Returns when `f` has once come to its end, here or elsewhere. Runs it,
  // as `f()` or `f(again)`, if nobody has; `again` is true iff somebody began
  // and died or threw. An exception of `f` goes to its caller.
  template <typename F>
  void call(F&& f) {
    (void)try_call_until(Deadline::Infinite(), std::forward<F>(f));
  }

  // Likewise, but waits for no other runner. Returns done().
  template <typename F>
  [[nodiscard]] bool try_call(F&& f) {
    return try_call_until(Deadline::Now(), std::forward<F>(f));
  }

  // Likewise, but waits for another runner until `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC) at most. Its own run takes as long as it takes.
  template <typename F>
  [[nodiscard]] bool try_call_until(Deadline deadline, F&& f) {
    return done() || Run(deadline, std::forward<F>(f));
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration.
  template <typename Duration, typename F>
  [[nodiscard]] bool try_call_for(const Duration& wait, F&& f) {
    return done() || Run(Deadline::After(wait), std::forward<F>(f));
  }

  // Returns true iff a function has come to its end, and what it did is visible
  // here. It stays true.
  [[nodiscard]] bool done() const { return core_.done(); }

 private:
  using Turn = sync_internal::OnceCore::Turn;

  // The caller's part of a run, left by an exception too.
  class Running final {
   public:
    explicit Running(sync_internal::OnceCore& core) : core_(core) {}
    ~Running() { core_.End(ended_); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    void SetEnded() { ended_ = true; }

   private:
    sync_internal::OnceCore& core_;
    bool ended_ = false;
  };

  template <typename F>
  bool Run(Deadline deadline, F&& f) {
    const Turn turn = core_.Begin(deadline);
    if (turn == Turn::kNone) return done();
    Running running(core_);
    if constexpr (std::is_invocable_v<F, bool>) {
      std::invoke(std::forward<F>(f), turn == Turn::kAgain);
    } else {
      std::invoke(std::forward<F>(f));
    }
    running.SetEnded();
    return true;
  }

  sync_internal::OnceCore core_;
};
static_assert(sizeof(Once) == 48 && alignof(Once) == 8, "shared ABI");

}  // namespace cohort

#endif  // COHORT_SYNC_ONCE_H_
