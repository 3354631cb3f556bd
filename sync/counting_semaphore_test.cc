// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/counting_semaphore.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/internal/wait_word.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::KilledBy;
using cohort_testing::Shared;
using std::chrono::milliseconds;
using sync_internal::kSleepers;

static_assert(std::is_trivially_destructible_v<CountingSemaphore>);
static_assert(std::is_standard_layout_v<CountingSemaphore>);
static_assert(!std::is_copy_constructible_v<CountingSemaphore>);
static_assert(!std::is_copy_assignable_v<CountingSemaphore>);

// Takes all permits that there are, and says how many these were.
ptrdiff_t Drain(CountingSemaphore& semaphore) {
  ptrdiff_t permits = 0;
  while (semaphore.try_acquire()) ++permits;
  return permits;
}

std::atomic<uint32_t>& WordOf(CountingSemaphore& semaphore) {
  return *reinterpret_cast<std::atomic<uint32_t>*>(&semaphore);
}

TEST(CountingSemaphoreTest, AnEmptyOneIsAllZero) {
  alignas(CountingSemaphore) unsigned char bytes[sizeof(CountingSemaphore)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) CountingSemaphore;
  const unsigned char zero[sizeof(CountingSemaphore)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(CountingSemaphoreTest, AllZeroBytesAreNoPermits) {
  Shared<CountingSemaphore> semaphore;
  EXPECT_EQ(semaphore->value(), 0);
  EXPECT_FALSE(semaphore->try_acquire());
}

TEST(CountingSemaphoreTest, BeginsWithItsPermits) {
  static constinit CountingSemaphore semaphore(3);
  EXPECT_EQ(semaphore.value(), 3);
  EXPECT_EQ(Drain(semaphore), 3);
  EXPECT_EQ(semaphore.value(), 0);
}

TEST(CountingSemaphoreTest, CountsWhatIsReleased) {
  CountingSemaphore semaphore;
  semaphore.release();
  semaphore.release(3);
  semaphore.release(0);
  EXPECT_EQ(semaphore.value(), 4);
  semaphore.acquire();
  EXPECT_EQ(semaphore.value(), 3);
  EXPECT_EQ(Drain(semaphore), 3);
}

TEST(CountingSemaphoreTest, HoldsAsManyAsPromised) {
  CountingSemaphore semaphore(CountingSemaphore::max());
  EXPECT_EQ(semaphore.value(), CountingSemaphore::max());
  semaphore.acquire();
  semaphore.release();
  EXPECT_EQ(semaphore.value(), CountingSemaphore::max());
  CountingSemaphore filled;
  filled.release(CountingSemaphore::max());
  EXPECT_EQ(filled.value(), CountingSemaphore::max());
}

TEST(CountingSemaphoreTest, PassesFromProcessToProcess) {
  struct Two {
    CountingSemaphore there, back;
    int value;
  };
  constexpr int kRounds = 20'000;
  Shared<Two> two;
  Child child = Child::Fork([&] {
    for (int i = 0; i < kRounds; ++i) {
      two->there.acquire();
      if (two->value != i) return 1;
      two->back.release();
    }
    return 0;
  });
  for (int i = 0; i < kRounds; ++i) {
    two->value = i;
    two->there.release();
    two->back.acquire();
  }
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(CountingSemaphoreTest, NoPermitIsLostOrDoubledBetweenThreads) {
  constexpr int kRounds = 20'000;
  CountingSemaphore semaphore(3);
  std::atomic<int> inside = 0;
  std::atomic<bool> crowded = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < 5; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        semaphore.acquire();
        if (++inside > 3) crowded = true;
        --inside;
        semaphore.release();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(crowded);
  EXPECT_EQ(semaphore.value(), 3);
}

TEST(CountingSemaphoreTest, WorksAtAnotherAddressInEachProcess) {
  Shared<CountingSemaphore> semaphore;
  // The same page a second time.
  void* twin = mremap(semaphore.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  auto* alias = static_cast<CountingSemaphore*>(twin);
  Child child = Child::Fork([&] { alias->acquire(); });
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  semaphore->release();
  EXPECT_EQ(child.Wait(), Exited(0));
  munmap(twin, 4096);
}

TEST(CountingSemaphoreTest, AWaitOfNoTimeTriesOnce) {
  CountingSemaphore semaphore;
  auto poll = [&] {
    return semaphore.try_acquire_for(milliseconds(0)) ||
           semaphore.try_acquire_for(milliseconds(-1)) ||
           semaphore.try_acquire_for(-absl::InfiniteDuration()) ||
           semaphore.try_acquire_until(Deadline::Now());
  };
  EXPECT_FALSE(poll());
  semaphore.release();
  EXPECT_TRUE(poll());
  EXPECT_FALSE(poll());
}

TEST(CountingSemaphoreTest, TimesOut) {
  CountingSemaphore semaphore;
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(semaphore.try_acquire_until(deadline));
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(semaphore.try_acquire_for(absl::Milliseconds(1)));
  semaphore.release();
  EXPECT_TRUE(semaphore.try_acquire_for(absl::Milliseconds(1)));
}

TEST(CountingSemaphoreTest, AWaitWithATimeLimitIsWoken) {
  Shared<CountingSemaphore> semaphore;
  Child waiter = Child::Fork([&] {
    if (!semaphore->try_acquire_for(absl::InfiniteDuration())) return 1;
    return semaphore->try_acquire_for(std::chrono::hours(1)) ? 0 : 2;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  semaphore->release();
  semaphore->release();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

// The waiters here do without slices: each wake-up has to be a real one.
TEST(CountingSemaphoreTest, ReleaseWakesAsManyAsItLetsIn) {
  for (const int released : {1, 2, 5}) {
    Shared<CountingSemaphore> semaphore;
    Shared<std::atomic<int>> passed;
    std::vector<Child> waiters;
    for (int i = 0; i < 5; ++i) {
      waiters.push_back(Child::Fork([&] {
        os::Slices::TurnOff();
        semaphore->acquire();
        ++*passed;
      }));
      ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
    }
    for (int round = 0; round < 5; round += released) {
      const int due = std::min(5, round + released);
      semaphore->release(due - round);
      while (*passed < due) sched_yield();
      EXPECT_EQ(*passed, due);
    }
    for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
    EXPECT_EQ(semaphore->value(), 0);
  }
}

TEST(CountingSemaphoreTest, TheMarkOfSleepersStaysWhileThereAreSome) {
  Shared<CountingSemaphore> semaphore;
  std::atomic<uint32_t>& word = WordOf(*semaphore);
  std::vector<Child> waiters;
  for (int i = 0; i < 2; ++i) {
    waiters.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      semaphore->acquire();
    }));
    ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  EXPECT_EQ(word, kSleepers);
  semaphore->release();
  EXPECT_NE(word & kSleepers, 0u);
  semaphore->release();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  // Nobody is left; it goes with the first wake-up that finds nobody.
  semaphore->release();
  EXPECT_EQ(word, 1u);
}

// A waiter that gives up may have had the wake-up that another needs.
TEST(CountingSemaphoreTest, WhoeverHasSleptLeavesTheMark) {
  for (const bool in_time : {false, true}) {
    Shared<CountingSemaphore> semaphore;
    std::atomic<uint32_t>& word = WordOf(*semaphore);
    Child waiter = Child::Fork([&] {
      return semaphore->try_acquire_for(milliseconds(in_time ? 20'000 : 100))
                 ? 1
                 : 0;
    });
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    word.fetch_and(~kSleepers);
    if (in_time) {
      semaphore->release();  // Which wakes nobody: the slice does.
    }
    EXPECT_EQ(waiter.Wait(), Exited(in_time ? 1 : 0));
    EXPECT_EQ(word, kSleepers);
  }
}

TEST(CountingSemaphoreTest, AHandlerDoesNotEndTheWait) {
  Shared<CountingSemaphore> semaphore;
  Shared<std::atomic<int>> handled;
  static std::atomic<int>* count;
  count = handled.get();
  Child waiter = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++*count; };
    sigaction(SIGUSR1, &action, nullptr);
    *count = 1;
    semaphore->acquire();
  });
  while (*handled == 0) sched_yield();
  for (int signals = 2; signals <= 5; ++signals) {
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    waiter.Kill(SIGUSR1);
    while (*handled < signals) sched_yield();
  }
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  semaphore->release();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(CountingSemaphoreTest, AHandlerMayRelease) {
  static CountingSemaphore semaphore;
  struct sigaction action = {};
  action.sa_handler = [](int) { semaphore.release(); };
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  raise(SIGUSR1);
  EXPECT_TRUE(semaphore.try_acquire());
  sigaction(SIGUSR1, &before, nullptr);
}

// A handler takes and adds permits in the middle of anything, with `errno` as it
// was, while another process does without slices.
TEST(CountingSemaphoreTest, AHandlerMayInterruptEveryMember) {
  struct Arena {
    CountingSemaphore semaphore{1};
    std::atomic<int> signals = 0;
    std::atomic<int> added = 0;
    std::atomic<bool> stop = false;
  };
  Shared<Arena> arena(std::in_place);
  static Arena* handled;
  handled = arena.get();
  Child bystander = Child::Fork([&] {
    os::Slices::TurnOff();
    while (!arena->stop) {
      arena->semaphore.acquire();
      arena->semaphore.release();
    }
  });
  Child child = Child::Fork([&] {
    os::Slices::TurnOff();
    struct sigaction action = {};
    action.sa_handler = [](int) {
      const int before = errno;
      if (++handled->signals % 2 == 0) {
        if (handled->semaphore.try_acquire()) handled->semaphore.release();
      } else {
        handled->semaphore.release();
        if (!handled->semaphore.try_acquire()) ++handled->added;
      }
      if (errno != before) raise(SIGABRT);
    };
    sigaction(SIGALRM, &action, nullptr);
    const itimerval often = {{0, 50}, {0, 50}};
    setitimer(ITIMER_REAL, &often, nullptr);
    errno = 4711;
    while (arena->signals < 1'000) {
      arena->semaphore.acquire();
      arena->semaphore.release();
      if (errno != 4711) return 1;
    }
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
    return 0;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
  arena->stop = true;
  EXPECT_EQ(bystander.Wait(), Exited(0));
  EXPECT_EQ(arena->semaphore.value(), 1 + arena->added);
}

// What a wrong guess costs is time, never a permit.
TEST(CountingSemaphoreTest, AnyGuessWillDo) {
  for (const uint32_t guess : {0u, 1u, 2u, 3u, 77u, 0x7fffffffu, kSleepers,
                               kSleepers | 2u, 0xffffffffu}) {
    Shared<CountingSemaphore> semaphore(std::in_place, 2);
    (&WordOf(*semaphore))[1] = guess;
    EXPECT_TRUE(semaphore->try_acquire()) << guess;
    EXPECT_EQ(semaphore->value(), 1) << guess;
    (&WordOf(*semaphore))[1] = guess;
    EXPECT_TRUE(semaphore->try_acquire()) << guess;
    (&WordOf(*semaphore))[1] = guess;
    EXPECT_FALSE(semaphore->try_acquire()) << guess;
    EXPECT_EQ(semaphore->value(), 0) << guess;
  }
}

// Death.

TEST(CountingSemaphoreCrashTest, PermitsStayWhoeverDies) {
  Shared<CountingSemaphore> semaphore(std::in_place, 1);
  Child taker = Child::Fork([&] {
    semaphore->acquire();
    return raise(SIGKILL);
  });
  ASSERT_EQ(taker.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(semaphore->value(), 0);
  Child giver = Child::Fork([&] {
    semaphore->release(2);
    return raise(SIGKILL);
  });
  ASSERT_EQ(giver.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(Drain(*semaphore), 2);
}

TEST(CountingSemaphoreCrashTest, AKilledWaiterTakesNothing) {
  Shared<CountingSemaphore> semaphore;
  Child waiter = Child::Fork([&] { semaphore->acquire(); });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  waiter.Kill(SIGKILL);
  ASSERT_EQ(waiter.Wait(), KilledBy(SIGKILL));
  semaphore->release();
  EXPECT_EQ(Drain(*semaphore), 1);
}

TEST(CountingSemaphoreCrashTest, AStoppedWaiterHoldsNobodyUp) {
  Shared<CountingSemaphore> semaphore;
  Child stopped = Child::Fork([&] { semaphore->acquire(); });
  ASSERT_TRUE(stopped.AwaitAsleepInFutex());
  Child other = Child::Fork([&] { semaphore->acquire(); });
  ASSERT_TRUE(other.AwaitAsleepInFutex());
  stopped.Stop();
  // The wake-up may go to the one that is stopped.
  semaphore->release();
  EXPECT_EQ(other.Wait(), Exited(0));
  stopped.Continue();
  semaphore->release();
  EXPECT_EQ(stopped.Wait(), Exited(0));
}

// A woken waiter is killed before it can act, while a third process takes the
// permit: whoever sleeps behind it must not be forgotten, slices or not. The
// waiter is kept from acting by the scheduler, which never lets an idle-class
// thread run before this one on the same processor.
TEST(CountingSemaphoreCrashTest, AKilledSuccessorForgetsNobody) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  ASSERT_EQ(sched_setaffinity(0, sizeof here, &here), 0);
  for (int round = 0; round < 30; ++round) {
    Shared<CountingSemaphore> semaphore;
    Child successor = Child::Fork([&] {
      const sched_param none = {};
      if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 1;
      semaphore->acquire();
      return 0;
    });
    ASSERT_TRUE(successor.AwaitAsleepInFutex());
    Child behind = Child::Fork([&] {
      sched_setaffinity(0, sizeof before, &before);
      os::Slices::TurnOff();
      semaphore->acquire();
    });
    ASSERT_TRUE(behind.AwaitAsleepInFutex());
    semaphore->release();
    if (!semaphore->try_acquire()) {
      // It was faster; nothing is shown by this round.
      semaphore->release();
      (void)successor.Wait();
      ASSERT_EQ(behind.Wait(), Exited(0));
      continue;
    }
    successor.Kill(SIGKILL);
    (void)successor.Wait();
    semaphore->release();
    ASSERT_EQ(behind.Wait(), Exited(0));
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

// Misuse.

TEST(CountingSemaphoreDeathTest, OneTooManyIsFatal) {
  CountingSemaphore semaphore(CountingSemaphore::max());
  EXPECT_DEATH(semaphore.release(),
               "^cohort: CountingSemaphore: released to more than max");
  EXPECT_DEATH(semaphore.release(5),
               "^cohort: CountingSemaphore: released to more than max");
  CountingSemaphore other(2);
  EXPECT_DEATH(other.release(CountingSemaphore::max()),
               "^cohort: CountingSemaphore: released to more than max");
  EXPECT_DEATH(other.release(PTRDIFF_MAX),
               "^cohort: CountingSemaphore: released to more than max");
}

// Others go on as if nothing had been tried.
TEST(CountingSemaphoreDeathTest, OneTooManyAddsNothing) {
  Shared<CountingSemaphore> semaphore(std::in_place, CountingSemaphore::max());
  EXPECT_EQ(Child::Fork([&] { semaphore->release(); }).Wait(),
            KilledBy(SIGABRT));
  EXPECT_EQ(Child::Fork([&] { semaphore->release(2); }).Wait(),
            KilledBy(SIGABRT));
  EXPECT_EQ(semaphore->value(), CountingSemaphore::max());
}

TEST(CountingSemaphoreDeathTest, NegativeNumbersAreFatal) {
  CountingSemaphore semaphore(1);
  EXPECT_DEATH(semaphore.release(-1),
               "^cohort: CountingSemaphore: less than 0 permits released");
  EXPECT_DEATH(semaphore.release(PTRDIFF_MIN), "less than 0 permits released");
  EXPECT_DEATH(CountingSemaphore(-1),
               "^cohort: CountingSemaphore: permits not between 0 and max");
  EXPECT_DEATH(CountingSemaphore(CountingSemaphore::max() + 1),
               "permits not between 0 and max");
}

}  // namespace
}  // namespace cohort
