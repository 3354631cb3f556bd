// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/semaphore.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/process_identity.h"
#include "cohort/sync/internal/permit_ledger.h"
#include "cohort/sync/internal/short_lock.h"
#include "cohort/sync/internal/wait_word.h"
#include "cohort/testing/asleep.h"
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
using sync_internal::kSleepers;
using sync_internal::PermitSlot;
using sync_internal::ShortLock;

static_assert(std::is_trivially_destructible_v<Semaphore>);
static_assert(std::is_standard_layout_v<Semaphore>);
static_assert(!std::is_copy_constructible_v<Semaphore>);
static_assert(!std::is_copy_assignable_v<Semaphore>);

// Where the parts stand: docs/design/semaphore.md.
std::atomic<uint32_t>& WordOf(void* semaphore, int index) {
  return static_cast<std::atomic<uint32_t>*>(semaphore)[index];
}
ShortLock& LockOf(Semaphore& semaphore) {
  return *reinterpret_cast<ShortLock*>(&semaphore);
}
std::atomic<uint32_t>& FreeOf(Semaphore& semaphore) {
  return WordOf(&semaphore, 1);
}
PermitSlot* SlotsOf(Semaphore& semaphore) {
  return reinterpret_cast<PermitSlot*>(reinterpret_cast<char*>(&semaphore) +
                                       32);
}

// A process that holds `n` permits until it is killed or the gate opens.
template <typename AnySemaphore>
Child Hold(AnySemaphore& semaphore, Gate& gate, int n = 1) {
  Child child = Child::Fork([&, n] {
    for (int i = 0; i < n; ++i) semaphore.acquire();
    gate.Pass();
    semaphore.release(n);
  });
  EXPECT_TRUE(child.AwaitAsleepInFutex());
  return child;
}

// Dies with `n` permits; no handshake is needed.
template <typename AnySemaphore>
Child DieHolding(AnySemaphore& semaphore, int n = 1) {
  return Child::Fork([&, n] {
    for (int i = 0; i < n; ++i) semaphore.acquire();
    return raise(SIGKILL);
  });
}

TEST(SemaphoreTest, AnEmptyOneIsAllZero) {
  alignas(Semaphore) static unsigned char bytes[sizeof(Semaphore)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) Semaphore;
  static const unsigned char zero[sizeof(Semaphore)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(SemaphoreTest, AllZeroBytesAreNoPermits) {
  Shared<Semaphore> semaphore;
  EXPECT_EQ(semaphore->value(), 0);
  EXPECT_EQ(semaphore->permits(), 0);
  EXPECT_FALSE(semaphore->try_acquire());
  EXPECT_EQ(semaphore->reclaim(), 0);
}

TEST(SemaphoreTest, CountsWhatIsFreeAndWhatIsHeld) {
  static constinit Semaphore semaphore(3);
  EXPECT_EQ(semaphore.permits(), 3);
  EXPECT_EQ(semaphore.value(), 3);
  EXPECT_EQ(semaphore.held(), 0);
  semaphore.acquire();
  EXPECT_TRUE(semaphore.try_acquire());
  EXPECT_EQ(semaphore.value(), 1);
  EXPECT_EQ(semaphore.held(), 2);
  EXPECT_TRUE(semaphore.try_acquire());
  EXPECT_FALSE(semaphore.try_acquire());
  semaphore.release(0);
  EXPECT_EQ(semaphore.held(), 3);
  semaphore.release(2);
  semaphore.release();
  EXPECT_EQ(semaphore.value(), 3);
  EXPECT_EQ(semaphore.held(), 0);
  EXPECT_EQ(semaphore.permits(), 3);
}

TEST(SemaphoreTest, HoldsAsManyAsPromised) {
  Shared<Semaphore> semaphore(std::in_place, Semaphore::max());
  EXPECT_EQ(semaphore->value(), Semaphore::max());
  semaphore->acquire();
  EXPECT_EQ(semaphore->value(), Semaphore::max() - 1);
  semaphore->release();
  EXPECT_EQ(semaphore->value(), Semaphore::max());
}

TEST(SemaphoreTest, LetsNoMoreInThanItHasPermits) {
  constexpr int kPermits = 2;
  constexpr int kRounds = 10'000;
  struct Room {
    Semaphore semaphore{kPermits};
    std::atomic<int> inside = 0;
  };
  Shared<Room> room(std::in_place);
  auto visit = [&] {
    for (int i = 0; i < kRounds; ++i) {
      SemaphoreLock lock(room->semaphore);
      if (++room->inside > kPermits) return 1;
      --room->inside;
    }
    return 0;
  };
  std::vector<Child> children;
  for (int i = 0; i < 3; ++i) children.push_back(Child::Fork(visit));
  EXPECT_EQ(visit(), 0);
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(room->semaphore.value(), kPermits);
}

TEST(SemaphoreTest, LetsNoMoreThreadsInThanItHasPermits) {
  Semaphore semaphore(2);
  std::atomic<int> inside = 0;
  std::atomic<bool> crowded = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5'000; ++i) {
        SemaphoreLock lock(semaphore);
        if (++inside > 2) crowded = true;
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(crowded);
  EXPECT_EQ(semaphore.value(), 2);
}

TEST(SemaphoreTest, AnotherThreadMayRelease) {
  Semaphore semaphore(1);
  std::thread([&] { semaphore.acquire(); }).join();
  // Nor does the end of a thread give anything back.
  EXPECT_EQ(semaphore.reclaim(), 0);
  EXPECT_EQ(semaphore.held(), 1);
  semaphore.release();
  EXPECT_EQ(semaphore.value(), 1);
}

TEST(SemaphoreTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  // The same page a second time.
  void* twin = mremap(semaphore.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  auto* alias = static_cast<Semaphore*>(twin);
  semaphore->acquire();
  Child child = Child::Fork([&] { alias->acquire(); });
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  semaphore->release();
  EXPECT_EQ(child.Wait(), Exited(0));
  munmap(twin, 4096);
}

TEST(SemaphoreTest, AWaitOfNoTimeTriesOnce) {
  Semaphore semaphore(1);
  auto poll = [&] {
    return semaphore.try_acquire_for(milliseconds(0)) ||
           semaphore.try_acquire_for(milliseconds(-1)) ||
           semaphore.try_acquire_for(-absl::InfiniteDuration()) ||
           semaphore.try_acquire_until(Deadline::Now());
  };
  EXPECT_TRUE(poll());
  EXPECT_FALSE(poll());
}

TEST(SemaphoreTest, TimesOut) {
  Semaphore semaphore(1);
  semaphore.acquire();
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(semaphore.try_acquire_until(deadline));
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(semaphore.try_acquire_for(absl::Milliseconds(1)));
  semaphore.release();
  EXPECT_TRUE(semaphore.try_acquire_for(absl::Milliseconds(1)));
}

TEST(SemaphoreTest, AWaitWithATimeLimitIsWoken) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  semaphore->acquire();
  Child waiter = Child::Fork([&] {
    if (!semaphore->try_acquire_for(absl::InfiniteDuration())) return 1;
    semaphore->release();
    return semaphore->try_acquire_for(std::chrono::hours(1)) ? 0 : 2;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  semaphore->release();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

// The waiters here do without slices: each wake-up has to be a real one.
TEST(SemaphoreTest, ReleaseWakesAsManyAsItLetsIn) {
  for (const int released : {1, 2, 5}) {
    Shared<Semaphore> semaphore(std::in_place, 5);
    Shared<std::atomic<int>> passed;
    Shared<Gate> gate;
    for (int i = 0; i < 5; ++i) semaphore->acquire();
    std::vector<Child> waiters;
    for (int i = 0; i < 5; ++i) {
      waiters.push_back(Child::Fork([&] {
        os::Slices::TurnOff();
        semaphore->acquire();
        ++*passed;
        gate->Pass();
      }));
      ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
    }
    for (int round = 0; round < 5; round += released) {
      const int due = std::min(5, round + released);
      semaphore->release(due - round);
      while (*passed < due) sched_yield();
      EXPECT_EQ(*passed, due);
    }
    gate->Open();
    for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
    EXPECT_EQ(semaphore->reclaim(), 5);
  }
}

TEST(SemaphoreTest, TheMarkOfSleepersGoesWithTheLastOne) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  std::atomic<uint32_t>& free = FreeOf(*semaphore);
  semaphore->acquire();
  std::vector<Child> waiters;
  for (int i = 0; i < 2; ++i) {
    waiters.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      SemaphoreLock lock(*semaphore);
    }));
    ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  EXPECT_EQ(free, kSleepers);
  semaphore->release();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  // Nobody is left; it goes with the first wake-up that finds nobody.
  semaphore->acquire();
  semaphore->release();
  EXPECT_EQ(free, 1u);
}

// A waiter that gives up may have had the wake-up that another needs.
TEST(SemaphoreTest, WhoeverHasSleptLeavesTheMark) {
  for (const bool in_time : {false, true}) {
    Shared<Semaphore> semaphore(std::in_place, 1);
    std::atomic<uint32_t>& free = FreeOf(*semaphore);
    semaphore->acquire();
    Child waiter = Child::Fork([&] {
      return semaphore->try_acquire_for(milliseconds(in_time ? 20'000 : 100))
                 ? 1
                 : 0;
    });
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    free.fetch_and(~kSleepers);
    if (in_time) semaphore->release();  // Which wakes nobody: the slice does.
    EXPECT_EQ(waiter.Wait(), Exited(in_time ? 1 : 0));
    EXPECT_EQ(free, kSleepers);
  }
}

TEST(SemaphoreTest, AHandlerDoesNotEndTheWait) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  Shared<std::atomic<int>> handled;
  static std::atomic<int>* count;
  count = handled.get();
  semaphore->acquire();
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

TEST(SemaphoreLockTest, HoldsOneForTheScope) {
  Semaphore semaphore(2);
  {
    SemaphoreLock lock(semaphore);
    EXPECT_EQ(semaphore.held(), 1);
  }
  EXPECT_EQ(semaphore.held(), 0);
}

// The table of holders.

TEST(SemaphoreTest, AFullTableIsAsNoPermit) {
  using Narrow = BasicSemaphore<2>;
  Shared<Narrow> semaphore(std::in_place, 5);
  Shared<Gate> first_gate, second_gate;
  Child first = Hold(*semaphore, *first_gate, 2);
  Child second = Hold(*semaphore, *second_gate);
  EXPECT_EQ(semaphore->value(), 2);
  EXPECT_FALSE(semaphore->try_acquire());
  EXPECT_FALSE(semaphore->try_acquire_for(milliseconds(1)));
  EXPECT_EQ(semaphore->value(), 2);
  EXPECT_EQ(semaphore->held(), 0);
  first_gate->Open();
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_TRUE(semaphore->try_acquire());
  EXPECT_EQ(semaphore->held(), 1);
  second.Kill(SIGKILL);
  (void)second.Wait();
  EXPECT_EQ(semaphore->reclaim(), 1);
  EXPECT_EQ(semaphore->value(), 4);
}

// The waiters here do without slices.
TEST(SemaphoreTest, AVacantSlotWakesWhoeverWaitsForOne) {
  using Narrow = BasicSemaphore<1>;
  Shared<Narrow> semaphore(std::in_place, 9);
  semaphore->acquire();
  semaphore->acquire();
  std::vector<Child> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      semaphore->acquire();
      semaphore->acquire();
      semaphore->release();
      semaphore->release();
    }));
    ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  semaphore->release();
  for (Child& waiter : waiters) EXPECT_TRUE(waiter.Running());
  semaphore->release();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 9);
}

// Two that waited for a permit are woken and find no slot: the wake-up has to
// go on to the one behind them, who has a slot. They are kept from acting until
// the slot is gone by the scheduler, which never lets an idle-class thread run
// before this one on the same processor. Nobody has slices.
TEST(SemaphoreTest, AWakeUpThatCannotBeUsedIsPassedOn) {
  using Narrow = BasicSemaphore<2>;
  for (int round = 0; round < 10; ++round) {
    Shared<Narrow> semaphore(std::in_place, 3);
    Shared<Gate> gate;
    Shared<std::atomic<int>> step;
    Child holder = Child::Fork([&] {
      os::Slices::TurnOff();
      cpu_set_t everywhere;
      sched_getaffinity(0, sizeof everywhere, &everywhere);
      for (int i = 0; i < 3; ++i) semaphore->acquire();
      std::vector<Child> late;
      cpu_set_t here;
      CPU_ZERO(&here);
      CPU_SET(sched_getcpu(), &here);
      sched_setaffinity(0, sizeof here, &here);
      for (int i = 0; i < 2; ++i) {
        late.push_back(Child::Fork([&] {
          const sched_param none = {};
          if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 1;
          SemaphoreLock lock(*semaphore);
          return 0;
        }));
        if (!late.back().AwaitAsleepInFutex()) return 2;
      }
      std::atomic<pid_t> id = 0;
      std::thread behind([&] {
        sched_setaffinity(0, sizeof everywhere, &everywhere);
        id = gettid();
        semaphore->acquire();
      });
      while (id == 0) sched_yield();
      if (!cohort_testing::AwaitAsleepInFutex(id)) return 3;
      semaphore->release(2);
      *step = 1;
      while (*step == 1) {
      }
      behind.join();
      semaphore->release(semaphore->held());
      for (Child& child : late) {
        if (child.Wait() != Exited(0)) return 4;
      }
      return 0;
    });
    while (*step == 0 && holder.Running()) sched_yield();
    const bool taken = semaphore->try_acquire();
    *step = 2;
    EXPECT_EQ(holder.Wait(), Exited(0));
    if (taken) semaphore->release();
    EXPECT_EQ(semaphore->value(), 3);
  }
}

// A waiter is woken, but time is over before it gets at the table: whoever
// sleeps behind it gets the wake-up. How it is kept from acting: as above.
TEST(SemaphoreTest, AWakeUpThatComesTooLateIsPassedOn) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  ASSERT_EQ(sched_setaffinity(0, sizeof here, &here), 0);
  Shared<Semaphore> semaphore(std::in_place, 1);
  semaphore->acquire();
  Child late = Child::Fork([&] {
    os::Slices::TurnOff();
    const sched_param none = {};
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 2;
    return semaphore->try_acquire_for(std::chrono::seconds(1)) ? 1 : 0;
  });
  ASSERT_TRUE(late.AwaitAsleepInFutex());
  Child behind = Child::Fork([&] {
    sched_setaffinity(0, sizeof before, &before);
    os::Slices::TurnOff();
    semaphore->acquire();
  });
  ASSERT_TRUE(behind.AwaitAsleepInFutex());
  semaphore->release();
  (void)LockOf(*semaphore).Lock();
  EXPECT_EQ(late.Wait(), Exited(0));
  LockOf(*semaphore).Unlock();
  EXPECT_EQ(behind.Wait(), Exited(0));
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(SemaphoreTest, AVacantSlotIsTakenOver) {
  using Narrow = BasicSemaphore<1>;
  Shared<Narrow> semaphore(std::in_place, 2);
  for (int i = 0; i < 3; ++i) {
    semaphore->acquire();
    semaphore->release();
    Child other = Child::Fork([&] {
      semaphore->acquire();
      if (semaphore->held() != 1) return 1;
      semaphore->release();
      return 0;
    });
    ASSERT_EQ(other.Wait(), Exited(0));
    EXPECT_EQ(semaphore->held(), 0);
  }
  EXPECT_EQ(semaphore->value(), 2);
}

// Whoever has the home of another, that one finds its slot all the same.
TEST(SemaphoreTest, ProcessesWithTheSameHomeGetAlong) {
  using Narrow = BasicSemaphore<3>;
  Shared<Narrow> semaphore(std::in_place, 9);
  for (int tries = 0;; ++tries) {
    ASSERT_LT(tries, 1000) << "no child has the home of this process";
    Shared<Gate> gate;
    Child holder = Hold(*semaphore, *gate, 2);
    const bool at_home = holder.pid() % 3 == getpid() % 3;
    if (at_home) {
      semaphore->acquire();
      EXPECT_EQ(semaphore->held(), 1);
      EXPECT_EQ(semaphore->value(), 6);
    }
    gate->Open();
    EXPECT_EQ(holder.Wait(), Exited(0));
    if (at_home) break;
  }
  // Its slot stands behind a vacant one now.
  semaphore->acquire();
  EXPECT_EQ(semaphore->held(), 2);
  semaphore->release(2);
  EXPECT_EQ(semaphore->value(), 9);
}

// Death.

TEST(SemaphoreCrashTest, PermitsComeHomeToWhoeverTries) {
  Shared<Semaphore> semaphore(std::in_place, 2);
  ASSERT_EQ(DieHolding(*semaphore, 2).Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(semaphore->value(), 0);  // Nobody has noticed.
  EXPECT_TRUE(semaphore->try_acquire());
  EXPECT_EQ(semaphore->value(), 1);
}

TEST(SemaphoreCrashTest, PermitsComeHomeToASleeper) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  Shared<Gate> gate;
  Child holder = Hold(*semaphore, *gate);
  std::vector<Child> waiters;
  for (int i = 0; i < 2; ++i) {
    waiters.push_back(Child::Fork([&] { SemaphoreLock lock(*semaphore); }));
    ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  holder.Kill(SIGKILL);
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 1);
}

TEST(SemaphoreCrashTest, ReclaimGivesBackWhatTheDeadHold) {
  Shared<Semaphore> semaphore(std::in_place, 9);
  Shared<Gate> gate;
  Child living = Hold(*semaphore, *gate, 2);
  ASSERT_EQ(DieHolding(*semaphore, 3).Wait(), KilledBy(SIGKILL));
  ASSERT_EQ(DieHolding(*semaphore, 1).Wait(), KilledBy(SIGKILL));
  semaphore->acquire();
  EXPECT_EQ(semaphore->value(), 2);
  EXPECT_EQ(semaphore->reclaim(), 4);
  EXPECT_EQ(semaphore->reclaim(), 0);
  EXPECT_EQ(semaphore->value(), 6);
  gate->Open();
  EXPECT_EQ(living.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 8);
}

// The waiters here do without slices: each wake-up has to be a real one.
TEST(SemaphoreCrashTest, ReclaimWakesAsManyAsItLetsIn) {
  Shared<Semaphore> semaphore(std::in_place, 2);
  Shared<Gate> gate;
  Shared<std::atomic<int>> passed;
  Child holder = Hold(*semaphore, *gate, 2);
  std::vector<Child> waiters;
  for (int i = 0; i < 2; ++i) {
    waiters.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      semaphore->acquire();
      ++*passed;
      gate->Pass();  // It would be reclaimed from, too.
    }));
    ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  holder.Kill(SIGKILL);
  (void)holder.Wait();
  EXPECT_EQ(semaphore->reclaim(), 2);
  while (*passed < 2) sched_yield();
  gate->Open();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(SemaphoreCrashTest, AnyEndWillDo) {
  for (int how : {0, SIGTERM, SIGSEGV}) {
    Shared<Semaphore> semaphore(std::in_place, 1);
    Child child = Child::Fork([&] {
      signal(SIGSEGV, SIG_DFL);  // A sanitizer may have a handler.
      semaphore->acquire();
      return how == 0 ? 0 : raise(how);
    });
    ASSERT_EQ(child.Wait(), how == 0 ? Exited(0) : KilledBy(how));
    EXPECT_EQ(semaphore->reclaim(), 1);
  }
}

TEST(SemaphoreCrashTest, AZombieHoldsNothing) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  Child child = DieHolding(*semaphore);
  siginfo_t info;
  ASSERT_EQ(
      waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT),
      0);
  EXPECT_EQ(semaphore->reclaim(), 1);
}

TEST(SemaphoreCrashTest, AStoppedHolderIsAlive) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  Shared<Gate> gate;
  Child holder = Hold(*semaphore, *gate);
  holder.Stop();
  EXPECT_EQ(semaphore->reclaim(), 0);
  EXPECT_FALSE(semaphore->try_acquire_for(milliseconds(50)));
  holder.Continue();
  gate->Open();
  EXPECT_EQ(holder.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 1);
}

TEST(SemaphoreCrashTest, ALaterOwnerOfThePidDoesNotKeepThem) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  ASSERT_EQ(DieHolding(*semaphore).Wait(), KilledBy(SIGKILL));
  for (int i = 0; i < 128; ++i) {
    // As if this very process had got the dead one's id.
    PermitSlot& slot = SlotsOf(*semaphore)[i];
    if (slot.count != 0) {
      slot.who = os::ProcessIdentity::Self().bits() - (uint64_t{1} << 22);
    }
  }
  EXPECT_EQ(semaphore->held(), 0);
  EXPECT_EQ(semaphore->reclaim(), 1);
}

TEST(SemaphoreCrashTest, WhoeverMayBeAliveKeepsThem) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  semaphore->acquire();
  for (int i = 0; i < 128; ++i) {
    // A process of which nothing is known but that it has an id that is used.
    PermitSlot& slot = SlotsOf(*semaphore)[i];
    if (slot.count != 0) slot.who = 1;
  }
  EXPECT_EQ(semaphore->reclaim(), 0);
  EXPECT_FALSE(semaphore->try_acquire_for(milliseconds(50)));
}

TEST(SemaphoreCrashTest, AForkedChildHoldsNothing) {
  Shared<Semaphore> semaphore(std::in_place, 3);
  semaphore->acquire();
  auto body = [&] {
    if (semaphore->held() != 0) return 1;
    semaphore->acquire();
    return semaphore->held() == 1 && semaphore->value() == 1 ? 0 : 2;
  };
  EXPECT_EQ(Child::Fork(body).Wait(), Exited(0));
  EXPECT_EQ(semaphore->reclaim(), 1);
  const pid_t pid = _Fork();  // Runs no pthread_atfork() handler.
  if (pid == 0) _exit(body());
  int status = 1;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(semaphore->reclaim(), 1);
  EXPECT_EQ(semaphore->held(), 1);
  semaphore->release();
  EXPECT_EQ(semaphore->value(), 3);
}

// The program that execve() starts is the same process: see the test below.
constexpr char kAfterExec[] = "COHORT_SEMAPHORE_TEST_AFTER_EXEC";
const bool not_after_exec = [] {
  const char* const descriptor = std::getenv(kAfterExec);
  if (descriptor == nullptr) return true;
  void* const page = mmap(nullptr, sizeof(Semaphore), PROT_READ | PROT_WRITE,
                          MAP_SHARED, std::atoi(descriptor), 0);
  if (page == MAP_FAILED) _exit(1);
  auto& semaphore = *static_cast<Semaphore*>(page);
  if (semaphore.held() != 2 || semaphore.value() != 1) _exit(2);
  semaphore.release();
  _exit(semaphore.held() == 1 && semaphore.value() == 2 ? 0 : 3);
}();

TEST(SemaphoreCrashTest, ExecveIsNoEnd) {
  ASSERT_TRUE(not_after_exec);
  const int file = memfd_create("semaphore_test", 0);
  ASSERT_GE(file, 0);
  ASSERT_EQ(ftruncate(file, sizeof(Semaphore)), 0);
  void* const page = mmap(nullptr, sizeof(Semaphore), PROT_READ | PROT_WRITE,
                          MAP_SHARED, file, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto& semaphore = *new (page) Semaphore(3);
  Child child = Child::Fork([&] {
    setenv(kAfterExec, std::to_string(file).c_str(), 1);
    semaphore.acquire();
    semaphore.acquire();
    execl("/proc/self/exe", "semaphore_test", nullptr);
    return 4;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(semaphore.reclaim(), 1);
  EXPECT_EQ(semaphore.value(), 3);
  munmap(page, sizeof(Semaphore));
  close(file);
}

TEST(SemaphoreCrashTest, WhoeverIsNextMakesTheCacheAnew) {
  for (const int words : {0, 1, 7}) {
    Shared<Semaphore> semaphore(std::in_place, 4);
    semaphore->acquire();
    Child child = Child::Fork([&] {
      (void)LockOf(*semaphore).Lock();
      FreeOf(*semaphore) = static_cast<uint32_t>(words);
      return raise(SIGKILL);
    });
    ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
    if (words == 0) {
      EXPECT_TRUE(semaphore->try_acquire());
      EXPECT_EQ(semaphore->value(), 2);
    } else if (words == 1) {
      semaphore->release();
      EXPECT_EQ(semaphore->value(), 4);
    } else {
      EXPECT_EQ(semaphore->reclaim(), 0);
      EXPECT_EQ(semaphore->value(), 3);
    }
  }
}

// Somebody has just looked for the dead, in vain; who dies under the lock is a
// reason to look again at once.
TEST(SemaphoreCrashTest, ADeathUnderTheLockIsLookedInto) {
  Shared<Semaphore> semaphore(std::in_place, 2);
  Shared<Gate> gate;
  semaphore->acquire();
  Child child = Child::Fork([&] {
    semaphore->acquire();
    (void)LockOf(*semaphore).Lock();
    gate->Pass();
    return raise(SIGKILL);
  });
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  gate->Open();
  ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
  // As if by a try at this moment.
  WordOf(semaphore.get(), 4) =
      static_cast<uint32_t>(os::NowNanoseconds() / 1'000'000);
  EXPECT_TRUE(semaphore->try_acquire());
}

// A rival that is stopped in the middle of its call holds up whoever waits for
// as long, but no longer than it has time.
TEST(SemaphoreCrashTest, ARivalStoppedInTheMiddleCostsTheTimeOfTheWait) {
  Shared<Semaphore> semaphore(std::in_place, 2);
  Shared<Gate> gate;
  Child rival = Child::Fork([&] {
    (void)LockOf(*semaphore).Lock();
    gate->Pass();
    LockOf(*semaphore).Unlock();
  });
  ASSERT_TRUE(rival.AwaitAsleepInFutex());
  rival.Stop();
  EXPECT_FALSE(semaphore->try_acquire());
  EXPECT_FALSE(semaphore->try_acquire_for(milliseconds(20)));
  Child waiter = Child::Fork([&] { semaphore->acquire(); });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  gate->Open();
  rival.Continue();
  EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(rival.Wait(), Exited(0));
  EXPECT_TRUE(semaphore->try_acquire());
}

TEST(SemaphoreCrashTest, AStoppedWaiterHoldsNobodyUp) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  semaphore->acquire();
  Child stopped = Child::Fork([&] { semaphore->acquire(); });
  ASSERT_TRUE(stopped.AwaitAsleepInFutex());
  Child other = Child::Fork([&] { SemaphoreLock lock(*semaphore); });
  ASSERT_TRUE(other.AwaitAsleepInFutex());
  stopped.Stop();
  // The wake-up may go to the one that is stopped.
  semaphore->release();
  EXPECT_EQ(other.Wait(), Exited(0));
  stopped.Continue();
  EXPECT_EQ(stopped.Wait(), Exited(0));
}

// A woken waiter is killed before it can act, while a third process takes the
// permit: whoever sleeps behind it must not be forgotten, slices or not. The
// waiter is kept from acting by the scheduler, which never lets an idle-class
// thread run before this one on the same processor.
TEST(SemaphoreCrashTest, AKilledSuccessorForgetsNobody) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  ASSERT_EQ(sched_setaffinity(0, sizeof here, &here), 0);
  for (int round = 0; round < 30; ++round) {
    Shared<Semaphore> semaphore(std::in_place, 1);
    semaphore->acquire();
    Child successor = Child::Fork([&] {
      const sched_param none = {};
      if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 1;
      SemaphoreLock lock(*semaphore);
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
    semaphore->acquire();  // The third.
    successor.Kill(SIGKILL);
    (void)successor.Wait();
    semaphore->release();
    ASSERT_EQ(behind.Wait(), Exited(0));
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

// What happens where the contract is broken: the id of a holder in another PID
// namespace is a stranger's here, so it is taken for dead. The count of permits
// stays right; the holder learns of it when it releases.
TEST(SemaphoreCrashTest, AHolderInAnotherPidNamespaceLosesItsPermits) {
  Shared<Semaphore> semaphore(std::in_place, 1);
  Shared<Gate> gate;
  constexpr int kNotAllowed = 77;
  Child outer = Child::Fork([&] {
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) return kNotAllowed;
    // The first process of a namespace survives abort().
    Child first = Child::Fork([&] {
      Child holder = Child::Fork([&] {
        if (getpid() != 2) return 1;
        semaphore->acquire();
        gate->Pass();
        if (semaphore->held() != 0) return 2;
        semaphore->release();  // Fatal.
        return 3;
      });
      return holder.Wait() == KilledBy(SIGABRT) ? 0 : 4;
    });
    return first.Wait() == Exited(0) ? 0 : 5;
  });
  while (semaphore->value() == 1 && outer.Running()) sched_yield();
  if (semaphore->value() == 1) {
    EXPECT_EQ(outer.Wait(), Exited(kNotAllowed));
    GTEST_SKIP() << "no PID namespace may be made here";
  }
  EXPECT_EQ(semaphore->reclaim(), 1);
  EXPECT_EQ(semaphore->value(), 1);
  gate->Open();
  EXPECT_EQ(outer.Wait(), Exited(0));
  EXPECT_EQ(semaphore->value(), 1);
}

// Misuse.

TEST(SemaphoreDeathTest, ReleaseOfMoreThanIsHeldIsFatal) {
  Semaphore semaphore(3);
  EXPECT_DEATH(semaphore.release(),
               "^cohort: Semaphore: released more permits than this process "
               "holds; to signal between processes take CountingSemaphore");
  semaphore.acquire();
  EXPECT_DEATH(semaphore.release(2), "released more permits");
  EXPECT_DEATH(semaphore.release(PTRDIFF_MAX), "released more permits");
}

// Others go on as if nothing had been tried; what the process held comes home.
TEST(SemaphoreDeathTest, AFatalReleaseReleasesNothing) {
  Shared<Semaphore> semaphore(std::in_place, 3);
  semaphore->acquire();
  Child child = Child::Fork([&] { semaphore->release(); });
  EXPECT_EQ(child.Wait(), KilledBy(SIGABRT));
  EXPECT_EQ(semaphore->value(), 2);
  EXPECT_EQ(semaphore->held(), 1);
  EXPECT_EQ(semaphore->reclaim(), 0);
}

TEST(SemaphoreDeathTest, NegativeNumbersAreFatal) {
  Semaphore semaphore(1);
  EXPECT_DEATH(semaphore.release(-1),
               "^cohort: Semaphore: less than 0 permits released");
  EXPECT_DEATH(Semaphore(-1),
               "^cohort: Semaphore: permits not between 0 and max");
  EXPECT_DEATH(Semaphore(Semaphore::max() + 1),
               "permits not between 0 and max");
}

}  // namespace
}  // namespace cohort
