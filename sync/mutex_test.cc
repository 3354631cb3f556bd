// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/mutex.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/internal/short_lock.h"
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

static_assert(std::is_trivially_destructible_v<Mutex>);
static_assert(std::is_standard_layout_v<Mutex>);
static_assert(!std::is_copy_constructible_v<Mutex>);
static_assert(!std::is_copy_assignable_v<Mutex>);

// Dies in the critical section: no handshake is needed.
Child DieHolding(Mutex& mu) {
  return Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    return raise(SIGKILL);
  });
}

bool Free(Mutex& mu) {
  if (!mu.try_lock()) return false;
  mu.unlock();
  return true;
}

std::atomic<uint32_t>& WordOf(Mutex& mu) {
  return reinterpret_cast<std::atomic<uint32_t>&>(mu);
}

TEST(MutexTest, AConstructedOneIsAllZero) {
  alignas(Mutex) unsigned char bytes[sizeof(Mutex)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) Mutex;
  const unsigned char zero[sizeof(Mutex)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(MutexTest, AllZeroBytesAreFreeAndClean) {
  Shared<Mutex> mu;
  MutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

TEST(MutexTest, ExcludesOtherProcesses) {
  struct Counter {
    Mutex mu;
    int value ABSL_GUARDED_BY(mu) = 0;
  };
  constexpr int kRounds = 100'000;
  Shared<Counter> counter;
  auto count = [&] {
    for (int i = 0; i < kRounds; ++i) {
      MutexLock lock(counter->mu);
      ++counter->value;
    }
    return 0;
  };
  Child child = Child::Fork(count);
  count();
  ASSERT_EQ(child.Wait(), Exited(0));
  MutexLock lock(counter->mu);
  EXPECT_EQ(counter->value, 2 * kRounds);
}

TEST(MutexTest, ExcludesOtherThreads) {
  Mutex mu;
  int64_t value = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        MutexLock lock(mu);
        ++value;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value, 80'000);
}

// On one processor the holder cannot run while a waiter spins.
TEST(MutexTest, ExcludesOnOneProcessor) {
  struct Counter {
    Mutex mu;
    int value ABSL_GUARDED_BY(mu) = 0;
  };
  constexpr int kRounds = 2'000;
  Shared<Counter> counter;
  auto count = [&] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    sched_setaffinity(0, sizeof set, &set);
    for (int i = 0; i < kRounds; ++i) {
      MutexLock lock(counter->mu);
      const int value = counter->value;
      if (i % 16 == 0) sched_yield();
      counter->value = value + 1;
    }
    return 0;
  };
  std::vector<Child> children;
  for (int i = 0; i < 3; ++i) children.push_back(Child::Fork(count));
  for (Child& child : children) ASSERT_EQ(child.Wait(), Exited(0));
  MutexLock lock(counter->mu);
  EXPECT_EQ(counter->value, 3 * kRounds);
}

TEST(MutexTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Mutex> mu;
  // The same page a second time.
  void* twin = mremap(mu.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  auto* alias = static_cast<Mutex*>(twin);
  {
    MutexLock lock(*mu);
    Child child = Child::Fork([&] { return Free(*alias) ? 1 : 0; });
    EXPECT_EQ(child.Wait(), Exited(0));
  }
  ASSERT_EQ(DieHolding(*alias).Wait(), KilledBy(SIGKILL));
  MutexLock lock(*mu);
  EXPECT_TRUE(mu->poisoned());
  munmap(twin, 4096);
}

TEST(MutexTest, WakesASleeper) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  mu->lock();
  Child sleeper = Child::Fork([&] { MutexLock lock(*mu); });
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
  EXPECT_TRUE(Free(*mu));
}

TEST(MutexTest, WakesOneSleeperAfterTheOther) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  mu->lock();
  std::vector<Child> sleepers;
  for (int i = 0; i < 5; ++i) {
    sleepers.push_back(Child::Fork([&] { MutexLock lock(*mu); }));
    ASSERT_TRUE(sleepers.back().AwaitAsleepInFutex());
  }
  mu->unlock();
  for (Child& sleeper : sleepers) EXPECT_EQ(sleeper.Wait(), Exited(0));
  EXPECT_TRUE(Free(*mu));
}

// The sleepers here do without slices: each wake-up has to be a real one.
TEST(MutexTest, UnlockWakesOneEachTime) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  std::atomic<uint32_t>& word = WordOf(*mu);
  mu->lock();
  std::vector<Child> sleepers;
  for (int i = 0; i < 3; ++i) {
    sleepers.push_back(Child::Fork([&] {
      const uint32_t seen = word.fetch_or(sync_internal::kWaiters);
      os::FutexWait(word, seen | sync_internal::kWaiters, Deadline::Infinite());
    }));
    ASSERT_TRUE(sleepers.back().AwaitAsleepInFutex());
  }
  for (int asleep = 3; asleep > 0; --asleep) {
    int ended = 0;
    mu->unlock();
    const Deadline lost = Deadline::After(std::chrono::seconds(10));
    while (ended == 0 && !lost.Passed()) {
      for (Child& sleeper : sleepers) ended += sleeper.Running() ? 0 : 1;
      ended -= 3 - asleep;
    }
    EXPECT_EQ(ended, 1);
    EXPECT_NE(word & sync_internal::kWaiters, 0u);  // Kept for the next.
    mu->lock();
  }
  // Nobody is left; the mark goes with the first wake-up that finds nobody.
  mu->unlock();
  EXPECT_EQ(word, 0u);
}

// A stale one could mark a foreign object that is mapped here later.
TEST(MutexTest, LeavesNothingPending) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  struct robust_list_head* head = nullptr;
  size_t size = 0;
  ASSERT_EQ(syscall(SYS_get_robust_list, 0, &head, &size), 0);
  Shared<Mutex> mu;
  Shared<Mutex> other;
  sync_internal::ShortLock section;
  Child holder = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    other->lock();
    pause();
  });
  while (Free(*other)) sched_yield();

  mu->lock();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(mu->try_lock());
  EXPECT_EQ(head->list_op_pending, nullptr);
  mu->unlock();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(other->try_lock());
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(other->try_lock_for(milliseconds(1)));
  EXPECT_EQ(head->list_op_pending, nullptr);
  ASSERT_TRUE(mu->try_lock());
  EXPECT_EQ(head->list_op_pending, nullptr);
  mu->unlock();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_EQ(section.Lock(), sync_internal::Acquired::kClean);
  section.Unlock();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_EQ(head->list.next, &head->list);
}

TEST(MutexTest, TriesWithoutWaiting) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  ASSERT_TRUE(mu->try_lock());
  EXPECT_EQ(Child::Fork([&] { return mu->try_lock() ? 1 : 0; }).Wait(),
            Exited(0));
  EXPECT_FALSE(mu->try_lock());  // To the holder too.
  mu->unlock();
  EXPECT_TRUE(Free(*mu));
}

TEST(MutexTest, TellsItsHolder) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  EXPECT_FALSE(mu->held());
  mu->lock();
  EXPECT_TRUE(mu->held());
  std::thread([&] { EXPECT_FALSE(mu->held()); }).join();
  Child waiter = Child::Fork([&] {
    if (mu->held()) return 1;
    MutexLock lock(*mu);
    return mu->held() ? 0 : 2;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  EXPECT_TRUE(mu->held());  // Also while its word has marks.
  mu->unlock();
  EXPECT_FALSE(mu->held());
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(MutexTest, AWaitOfNoTimeTriesOnce) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  ASSERT_TRUE(mu->try_lock_for(absl::ZeroDuration()));
  auto poll = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mu->try_lock_for(milliseconds(0)) ||
                   mu->try_lock_for(milliseconds(-1)) ||
                   mu->try_lock_for(-absl::InfiniteDuration()) ||
                   mu->try_lock_until(Deadline::Now())
               ? 1
               : 0;
  };
  EXPECT_EQ(Child::Fork(poll).Wait(), Exited(0));
  mu->unlock();
  EXPECT_EQ(Child::Fork(poll).Wait(), Exited(1));
}

TEST(MutexTest, TimesOut) {
  Shared<Mutex> mu;
  MutexLock lock(*mu);
  Child waiter = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const Deadline deadline = Deadline::After(milliseconds(30));
    if (mu->try_lock_until(deadline)) return 1;
    if (!deadline.Passed()) return 2;
    return mu->try_lock_for(absl::Milliseconds(1)) ? 3 : 0;
  });
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(MutexTest, AWaitWithATimeLimitIsWoken) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  mu->lock();
  Child waiter = Child::Fork([&] {
    if (!mu->try_lock_for(absl::InfiniteDuration())) return 1;
    mu->unlock();
    if (!mu->try_lock_for(std::chrono::hours(1))) return 2;
    mu->unlock();
    return 0;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(MutexTest, AHandlerDoesNotEndTheWait) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  Shared<std::atomic<int>> handled;
  mu->lock();
  static std::atomic<int>* count;
  count = handled.get();
  Child waiter = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++*count; };
    sigaction(SIGUSR1, &action, nullptr);
    *count = 1;
    MutexLock lock(*mu);
  });
  while (*handled == 0) sched_yield();
  for (int signals = 2; signals <= 5; ++signals) {
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    waiter.Kill(SIGUSR1);
    while (*handled < signals) sched_yield();
  }
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(MutexTest, UnlocksInAnyOrder) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  constexpr int kLocks = 100;
  Shared<std::array<Mutex, kLocks>> locks;
  std::vector<int> held;
  std::minstd_rand random(7);
  for (int step = 0; step < 5'000; ++step) {
    const int i = static_cast<int>(random() % kLocks);
    auto at = std::find(held.begin(), held.end(), i);
    if (at == held.end()) {
      (*locks)[i].lock();
      held.push_back(i);
    } else {
      (*locks)[i].unlock();
      held.erase(at);
    }
  }
  Child child = Child::Fork([&] {
    int taken = 0;
    for (Mutex& mu : *locks) taken += Free(mu) ? 0 : 1;
    return taken;
  });
  EXPECT_EQ(child.Wait(), Exited(static_cast<int>(held.size())));
  for (int i : held) (*locks)[i].unlock();
  for (Mutex& mu : *locks) EXPECT_TRUE(Free(mu));
}

TEST(MutexTest, HoldsAsManyAsPromised) {
  Shared<std::array<Mutex, 1024>> locks;
  Child child = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Mutex& mu : *locks) mu.lock();
    return raise(SIGKILL);
  });
  ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
  for (Mutex& mu : *locks) {
    MutexLock lock(mu);
    ASSERT_TRUE(mu.poisoned());
  }
}

// Where membarrier(2) is refused, as in some sandboxes: runs the tests of this
// file once more in a process image that never had it.
TEST(MutexRefusedTest, WorksWhereMembarrierIsRefused) {
  Child again = Child::Fork([] {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog filter = {.len = 4, .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
      return 77;
    }
    // Else it would write over our own report.
    for (const char* name :
         {"XML_OUTPUT_FILE", "GTEST_OUTPUT", "TEST_PREMATURE_EXIT_FILE"}) {
      unsetenv(name);
    }
    execl("/proc/self/exe", "mutex_test", "--gtest_brief=1",
          "--gtest_filter=MutexTest.*:MutexLockTest.*:MutexCrashTest.*:"
          "MutexDeathTest.ReconstructionUnderTheHolderIsFatal",
          nullptr);
    return 1;
  });
  const auto end = again.Wait();
  if (end == Exited(77)) GTEST_SKIP() << "seccomp(2) is refused";
  EXPECT_EQ(end, Exited(0));
}

// The standard library's own tools.

TEST(MutexTest, UniqueLockWaitsForADuration) {
  Shared<Mutex> mu;
  {
    std::unique_lock lock(*mu, milliseconds(5));
    EXPECT_TRUE(lock.owns_lock());
    Child child = Child::Fork([&] {
      std::unique_lock rival(*mu, milliseconds(5));
      return rival.owns_lock() ? 1 : 0;
    });
    EXPECT_EQ(child.Wait(), Exited(0));
  }
  {
    const auto soon = std::chrono::steady_clock::now() + milliseconds(5);
    std::unique_lock until(*mu, soon);
    EXPECT_TRUE(until.owns_lock());
  }
  std::unique_lock lock(*mu, std::try_to_lock);
  EXPECT_TRUE(lock.owns_lock());
}

TEST(MutexTest, ScopedLockOfTwoDoesNotDeadlock) {
  struct Two {
    Mutex first, second;
    int value;
  };
  constexpr int kRounds = 20'000;
  Shared<Two> two;
  Child child = Child::Fork([&] {
    for (int i = 0; i < kRounds; ++i) {
      std::scoped_lock lock(two->second, two->first);
      ++two->value;
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    std::scoped_lock lock(two->first, two->second);
    ++two->value;
  }
  ASSERT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(two->value, 2 * kRounds);
}

TEST(MutexTest, ConditionVariableAnyWaitsWithIt) {
  Mutex mu;
  std::condition_variable_any changed;
  bool ready = false;
  std::thread setter([&] {
    MutexLock lock(mu);
    ready = true;
    changed.notify_one();
  });
  {
    std::unique_lock lock(mu);
    changed.wait(lock, [&] { return ready; });
  }
  MutexLock lock(mu);
  changed.wait(lock, [&] { return ready; });
  setter.join();
}

TEST(MutexLockTest, LetsGoInTheMiddle) {
  Shared<Mutex> mu;
  {
    MutexLock lock(*mu);
    lock.unlock();
    EXPECT_EQ(Child::Fork([&] { return Free(*mu) ? 0 : 1; }).Wait(), Exited(0));
    lock.lock();
    EXPECT_EQ(Child::Fork([&] { return Free(*mu) ? 0 : 1; }).Wait(), Exited(1));
    lock.unlock();
  }
  EXPECT_TRUE(Free(*mu));
}

// Death.

TEST(MutexCrashTest, PoisonOutlivesEveryHolderUntilCleared) {
  Shared<Mutex> mu;
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));  // A repairer.
  for (int i = 0; i < 2; ++i) {
    MutexLock lock(*mu);
    EXPECT_TRUE(lock.poisoned());
  }
  {
    MutexLock lock(*mu);
    EXPECT_TRUE(mu->poisoned());
    mu->clear_poison();
  }
  MutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

TEST(MutexCrashTest, ASleeperGetsADeadHoldersLock) {
  Shared<Mutex> mu;
  Child holder = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu->lock();
    pause();
  });
  auto wait_and_look = [&] {
    MutexLock lock(*mu);
    return mu->poisoned() ? 0 : 1;
  };
  while (Free(*mu)) sched_yield();
  Child first = Child::Fork(wait_and_look);
  Child second = Child::Fork(wait_and_look);
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  holder.Kill(SIGKILL);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
}

TEST(MutexCrashTest, TryLockToo) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));
  ASSERT_TRUE(mu->try_lock());
  EXPECT_TRUE(mu->poisoned());
  mu->unlock();
}

TEST(MutexCrashTest, IsAbandonedUntilTheNextLock) {
  Shared<Mutex> mu;
  EXPECT_FALSE(mu->abandoned());
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));
  EXPECT_TRUE(mu->abandoned());
  MutexLock lock(*mu);
  EXPECT_FALSE(mu->abandoned());
  EXPECT_TRUE(lock.poisoned());
  EXPECT_EQ(lock.mutex(), mu.get());
}

TEST(MutexCrashTest, RepairRunsOnceAfterADeath) {
  struct Account {
    Mutex mu;
    int cents ABSL_GUARDED_BY(mu) = 0;
  };
  Shared<Account> account;
  ASSERT_EQ(DieHolding(account->mu).Wait(), KilledBy(SIGKILL));
  int repairs = 0;
  auto lock_with_repair = [&] {
    MutexLock lock(account->mu,
                   [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(account->mu) {
                     ++repairs;
                     account->cents = 7;
                   });
    EXPECT_EQ(account->cents, 7);
    EXPECT_FALSE(account->mu.poisoned());
  };
  lock_with_repair();
  lock_with_repair();
  EXPECT_EQ(repairs, 1);
}

TEST(MutexCrashTest, AThrowingOrDyingRepairLeavesThePoison) {
  Shared<Mutex> mu;
  ASSERT_EQ(DieHolding(*mu).Wait(), KilledBy(SIGKILL));
  auto throws = [&] {
    MutexLock lock(*mu, [] { throw std::runtime_error("no journal"); });
  };
  EXPECT_THROW(throws(), std::runtime_error);
  Child repairer =
      Child::Fork([&] { MutexLock lock(*mu, [] { raise(SIGKILL); }); });
  ASSERT_EQ(repairer.Wait(), KilledBy(SIGKILL));
  bool repaired = false;
  MutexLock lock(*mu, [&] { repaired = true; });
  EXPECT_TRUE(repaired);
}

TEST(MutexCrashTest, AnEndingThreadCountsAsADeadHolder) {
  Shared<Mutex> mu;
  std::thread([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->lock(); }).join();
  MutexLock lock(*mu);
  EXPECT_TRUE(mu->poisoned());
}

TEST(MutexCrashTest, ExecveCountsAsDeath) {
  Shared<Mutex> mu;
  Child child = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu->lock();
    execl("/bin/true", "true", nullptr);
    return 1;
  });
  ASSERT_EQ(child.Wait(), Exited(0));
  MutexLock lock(*mu);
  EXPECT_TRUE(mu->poisoned());
}

TEST(MutexCrashTest, ExitAndOtherSignalsToo) {
  Shared<Mutex> mu;
  for (int how : {0, SIGTERM, SIGSEGV}) {
    Child child = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      signal(SIGSEGV, SIG_DFL);  // A sanitizer may have a handler.
      mu->lock();
      return how == 0 ? 0 : raise(how);
    });
    ASSERT_EQ(child.Wait(), how == 0 ? Exited(0) : KilledBy(how));
    MutexLock lock(*mu);
    EXPECT_TRUE(mu->poisoned());
    mu->clear_poison();
  }
}

TEST(MutexCrashTest, AForkedChildDoesNotHoldWhatItsParentHolds)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<Mutex> mu;
  Shared<Mutex> other;
  mu->lock();
  auto body = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (mu->try_lock_for(milliseconds(1))) return 1;
    other->lock();
    return 0;
  };
  EXPECT_EQ(Child::Fork(body).Wait(), Exited(0));
  const pid_t pid = _Fork();  // Runs no pthread_atfork() handler.
  if (pid == 0) _exit(body());
  int status = 1;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  // The children ended with `other` held, and `mu` is still ours.
  EXPECT_FALSE(Child::Fork([&] { return Free(*mu) ? 0 : 1; }).Wait() ==
               Exited(0));
  mu->unlock();
  {
    MutexLock lock(*other);
    EXPECT_TRUE(other->poisoned());
  }
  MutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

TEST(MutexCrashTest, AForkFromAThreadToo) {
  Shared<Mutex> mu;
  std::thread([&] {
    MutexLock lock(*mu);
    EXPECT_EQ(Child::Fork([&] { return mu->try_lock() ? 1 : 0; }).Wait(),
              Exited(0));
  }).join();
  MutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

// A woken waiter is killed before it can act, while a third process takes the
// lock: whoever sleeps behind it must not be forgotten. The waiter is kept from
// acting by the scheduler, which never lets an idle-class thread run before
// this one on the same processor.
TEST(MutexCrashTest, AKilledSuccessorForgetsNobody)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  ASSERT_EQ(sched_setaffinity(0, sizeof here, &here), 0);
  for (int round = 0; round < 30; ++round) {
    Shared<Mutex> mu;
    mu->lock();
    Child successor = Child::Fork([&] {
      const sched_param none = {};
      if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 1;
      MutexLock lock(*mu);
      return 0;
    });
    ASSERT_TRUE(successor.AwaitAsleepInFutex());
    Child behind = Child::Fork([&] {
      sched_setaffinity(0, sizeof before, &before);
      MutexLock lock(*mu);
      return sync_internal::Rescues() == 0 ? 0 : 1;
    });
    ASSERT_TRUE(behind.AwaitAsleepInFutex());
    mu->unlock();
    mu->lock();  // The third.
    successor.Kill(SIGKILL);
    (void)successor.Wait();
    mu->unlock();
    ASSERT_EQ(behind.Wait(), Exited(0));
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

// Nor if it is stopped rather than killed, and nobody else comes by: whoever
// sleeps behind it looks again by itself. This may take a slice.
TEST(MutexTest, AStoppedSuccessorForgetsNobody) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  ASSERT_EQ(sched_setaffinity(0, sizeof here, &here), 0);
  Shared<Mutex> mu;
  mu->lock();
  auto lock_late = [&] {
    const sched_param none = {};
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 1;
    MutexLock lock(*mu);
    return 0;
  };
  Child successor = Child::Fork(lock_late);
  ASSERT_TRUE(successor.AwaitAsleepInFutex());
  Child behind = Child::Fork([&] { MutexLock lock(*mu); });
  ASSERT_TRUE(behind.AwaitAsleepInFutex());
  mu->unlock();
  successor.Kill(SIGSTOP);  // Woken, but it did not run yet.
  EXPECT_EQ(behind.Wait(), Exited(0));
  EXPECT_TRUE(Free(*mu));
  successor.Continue();
  EXPECT_EQ(successor.Wait(), Exited(0));
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(MutexTest, AStoppedHolderHoldsUpNoTimeLimit) {
  struct Arena {
    Mutex mu;
    Gate held, leave;
  };
  Shared<Arena> arena;
  Child holder = Child::Fork([&] {
    MutexLock lock(arena->mu);
    arena->held.Open();
    arena->leave.Pass();
  });
  arena->held.Pass();
  Child patient = Child::Fork([&] { MutexLock lock(arena->mu); });
  ASSERT_TRUE(patient.AwaitAsleepInFutex());
  holder.Stop();
  arena->leave.Open();
  EXPECT_FALSE(arena->mu.try_lock());
  EXPECT_FALSE(arena->mu.try_lock_for(milliseconds(30)));
  holder.Continue();
  EXPECT_EQ(patient.Wait(), Exited(0));
  EXPECT_EQ(holder.Wait(), Exited(0));
  MutexLock lock(arena->mu);
  EXPECT_FALSE(arena->mu.poisoned());
}

TEST(MutexCrashTest, MixesWithRobustMutexesOfLibc) {
  Shared<std::array<Mutex, 3>> ours;
  auto hold_a_mixture = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t theirs[2];
    for (pthread_mutex_t& mutex : theirs) {
      pthread_mutex_init(&mutex, &attributes);
    }
    (*ours)[0].lock();
    pthread_mutex_lock(&theirs[0]);
    (*ours)[1].lock();
    pthread_mutex_lock(&theirs[1]);
    (*ours)[2].lock();
    pthread_mutex_unlock(&theirs[0]);
    (*ours)[1].unlock();
    return raise(SIGKILL);
  };
  ASSERT_EQ(Child::Fork(hold_a_mixture).Wait(), KilledBy(SIGKILL));
  for (int i = 0; i < 3; ++i) {
    MutexLock lock((*ours)[i]);
    EXPECT_EQ((*ours)[i].poisoned(), i != 1) << i;
  }
}

// Misuse.

TEST(MutexDeathTest, UnlockByAnotherThanTheHolderIsFatal) {
  Mutex mu;
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.unlock(); };
  EXPECT_DEATH(misuse(), "^cohort: Mutex: unlocked by another than its holder");
  // By another thread, and by another process, than the one that holds it.
  MutexLock lock(mu);
  EXPECT_DEATH(std::thread(misuse).join(),
               "^cohort: Mutex: unlocked by another than its holder");
  EXPECT_DEATH(misuse(), "^cohort: Mutex: unlocked by another than its holder");
}

TEST(MutexDeathTest, LockByTheHolderIsFatal) {
  Mutex mu;
  auto twice = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    mu.lock();
  };
  EXPECT_DEATH(twice(), "^cohort: Mutex: locked again by its holder");
  auto twice_for = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    (void)mu.try_lock_for(milliseconds(1));
  };
  EXPECT_DEATH(twice_for(), "^cohort: Mutex: locked again by its holder");
}

TEST(MutexDeathTest, AForeignHolderWithTheSameIdIsFatal) {
  // As processes of two PID namespaces would see it.
  Mutex mu;
  auto collide = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const auto self = static_cast<uint32_t>(syscall(SYS_gettid));
    std::memcpy(static_cast<void*>(&mu), &self, sizeof self);
    mu.lock();
  };
  EXPECT_DEATH(collide(), "^cohort: Mutex: .*two PID namespaces share it");
}

// The first process of each PID namespace has the id 1.
TEST(MutexDeathTest, AHolderInAnotherPidNamespaceIsFatal) {
  Shared<Mutex> mu;
  // Runs `body` as the first process of a namespace; 77 where that is refused.
  auto run_as_first = [](auto body) {
    if (unshare(CLONE_NEWPID) != 0) return 77;
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      body();
      _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return 78;
    if (status != 0) abort();  // A sanitizer turns signals into a status.
    return 0;
  };
  Child holder = Child::Fork([&] {
    return run_as_first([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      mu->lock();
      pause();
    });
  });
  while (holder.Running() && WordOf(*mu) != 1) sched_yield();
  if (!holder.Running()) {
    ASSERT_EQ(holder.Wait(), Exited(77));
    GTEST_SKIP() << "unshare(CLONE_NEWPID) is refused";
  }
  EXPECT_DEATH(
      run_as_first([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->lock(); }),
      "^cohort: Mutex: .*two PID namespaces share it");
}

TEST(MutexDeathTest, AChildOfARawCloneIsRefused) {
  Shared<Mutex> mu;
  { MutexLock lock(*mu); }
  auto clone_and_lock = [&] {
    const auto pid =
        static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (pid == 0) {
      MutexLock lock(*mu);
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) raise(WTERMSIG(status));
  };
  EXPECT_EXIT(clone_and_lock(), testing::KilledBySignal(SIGABRT),
              "has no robust list");
  EXPECT_TRUE(Free(*mu));
}

TEST(MutexDeathTest, ReconstructionUnderTheHolderIsFatal) {
  Mutex mu;
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    std::memset(static_cast<void*>(&mu), 0, sizeof mu);
    mu.unlock();
  };
  EXPECT_DEATH(misuse(), "^cohort: Mutex: its word was overwritten");
}

TEST(MutexDeathTest, OneTooManyIsFatal) {
  std::vector<Mutex> locks(1025);
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Mutex& mu : locks) mu.lock();
  };
  EXPECT_DEATH(misuse(), "holds 1024 mutexes and locks another");
}

}  // namespace
}  // namespace cohort
