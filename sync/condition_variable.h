// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ConditionVariable` lets processes sleep until what they share under a
// mutex has changed. It is used as std::condition_variable_any is, and lies in
// memory that several processes map, beside the mutex and the data.
//
//   struct Board {
//     cohort::Mutex mu;
//     cohort::ConditionVariable changed;
//     int64_t score ABSL_GUARDED_BY(mu) = 0;
//   };
//
//   // `board` points into shared memory. One process:
//   {
//     cohort::MutexLock lock(board->mu);
//     board->score += 10;
//   }
//   board->changed.notify_all();
//
//   // Another:
//   cohort::MutexLock lock(board->mu);
//   while (board->score < 100 && !lock.poisoned()) board->changed.wait(lock);
//   if (lock.poisoned()) ...             // As after every lock().
//
// Threads and processes die at any instruction; a notification does not die
// with them. It stands in the memory until a waiter that lives has taken it,
// with the mutex locked: if one is killed after that, the mutex is poisoned and
// tells the next. Whoever waits for a process that may die looks for poison too,
// as above, or waits for a time.
//
// What happens once and for all is a Latch (sync/latch.h); a flag without data
// is an Event (sync/event.h). Threads of a single process should prefer
// `absl::CondVar` or `absl::Mutex::Await()`.

#ifndef COHORT_SYNC_CONDITION_VARIABLE_H_
#define COHORT_SYNC_CONDITION_VARIABLE_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"

namespace cohort {

// ConditionVariable
//
// |         | wait()        | notify_one(),    | waiter dies    | notifier dies |
// |         |               | notify(n)        |                |               |
// |---------+---------------+------------------+----------------+---------------|
// | Nobody  | Waiting       | --               | --             | --            |
// | waits   |               |                  |                |               |
// | Waiting | one more      | one (or n) of    | it may still   | as if before  |
// |         | waits         | those who wait   | be notified;   | or after the  |
// |         |               | is Notified      | see below      | notification  |
// | Notified| waits for the | another one of   | another one is | they return   |
// |         | next          | those who wait   | notified late  | late          |
//
// notify_all() makes all who wait Notified. Who is Notified returns as soon as
// it has the mutex. A waiter that dies while it waits may be given one later
// notification, which then reaches another waiter late. "Late" is a few tenths
// of a second, once no other notification comes: at the end of a slice of its
// sleep. Others may then return too, without one.
//
// Contract
//   Placement:      any MAP_SHARED mapping, at a different address in each
//                   process. 8 bytes, aligned to 8; its bytes are an ABI
//                   between builds. Never move or copy it; don't unmap it while
//                   a thread is inside one of its members.
//   Thread-safety:  every member, from any thread, at any time. All who wait at
//                   the same time use the same mutex.
//   Process-safety: likewise, among all processes that map the same bytes, as
//                   far as the mutex goes.
//   Fork-safety:    a child does not wait because its parent does.
//   Crash-safety:   every operation is done by one step on one word, so nothing
//                   is ever half done; what the dead owed is done late.
//   Signal-safety:  none. Waits resume after a handler ran.
//   Errors:         none is returned but that a time is over. To wait without
//                   holding the mutex is fatal for the mutexes of this library.
//   Ordering:       what a process did before it notified is visible to who
//                   returns for it; everything else is the mutex's.
//   Cost:           notifying is a load where nobody waits, one read-modify-
//                   write where nobody sleeps, else a system call too. A wait
//                   adds one or two to what the mutex costs. A sleeper looks up
//                   every 100 ms. More than 2047 waiters return too often.
//   Reference:      std::condition_variable_any; Python's Condition.notify(n);
//                   the groups of waiters follow T. Riegel's condition variable
//                   of glibc 2.25; docs/design/condition_variable.md.
class ConditionVariable final {
 public:
  // Nobody waits. All-zero bytes are such a one: a fresh page needs no
  // construction, and nothing needs destruction.
  constexpr ConditionVariable() = default;

  ConditionVariable(const ConditionVariable&) = delete;
  ConditionVariable& operator=(const ConditionVariable&) = delete;

  // Lets one of those who wait return; with a number, so many. Nothing where
  // nobody waits: who begins to wait later is not notified. With the mutex or
  // without; without it the notified one does not run into the notifier.
  void notify_one() { notify(1); }
  void notify(int count);

  // Lets all return who wait.
  void notify_all();

  // Unlocks `lock`, blocks until notified, and locks it again. `lock` is
  // anything with lock() and unlock(): a MutexLock, a Mutex, a std::unique_lock
  // of one, a std::shared_lock of a SharedMutex. Of a RecursiveMutex all levels
  // are unlocked. May return without a notification, rarely: look again.
  //
  // When a holder of the mutex dies while all others wait here, one of them
  // returns, finds it poisoned and can repair what the dead one left.
  template <typename Lock>
  void wait(Lock& lock) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    (void)wait_until(lock, Deadline::Infinite());
  }

  // Likewise until `done()`, which is called with `lock` locked. Clang's
  // analysis wants to be told: [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { ... }.
  template <typename Lock, typename Predicate>
  void wait(Lock& lock, Predicate done) {
    while (!done()) wait(lock);
  }

  // Likewise, but no longer than until `deadline` (absolute, in ns of
  // CLOCK_MONOTONIC), and however long the lock takes after that. Returns false
  // iff the time was over before it was notified, which the standard's calls
  // std::cv_status::timeout.
  template <typename Lock>
  bool wait_until(Lock& lock, Deadline deadline) ABSL_NO_THREAD_SAFETY_ANALYSIS;

  // Returns what `done()` says at the end.
  template <typename Lock, typename Predicate>
  bool wait_until(Lock& lock, Deadline deadline, Predicate done) {
    while (!done()) {
      if (!wait_until(lock, deadline)) return done();
    }
    return true;
  }

  // Likewise for so long: a std::chrono::duration or an absl::Duration.
  template <typename Lock, typename Duration>
  bool wait_for(Lock& lock, const Duration& wait) {
    return wait_until(lock, Deadline::After(wait));
  }
  template <typename Lock, typename Duration, typename Predicate>
  bool wait_for(Lock& lock, const Duration& wait, Predicate done) {
    return wait_until(lock, Deadline::After(wait), std::move(done));
  }

  // How often in this process a waiter took a notification that others had left
  // standing: the one that should have taken it was killed, or stopped for
  // long. Stays 0 where nobody is.
  [[nodiscard]] static uint64_t Rescues();

 private:
  class Word;

  // One wait of one thread.
  class Wait final {
   public:
    // Registers it. Requires that the caller holds the mutex.
    Wait(ConditionVariable& variable, Deadline deadline);

    // Blocks, without the mutex, until there is something to decide, and
    // returns true; or until a slice is over, and returns false.
    bool Block();

    // Returns true iff the wait is over. Requires the mutex.
    bool Decide();

    // From now on any decision ends the wait.
    void Leave() { leaves_ = true; }

    [[nodiscard]] bool timed_out() const { return timed_out_; }

   private:
    [[nodiscard]] bool Ready(uint64_t bits) const;
    // Whether notifications for others than its group stand as they did long
    // ago.
    bool OthersAreLate(const Word& word);

    ConditionVariable& variable_;
    const Deadline deadline_;
    os::Slices slices_;
    uint32_t epoch_ = 0;  // At which it began.
    bool leaves_ = false;
    bool timed_out_ = false;
    uint64_t standing_ = 0;  // Notifications that nobody took, as of...
    int64_t since_ = 0;      // ...this time.
  };

  template <typename Lock>
  static decltype(auto) MutexOf(Lock& lock) {
    if constexpr (requires { *lock.mutex(); }) {
      return *lock.mutex();
    } else {
      return (lock);
    }
  }

  template <typename Mutex>
  static void Block(Wait& wait, const Mutex& mutex) {
    while (!wait.Block()) {
      // If its holder died, who would notify us?
      if constexpr (requires { mutex.abandoned(); }) {
        if (mutex.abandoned()) return;
      }
    }
  }

  void Wake(uint32_t epoch, uint64_t count);
  void WakeAll();
  [[noreturn]] static void NotHeld();

  std::atomic<uint64_t> word_ = 0;  // Bits: docs/design/condition_variable.md.
};
static_assert(sizeof(ConditionVariable) == 8, "shared ABI");
static_assert(alignof(ConditionVariable) == 8, "shared ABI");

template <typename Lock>
bool ConditionVariable::wait_until(Lock& lock, Deadline deadline) {
  auto& mutex = MutexOf(lock);
  if constexpr (requires { lock.owns_lock(); }) {
    if (!lock.owns_lock()) NotHeld();
  }
  if constexpr (requires { mutex.held(); }) {
    if (!mutex.held()) NotHeld();
  }
  Wait wait(*this, deadline);
  do {
    if constexpr (requires { mutex.lock_all(mutex.unlock_all()); }) {
      const auto depth = mutex.unlock_all();
      Block(wait, mutex);
      mutex.lock_all(depth);
    } else {
      lock.unlock();
      Block(wait, mutex);
      lock.lock();
    }
    // Who goes on waiting must not keep to itself that a holder died.
    if constexpr (requires { mutex.poisoned(); }) {
      if (mutex.poisoned()) wait.Leave();
    }
  } while (!wait.Decide());
  return !wait.timed_out();
}

}  // namespace cohort

#endif  // COHORT_SYNC_CONDITION_VARIABLE_H_
