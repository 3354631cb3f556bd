// SPDX-License-Identifier: Apache-2.0
//
// What a Mutex checks in builds without NDEBUG, whatever this one is.

#undef NDEBUG

#include <atomic>
#include <csignal>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "cohort/os/robust.h"
#include "cohort/sync/mutex.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

constexpr char kLine[] =
    "^cohort: a signal handler uses a lock, and has interrupted the use of "
    "another one";

Mutex* handlers;

// Runs `handler` at a moment when the thread is in the middle of some lock.
void Interrupt(void (*handler)(int)) {
  std::atomic<uint32_t> word = 0;
  os::RobustThread& thread = os::RobustThread::Self();
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(SIGUSR1, &action, nullptr);
  thread.Pend(word);
  raise(SIGUSR1);
  thread.Unpend();
}

void Lock(int) ABSL_NO_THREAD_SAFETY_ANALYSIS { handlers->lock(); }
void TryLock(int) ABSL_NO_THREAD_SAFETY_ANALYSIS { (void)handlers->try_lock(); }
void Unlock(int) ABSL_NO_THREAD_SAFETY_ANALYSIS { handlers->unlock(); }

TEST(MutexDebugDeathTest, AHandlerThatInterruptedALockUsesNone)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Mutex mu;
  handlers = &mu;
  EXPECT_DEATH(Interrupt(Lock), kLine);
  EXPECT_DEATH(Interrupt(TryLock), kLine);
  auto hold_and_unlock = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    Interrupt(Unlock);
  };
  EXPECT_DEATH(hold_and_unlock(), kLine);
}

TEST(MutexDebugTest, AnyOtherHandlerMay) {
  Mutex mu;
  handlers = &mu;
  struct sigaction action = {};
  action.sa_handler = [](int) { MutexLock lock(*handlers); };
  sigaction(SIGUSR1, &action, nullptr);
  raise(SIGUSR1);
  MutexLock lock(mu);
  EXPECT_TRUE(mu.held());
}

}  // namespace
}  // namespace cohort
