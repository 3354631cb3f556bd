// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/recursive_mutex.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <type_traits>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::KilledBy;
using cohort_testing::Shared;
using std::chrono::milliseconds;

static_assert(std::is_trivially_destructible_v<RecursiveMutex>);
static_assert(std::is_standard_layout_v<RecursiveMutex>);
static_assert(!std::is_copy_constructible_v<RecursiveMutex>);
static_assert(!std::is_copy_assignable_v<RecursiveMutex>);

// Whether another process could take it now.
bool FreeForOthers(RecursiveMutex& mu) {
  return Child::Fork([&] {
           if (!mu.try_lock()) return 1;
           mu.unlock();
           return 0;
         }).Wait() == Exited(0);
}

Child DieHolding(RecursiveMutex& mu, uint32_t depth = 1) {
  return Child::Fork([&, depth]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (uint32_t i = 0; i < depth; ++i) mu.lock();
    return raise(SIGKILL);
  });
}

TEST(RecursiveMutexTest, AConstructedOneIsAllZero) {
  alignas(RecursiveMutex) unsigned char bytes[sizeof(RecursiveMutex)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) RecursiveMutex;
  const unsigned char zero[sizeof(RecursiveMutex)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(RecursiveMutexTest, CountsItsLevels) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  EXPECT_EQ(mu->depth(), 0u);
  EXPECT_FALSE(mu->held());
  mu->lock();
  EXPECT_EQ(mu->depth(), 1u);
  ASSERT_TRUE(mu->try_lock());
  EXPECT_EQ(mu->depth(), 2u);
  ASSERT_TRUE(mu->try_lock_for(milliseconds(0)));
  EXPECT_EQ(mu->depth(), 3u);
  ASSERT_TRUE(mu->try_lock_until(Deadline::Now()));
  EXPECT_EQ(mu->depth(), 4u);
  for (uint32_t depth = 3; depth > 0; --depth) {
    mu->unlock();
    EXPECT_EQ(mu->depth(), depth);
    EXPECT_TRUE(mu->held());
    EXPECT_FALSE(FreeForOthers(*mu));
  }
  mu->unlock();
  EXPECT_EQ(mu->depth(), 0u);
  EXPECT_FALSE(mu->held());
  mu->lock();
  EXPECT_EQ(mu->depth(), 1u);
  mu->unlock();
}

TEST(RecursiveMutexTest, EachWayOfTakingBeginsAtOne)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  auto take_and_leave_deep = [&](auto take) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    ASSERT_TRUE(take());
    EXPECT_EQ(mu->depth(), 1u);
    mu->lock();
    mu->lock();
    EXPECT_EQ(mu->unlock_all(), 3u);
  };
  for (int round = 0; round < 2; ++round) {
    take_and_leave_deep([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      mu->lock();
      return true;
    });
    take_and_leave_deep([&] { return mu->try_lock(); });
    take_and_leave_deep([&] { return mu->try_lock_for(milliseconds(1)); });
  }
}

TEST(RecursiveMutexTest, DepthIsTheHoldersAlone)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  mu->lock();
  mu->lock();
  std::thread([&] {
    EXPECT_EQ(mu->depth(), 0u);
    EXPECT_FALSE(mu->held());
    EXPECT_FALSE(mu->try_lock());
  }).join();
  Child child = Child::Fork([&] {
    if (mu->held()) return 1;
    if (mu->depth() != 0) return 2;
    return mu->try_lock_for(milliseconds(1)) ? 3 : 0;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(mu->depth(), 2u);
  mu->unlock();
  mu->unlock();
}

TEST(RecursiveMutexTest, ExcludesOtherProcesses) {
  struct Counter {
    RecursiveMutex mu;
    int value ABSL_GUARDED_BY(mu) = 0;
    void Count() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      RecursiveMutexLock lock(mu);
      const int was = value;
      RecursiveMutexLock again(mu);
      value = was + 1;
    }
  };
  constexpr int kRounds = 50'000;
  Shared<Counter> counter;
  auto count = [&] {
    for (int i = 0; i < kRounds; ++i) counter->Count();
  };
  Child child = Child::Fork(count);
  std::thread thread(count);
  count();
  thread.join();
  ASSERT_EQ(child.Wait(), Exited(0));
  RecursiveMutexLock lock(counter->mu);
  EXPECT_EQ(counter->value, 3 * kRounds);
}

TEST(RecursiveMutexTest, OnlyTheLastUnlockWakes)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  mu->lock();
  mu->lock();
  Child sleeper = Child::Fork([&] { RecursiveMutexLock lock(*mu); });
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_FALSE(FreeForOthers(*mu));
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(RecursiveMutexTest, TimesOut) {
  Shared<RecursiveMutex> mu;
  RecursiveMutexLock lock(*mu);
  Child waiter = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const Deadline deadline = Deadline::After(milliseconds(30));
    if (mu->try_lock_until(deadline)) return 1;
    if (!deadline.Passed()) return 2;
    if (mu->try_lock_for(absl::Milliseconds(1))) return 3;
    return mu->try_lock_for(-absl::InfiniteDuration()) ? 4 : 0;
  });
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(RecursiveMutexTest, AWaitWithATimeLimitIsWoken)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  mu->lock();
  Child waiter = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!mu->try_lock_for(absl::InfiniteDuration())) return 1;
    const uint32_t depth = mu->depth();
    mu->unlock();
    return depth == 1 ? 0 : 2;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(RecursiveMutexTest, LetsGoOfAllLevelsAndTakesThemBack)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  for (uint32_t depth : {1, 2, 7}) {
    mu->lock_all(depth);
    EXPECT_EQ(mu->depth(), depth);
    Child sleeper = Child::Fork([&] { RecursiveMutexLock lock(*mu); });
    ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
    EXPECT_EQ(mu->unlock_all(), depth);
    EXPECT_EQ(sleeper.Wait(), Exited(0));
    EXPECT_FALSE(mu->held());
  }
}

// The holder is stopped. Those with a time limit go on, and with the holder so
// does everybody.
TEST(RecursiveMutexTest, AStoppedHolderHoldsUpNoTimeLimit) {
  struct Arena {
    RecursiveMutex mu;
    Gate held, leave;
  };
  Shared<Arena> arena;
  Child holder = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    RecursiveMutexLock outer(arena->mu);
    RecursiveMutexLock inner(arena->mu);
    arena->held.Open();
    arena->leave.Pass();
  });
  arena->held.Pass();
  ASSERT_TRUE(holder.AwaitAsleepInFutex());
  holder.Stop();
  arena->leave.Open();
  EXPECT_FALSE(arena->mu.try_lock_for(milliseconds(30)));
  holder.Continue();
  {
    RecursiveMutexLock lock(arena->mu);
    EXPECT_FALSE(arena->mu.poisoned());
  }
  EXPECT_EQ(holder.Wait(), Exited(0));
}

// The standard library's own tools.

TEST(RecursiveMutexTest, ComposesWithLocksOfTheStandardLibrary) {
  Shared<RecursiveMutex> mu;
  Shared<RecursiveMutex> other;
  std::unique_lock outer(*mu, milliseconds(5));
  ASSERT_TRUE(outer.owns_lock());
  {
    std::scoped_lock both(*mu, *other);
    std::unique_lock inner(*mu, std::try_to_lock);
    EXPECT_TRUE(inner.owns_lock());
    EXPECT_EQ(mu->depth(), 3u);
    EXPECT_EQ(other->depth(), 1u);
  }
  EXPECT_EQ(mu->depth(), 1u);
}

TEST(RecursiveMutexTest, ConditionVariableAnyWaitsWithIt) {
  Shared<RecursiveMutex> mu;
  std::condition_variable_any changed;
  bool ready = false;
  std::thread setter([&] {
    RecursiveMutexLock lock(*mu);
    ready = true;
    changed.notify_one();
  });
  std::unique_lock lock(*mu);
  changed.wait(lock, [&] { return ready; });
  lock.unlock();
  setter.join();
}

// Death.

TEST(RecursiveMutexCrashTest, ADeadHolderLeavesNoDepth)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  ASSERT_EQ(DieHolding(*mu, 5).Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(mu->depth(), 0u);
  mu->lock();
  EXPECT_EQ(mu->depth(), 1u);
  EXPECT_TRUE(mu->poisoned());
  mu->unlock();
  ASSERT_EQ(DieHolding(*mu, 5).Wait(), KilledBy(SIGKILL));
  ASSERT_TRUE(mu->try_lock());
  EXPECT_EQ(mu->depth(), 1u);
  mu->unlock();
  EXPECT_TRUE(FreeForOthers(*mu));
}

TEST(RecursiveMutexCrashTest, PoisonOutlivesEveryHolderUntilCleared)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));
  ASSERT_EQ(DieHolding(*mu, 2).Wait(), KilledBy(SIGKILL));  // A repairer.
  for (int i = 0; i < 2; ++i) {
    RecursiveMutexLock lock(*mu);
    EXPECT_TRUE(mu->poisoned());
    RecursiveMutexLock inner(*mu);
    EXPECT_TRUE(mu->poisoned());
  }
  {
    RecursiveMutexLock lock(*mu);
    mu->clear_poison();
  }
  RecursiveMutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

TEST(RecursiveMutexCrashTest, AThrowingOrDyingRepairLeavesThePoison) {
  Shared<RecursiveMutex> mu;
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));
  auto throws = [&] {
    RecursiveMutexLock lock(*mu,
                            [] { throw std::runtime_error("no journal"); });
  };
  EXPECT_THROW(throws(), std::runtime_error);
  EXPECT_FALSE(mu->held());
  Child repairer = Child::Fork(
      [&] { RecursiveMutexLock lock(*mu, [] { raise(SIGKILL); }); });
  ASSERT_EQ(repairer.Wait(), KilledBy(SIGKILL));
  int repairs = 0;
  for (int i = 0; i < 2; ++i) {
    RecursiveMutexLock lock(*mu, [&] {
      ++repairs;
      RecursiveMutexLock inner(*mu);  // A repair may lock, too.
    });
  }
  EXPECT_EQ(repairs, 1);
}

TEST(RecursiveMutexCrashTest, ASleeperGetsADeadHoldersLock) {
  struct Arena {
    RecursiveMutex mu;
    Gate held;
  };
  Shared<Arena> arena;
  Child holder = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    arena->mu.lock();
    arena->mu.lock();
    arena->held.Open();
    pause();
  });
  arena->held.Pass();
  auto wait_and_look = [&] {
    RecursiveMutexLock lock(arena->mu);
    return arena->mu.poisoned() && arena->mu.depth() == 1 ? 0 : 1;
  };
  Child first = Child::Fork(wait_and_look);
  Child second = Child::Fork(wait_and_look);
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  holder.Kill(SIGKILL);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
}

TEST(RecursiveMutexCrashTest, AnEndingThreadAndExecveCountAsDeath) {
  Shared<RecursiveMutex> mu;
  std::thread([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu->lock();
    mu->lock();
  }).join();
  {
    RecursiveMutexLock lock(*mu);
    EXPECT_TRUE(mu->poisoned());
    mu->clear_poison();
  }
  Child child = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu->lock();
    execl("/bin/true", "true", nullptr);
    return 1;
  });
  ASSERT_EQ(child.Wait(), Exited(0));
  RecursiveMutexLock lock(*mu);
  EXPECT_TRUE(mu->poisoned());
}

TEST(RecursiveMutexCrashTest, AForkedChildDoesNotHoldWhatItsParentHolds)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<RecursiveMutex> mu;
  mu->lock();
  mu->lock();
  const pid_t pid = _Fork();  // Runs no pthread_atfork() handler.
  if (pid == 0) _exit(mu->held() || mu->depth() != 0 || mu->try_lock() ? 1 : 0);
  int status = 1;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(mu->depth(), 2u);  // The child's end changed nothing.
  mu->unlock();
  mu->unlock();
  RecursiveMutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

// Misuse.

TEST(RecursiveMutexDeathTest, UnlockByAnotherThanTheHolderIsFatal)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  RecursiveMutex mu;
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.unlock(); };
  auto misuse_all = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    (void)mu.unlock_all();
  };
  constexpr char kLine[] =
      "^cohort: RecursiveMutex: unlocked by another than its holder";
  EXPECT_DEATH(misuse(), kLine);
  EXPECT_DEATH(misuse_all(), kLine);
  // By another thread, and by another process, than the one that holds it, at
  // whatever depth.
  for (uint32_t depth = 1; depth <= 2; ++depth) {
    mu.lock_all(depth);
    EXPECT_DEATH(std::thread(misuse).join(), kLine);
    EXPECT_DEATH(std::thread(misuse_all).join(), kLine);
    EXPECT_DEATH(misuse(), kLine);
    EXPECT_EQ(mu.unlock_all(), depth);
  }
}

TEST(RecursiveMutexDeathTest, OneUnlockTooManyIsFatal) {
  RecursiveMutex mu;
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    mu.lock();
    mu.unlock();
    mu.unlock();
    mu.unlock();
  };
  EXPECT_DEATH(misuse(), "unlocked by another than its holder");
}

TEST(RecursiveMutexDeathTest, TooManyLevelsAreFatal)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  RecursiveMutex mu;
  mu.lock_all(UINT32_MAX);
  mu.unlock();
  mu.lock();
  EXPECT_EQ(mu.unlock_all(), UINT32_MAX);
  auto overflow = [&](auto lock) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock_all(UINT32_MAX);
    lock();
  };
  constexpr char kLine[] =
      "^cohort: RecursiveMutex: locked more than 4294967295 times";
  EXPECT_DEATH(overflow([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.lock(); }),
               kLine);
  EXPECT_DEATH(overflow([&] { (void)mu.try_lock(); }), kLine);
  EXPECT_DEATH(overflow([&] { (void)mu.try_lock_for(milliseconds(1)); }),
               kLine);
}

TEST(RecursiveMutexDeathTest, LockAllByItsHolderOrOfNoDepthIsFatal) {
  RecursiveMutex mu;
  auto twice = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    mu.lock_all(1);
  };
  EXPECT_DEATH(twice(),
               "^cohort: RecursiveMutex: lock_all\\(\\) by its holder");
  auto none = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.lock_all(0); };
  EXPECT_DEATH(none(), "^cohort: RecursiveMutex: lock_all\\(\\) of depth 0");
}

}  // namespace
}  // namespace cohort
