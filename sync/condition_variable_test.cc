// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/condition_variable.h"

#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/sync/mutex.h"
#include "cohort/sync/recursive_mutex.h"
#include "cohort/sync/shared_mutex.h"
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

static_assert(std::is_trivially_destructible_v<ConditionVariable>);
static_assert(std::is_standard_layout_v<ConditionVariable>);
static_assert(!std::is_copy_constructible_v<ConditionVariable>);
static_assert(!std::is_copy_assignable_v<ConditionVariable>);

struct Arena {
  Mutex mu;
  ConditionVariable changed;
  std::atomic<int> returned;
  std::atomic<int> timed_out;
  std::atomic<uint64_t> rescues;

  // The parts of the word: docs/design/condition_variable.md.
  std::atomic<uint64_t>& word() {
    return reinterpret_cast<std::atomic<uint64_t>&>(changed);
  }
  uint64_t credits() { return word() & 0x7ff; }
  uint64_t epoch() { return word() >> 12 & 0xffffff; }
  uint64_t owed() { return word() >> 36 & 0x3f; }
  uint64_t old() { return word() >> 42 & 0x7ff; }
  uint64_t young() { return word() >> 53; }
};

enum class Sleep { kInSlices, kWithoutSlices };

// Waits once. Without slices, a wake-up that is lost is a hang.
Child Waiter(Arena& arena, Sleep sleep = Sleep::kWithoutSlices,
             Deadline deadline = Deadline::Infinite()) {
  return Child::Fork([&, sleep, deadline] {
    if (sleep == Sleep::kWithoutSlices) os::Slices::TurnOff();
    MutexLock lock(arena.mu);
    if (arena.changed.wait_until(lock, deadline)) {
      ++arena.returned;
    } else {
      ++arena.timed_out;
    }
    arena.rescues += ConditionVariable::Rescues();
  });
}

std::vector<Child> Waiters(Arena& arena, int count,
                           Sleep sleep = Sleep::kWithoutSlices,
                           Deadline deadline = Deadline::Infinite()) {
  std::vector<Child> waiters;
  for (int i = 0; i < count; ++i) {
    waiters.push_back(Waiter(arena, sleep, deadline));
    EXPECT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  return waiters;
}

// Until so many have returned in all, and those of `waiters` that have not are
// asleep.
void AwaitReturned(Arena& arena, std::vector<Child>& waiters, int count) {
  const Deadline lost = Deadline::After(std::chrono::seconds(20));
  while (arena.returned < count && !lost.Passed()) sched_yield();
  ASSERT_GE(arena.returned, count) << "a notification is lost";
  for (Child& waiter : waiters) {
    while (waiter.Running() && !waiter.AsleepInFutex()) sched_yield();
  }
}

TEST(ConditionVariableTest, AConstructedOneIsAllZero) {
  alignas(ConditionVariable) unsigned char bytes[sizeof(ConditionVariable)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) ConditionVariable;
  const unsigned char zero[sizeof(ConditionVariable)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(ConditionVariableTest, ANotificationIsForThoseWhoWait) {
  Shared<Arena> arena;
  arena->changed.notify_one();
  arena->changed.notify(3);
  arena->changed.notify_all();
  EXPECT_EQ(arena->word(), 0u);
  MutexLock lock(arena->mu);
  EXPECT_FALSE(arena->changed.wait_for(lock, milliseconds(1)));
  EXPECT_TRUE(arena->mu.held());
}

TEST(ConditionVariableTest, WakesASleeper) {
  Shared<Arena> arena;
  for (const bool locked : {true, false}) {
    std::vector<Child> waiter = Waiters(*arena, 1);
    if (locked) {
      MutexLock lock(arena->mu);
      arena->changed.notify_one();
    } else {
      arena->changed.notify_one();
    }
    EXPECT_EQ(waiter[0].Wait(), Exited(0));
  }
  EXPECT_EQ(arena->returned, 2);
}

// Each of them looks up at the end of its slices, and none may take that for a
// notification.
TEST(ConditionVariableTest, NotifyOneReturnsOne) {
  Shared<Arena> arena;
  std::vector<Child> waiters = Waiters(*arena, 8, Sleep::kInSlices);
  for (int i = 1; i <= 8; ++i) {
    arena->changed.notify_one();
    AwaitReturned(*arena, waiters, i);
    if (i == 1) std::this_thread::sleep_for(milliseconds(400));
    EXPECT_EQ(arena->returned, i);
  }
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->rescues, 0u);
}

TEST(ConditionVariableTest, NotifyOneWakesOneEachTime) {
  Shared<Arena> arena;
  std::vector<Child> waiters = Waiters(*arena, 5);
  for (int i = 1; i <= 5; ++i) {
    arena->changed.notify_one();
    AwaitReturned(*arena, waiters, i);
    EXPECT_EQ(arena->returned, i);
  }
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(ConditionVariableTest, NotificationsInARowReturnAsMany) {
  Shared<Arena> arena;
  std::vector<Child> waiters = Waiters(*arena, 6);
  for (int i = 0; i < 4; ++i) arena->changed.notify_one();
  AwaitReturned(*arena, waiters, 4);
  EXPECT_EQ(arena->returned, 4);
  arena->changed.notify_all();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(ConditionVariableTest, NotifyWithANumberReturnsAsMany) {
  Shared<Arena> arena;
  std::vector<Child> waiters = Waiters(*arena, 8);
  arena->changed.notify(0);
  arena->changed.notify(-1);
  arena->changed.notify(3);
  AwaitReturned(*arena, waiters, 3);
  EXPECT_EQ(arena->returned, 3);
  arena->changed.notify(1);
  AwaitReturned(*arena, waiters, 4);
  EXPECT_EQ(arena->returned, 4);
  // Some of the old ones and some of the young.
  std::vector<Child> young = Waiters(*arena, 3);
  arena->changed.notify(6);
  const Deadline lost = Deadline::After(std::chrono::seconds(20));
  while (arena->returned < 10 && !lost.Passed()) sched_yield();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  int left = 0;
  for (Child& waiter : young) {
    while (waiter.Running() && !waiter.AsleepInFutex()) sched_yield();
    left += waiter.Running() ? 1 : 0;
  }
  EXPECT_EQ(left, 1);
  EXPECT_EQ(arena->returned, 10);
  arena->changed.notify(100);
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 11);
}

TEST(ConditionVariableTest, NotifyAllReturnsAll) {
  Shared<Arena> arena;
  std::vector<Child> waiters = Waiters(*arena, 4);
  arena->changed.notify_one();  // So that there are old ones.
  AwaitReturned(*arena, waiters, 1);
  std::vector<Child> young = Waiters(*arena, 4);
  arena->changed.notify_all();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 8);
  EXPECT_EQ(arena->old() + arena->young() + arena->credits(), 0u);
}

// A notification that nobody could take so far is for those who waited when it
// was given.
TEST(ConditionVariableTest, ALaterWaiterTakesNoEarlierNotification) {
  Shared<Arena> arena;
  std::vector<Child> first = Waiters(*arena, 2);
  for (Child& waiter : first) waiter.Stop();
  arena->changed.notify_one();
  std::vector<Child> later = Waiters(*arena, 1);
  {
    MutexLock lock(arena->mu);  // So it is not on its way.
    EXPECT_EQ(arena->returned, 0);
  }
  EXPECT_TRUE(later[0].AwaitAsleepInFutex());
  for (Child& waiter : first) waiter.Continue();
  AwaitReturned(*arena, first, 1);
  EXPECT_TRUE(later[0].Running());
  EXPECT_EQ(arena->returned, 1);
  arena->changed.notify_all();
  for (Child& waiter : first) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(later[0].Wait(), Exited(0));
}

TEST(ConditionVariableTest, ANotifierThatWaitsDoesNotTakeItsOwn) {
  Shared<Arena> arena;
  std::vector<Child> waiters = Waiters(*arena, 2);
  Child notifier = Child::Fork([&] {
    os::Slices::TurnOff();
    MutexLock lock(arena->mu);
    arena->changed.notify_one();
    arena->changed.wait(lock);
  });
  AwaitReturned(*arena, waiters, 1);
  ASSERT_TRUE(notifier.AwaitAsleepInFutex());
  EXPECT_EQ(arena->returned, 1);
  arena->changed.notify_one();  // The old one is first.
  AwaitReturned(*arena, waiters, 2);
  EXPECT_TRUE(notifier.Running());
  arena->changed.notify_one();
  EXPECT_EQ(notifier.Wait(), Exited(0));
}

// All old ones are notified, but none has returned; the next notifications are
// for the young.
TEST(ConditionVariableTest, StoppedOnesHoldUpNobody) {
  Shared<Arena> arena;
  std::vector<Child> stopped = Waiters(*arena, 3);
  for (Child& waiter : stopped) waiter.Stop();
  arena->changed.notify(2);
  std::vector<Child> young = Waiters(*arena, 2);
  arena->changed.notify(2);  // The last old one and a young one.
  AwaitReturned(*arena, young, 1);
  EXPECT_EQ(arena->returned, 1);
  EXPECT_EQ(arena->owed(), 3u);
  for (Child& waiter : stopped) waiter.Continue();
  for (Child& waiter : stopped) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 4);
  EXPECT_EQ(arena->owed(), 0u);
  arena->changed.notify_one();
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->rescues, 0u);
}

TEST(ConditionVariableTest, TimesOut) {
  Shared<Arena> arena;
  std::vector<Child> other = Waiters(*arena, 1);
  {
    MutexLock lock(arena->mu);
    const Deadline deadline = Deadline::After(milliseconds(30));
    EXPECT_FALSE(arena->changed.wait_until(lock, deadline));
    EXPECT_TRUE(deadline.Passed());
    EXPECT_TRUE(arena->mu.held());
    EXPECT_FALSE(arena->changed.wait_for(lock, absl::Milliseconds(1)));
    EXPECT_FALSE(arena->changed.wait_for(lock, milliseconds(0)));
    EXPECT_FALSE(arena->changed.wait_for(lock, -absl::InfiniteDuration()));
    EXPECT_FALSE(arena->changed.wait_until(lock, Deadline::Now()));
  }
  EXPECT_EQ(arena->young(), 1u);  // Whoever left is not counted.
  arena->changed.notify_one();
  EXPECT_EQ(other[0].Wait(), Exited(0));
}

// Those who leave with their time over take no notification from others.
TEST(ConditionVariableTest, TheNotificationAfterALeaveIsForAnother) {
  Shared<Arena> arena;
  for (const bool old : {false, true}) {
    arena->returned = 0;
    std::vector<Child> waiters = Waiters(*arena, old ? 3 : 2);
    std::vector<Child> leaver = Waiters(*arena, 1, Sleep::kWithoutSlices,
                                        Deadline::After(milliseconds(200)));
    int taken = 0;
    if (old) {
      arena->changed.notify_one();
      AwaitReturned(*arena, waiters, ++taken);
    }
    EXPECT_EQ(leaver[0].Wait(), Exited(0));
    EXPECT_EQ(arena->old() + arena->young(), 2u);
    while (taken < static_cast<int>(waiters.size())) {
      arena->changed.notify_one();
      AwaitReturned(*arena, waiters, ++taken);
      EXPECT_EQ(arena->returned, taken);
    }
  }
  EXPECT_EQ(arena->timed_out, 2);
}

// What came in time counts, though it is late when the waiter looks.
TEST(ConditionVariableTest, ANotificationBeforeTheTimeWasOverCounts) {
  Shared<Arena> arena;
  const Deadline deadline = Deadline::After(milliseconds(150));
  std::vector<Child> waiters =
      Waiters(*arena, 3, Sleep::kWithoutSlices, deadline);
  for (Child& waiter : waiters) waiter.Stop();
  arena->changed.notify(2);
  while (!deadline.Passed()) sched_yield();
  for (Child& waiter : waiters) waiter.Continue();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 2);
  EXPECT_EQ(arena->timed_out, 1);
  EXPECT_EQ(arena->old() + arena->young() + arena->credits(), 0u);
}

// Likewise what comes after that, but before the waiter has the mutex.
TEST(ConditionVariableTest, ANotificationBeforeItHasTheMutexCountsToo) {
  Shared<Arena> arena;
  const Deadline deadline = Deadline::After(milliseconds(100));
  std::vector<Child> waiters =
      Waiters(*arena, 3, Sleep::kWithoutSlices, deadline);
  {
    MutexLock lock(arena->mu);
    while (!deadline.Passed()) sched_yield();
    std::this_thread::sleep_for(milliseconds(50));
    arena->changed.notify(2);
  }
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 2);
  EXPECT_EQ(arena->timed_out, 1);
}

TEST(ConditionVariableTest, WaitsForAPredicate) {
  struct Box {
    Mutex mu;
    ConditionVariable changed;
    int value;
  };
  Shared<Box> box;
  Child child = Child::Fork([&] {
    os::Slices::TurnOff();
    MutexLock lock(box->mu);
    box->changed.wait(lock, [&] { return box->value >= 2; });
    if (!box->changed.wait_for(lock, std::chrono::hours(1),
                               [&] { return box->value >= 4; })) {
      return 1;
    }
    if (!box->changed.wait_for(lock, absl::Hours(1),
                               [&] { return box->value >= 6; })) {
      return 2;
    }
    return box->value == 6 ? 0 : 3;
  });
  for (int value = 1; value <= 6; ++value) {
    ASSERT_TRUE(child.AwaitAsleepInFutex());
    MutexLock lock(box->mu);
    box->value = value;
    box->changed.notify_all();
  }
  EXPECT_EQ(child.Wait(), Exited(0));
  MutexLock lock(box->mu);
  auto never = [] { return false; };
  auto always = [] { return true; };
  EXPECT_FALSE(box->changed.wait_for(lock, milliseconds(2), never));
  EXPECT_TRUE(box->changed.wait_for(lock, milliseconds(0), always));
  EXPECT_FALSE(box->changed.wait_until(lock, Deadline::Now(), never));
  // It becomes true while the time is over.
  int asked = 0;
  EXPECT_TRUE(box->changed.wait_until(lock, Deadline::Now(),
                                      [&] { return ++asked == 2; }));
}

// One after the other, on one condition variable.
TEST(ConditionVariableTest, TwoProcessesTakeTurns) {
  struct Table {
    Mutex mu;
    ConditionVariable changed;
    int turn;
    int64_t turns;
  };
  constexpr int kTurns = 20'000;
  Shared<Table> table;
  auto play = [&](int me) {
    os::Slices::TurnOff();
    for (int i = 0; i < kTurns; ++i) {
      MutexLock lock(table->mu);
      while (table->turn != me) table->changed.wait(lock);
      ++table->turns;
      table->turn = 1 - me;
      table->changed.notify_one();
    }
  };
  Child ping = Child::Fork([&] { play(0); });
  Child pong = Child::Fork([&] { play(1); });
  EXPECT_EQ(ping.Wait(), Exited(0));
  EXPECT_EQ(pong.Wait(), Exited(0));
  EXPECT_EQ(table->turns, 2 * kTurns);
}

TEST(ConditionVariableTest, SixtyFourProcessesTakeTurns) {
  struct Table {
    Mutex mu;
    ConditionVariable changed;
    int turn;
  };
  constexpr int kPlayers = 64;
  constexpr int kRounds = 5;
  Shared<Table> table;
  std::vector<Child> players;
  for (int me = 0; me < kPlayers; ++me) {
    players.push_back(Child::Fork([&, me] {
      os::Slices::TurnOff();
      for (int round = 0; round < kRounds; ++round) {
        MutexLock lock(table->mu);
        table->changed.wait(lock, [&] { return table->turn % kPlayers == me; });
        ++table->turn;
        table->changed.notify_all();
      }
    }));
  }
  for (Child& player : players) EXPECT_EQ(player.Wait(), Exited(0));
  EXPECT_EQ(table->turn, kPlayers * kRounds);
}

// Each item is announced once, to one; whoever gets it does not announce it
// again, so one that is lost leaves a consumer for ever.
TEST(ConditionVariableTest, SixtyFourConsumersTakeWhatIsNotifiedOnce) {
  struct Shop {
    Mutex mu;
    ConditionVariable delivered;
    ConditionVariable sold;
    int items;
    int served;
  };
  constexpr int kConsumers = 64;
  constexpr int kEach = 50;
  Shared<Shop> shop;
  std::vector<Child> consumers;
  for (int i = 0; i < kConsumers; ++i) {
    consumers.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      for (int k = 0; k < kEach; ++k) {
        std::unique_lock lock(shop->mu);
        shop->delivered.wait(lock, [&] { return shop->items > 0; });
        --shop->items;
        ++shop->served;
        lock.unlock();
        shop->sold.notify_one();
      }
    }));
  }
  for (int k = 0; k < kConsumers * kEach; ++k) {
    MutexLock lock(shop->mu);
    shop->sold.wait(lock, [&] { return shop->items < 3; });
    ++shop->items;
    shop->delivered.notify_one();
  }
  for (Child& consumer : consumers) EXPECT_EQ(consumer.Wait(), Exited(0));
  EXPECT_EQ(shop->served, kConsumers * kEach);
}

TEST(ConditionVariableTest, AHandlerDoesNotEndTheWait) {
  Shared<Arena> arena;
  static std::atomic<int>* handled;
  Shared<std::atomic<int>> count;
  handled = count.get();
  Child waiter = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++*handled; };
    sigaction(SIGUSR1, &action, nullptr);
    *count = 1;
    os::Slices::TurnOff();
    MutexLock lock(arena->mu);
    arena->changed.wait(lock);
  });
  while (*count == 0) sched_yield();
  for (int signals = 2; signals <= 5; ++signals) {
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    waiter.Kill(SIGUSR1);
    while (*count < signals) sched_yield();
  }
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  arena->changed.notify_one();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

// Here the old ones stand behind the young in the kernel's queue.
TEST(ConditionVariableTest, AWakeUpForTheOldHitsNoYoungOne) {
  static std::atomic<int>* handled;
  Shared<Arena> arena;
  Shared<std::atomic<int>> count;
  handled = count.get();
  struct sigaction before;
  struct sigaction action = {};
  action.sa_handler = [](int) { ++*handled; };
  sigaction(SIGUSR1, &action, &before);
  std::vector<Child> old = Waiters(*arena, 3);
  arena->changed.notify_one();
  AwaitReturned(*arena, old, 1);
  std::vector<Child> young = Waiters(*arena, 2);
  for (Child& waiter : old) {
    if (!waiter.Running()) continue;
    const int already = *count;
    waiter.Kill(SIGUSR1);
    while (*count == already) sched_yield();
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  }
  for (int i = 2; i <= 3; ++i) {
    arena->changed.notify_one();
    AwaitReturned(*arena, old, i);
  }
  for (Child& waiter : old) EXPECT_EQ(waiter.Wait(), Exited(0));
  arena->changed.notify_all();
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
  sigaction(SIGUSR1, &before, nullptr);
}

TEST(ConditionVariableTest, IsForThreadsToo) {
  Arena arena = {};
  bool ready = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      MutexLock lock(arena.mu);
      arena.changed.wait(lock, [&] { return ready; });
      ++arena.returned;
    });
  }
  {
    MutexLock lock(arena.mu);
    ready = true;
  }
  arena.changed.notify_all();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(arena.returned, 3);
}

TEST(ConditionVariableTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Arena> arena;
  // The same page a second time.
  void* twin = mremap(arena.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  std::vector<Child> waiters = Waiters(*static_cast<Arena*>(twin), 2);
  arena->changed.notify_one();
  AwaitReturned(*arena, waiters, 1);
  arena->changed.notify_all();
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  munmap(twin, 4096);
}

// The locks that it takes.

template <typename Mutex, typename Wait>
void WaitsWith(Wait wait) {
  struct Box {
    Mutex mu;
    ConditionVariable changed;
    bool ready;
  };
  Shared<Box> box;
  Child child = Child::Fork([&] {
    os::Slices::TurnOff();
    wait(*box);
  });
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  {
    std::unique_lock lock(box->mu);  // So the waiter has freed it.
    box->ready = true;
    box->changed.notify_one();
  }
  EXPECT_EQ(child.Wait(), Exited(0));
  // And it did not keep it.
  if (box->mu.try_lock()) {
    box->mu.unlock();
  } else {
    ADD_FAILURE() << "the waiter ended with the mutex";
  }
}

TEST(ConditionVariableLockTest, AMutex) {
  WaitsWith<Mutex>([](auto& box) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    box.mu.lock();
    box.changed.wait(box.mu, [&] { return box.ready; });
    EXPECT_TRUE(box.mu.held());
    box.mu.unlock();
  });
}

TEST(ConditionVariableLockTest, AMutexLock) {
  WaitsWith<Mutex>([](auto& box) {
    MutexLock lock(box.mu);
    box.changed.wait(lock, [&] { return box.ready; });
    EXPECT_TRUE(box.mu.held());
  });
}

TEST(ConditionVariableLockTest, AStdUniqueLock) {
  WaitsWith<Mutex>([](auto& box) {
    std::unique_lock lock(box.mu);
    box.changed.wait(lock, [&] { return box.ready; });
    EXPECT_TRUE(lock.owns_lock());
    EXPECT_TRUE(box.mu.held());
  });
}

// All levels are freed, and come back.
TEST(ConditionVariableLockTest, ARecursiveMutex) {
  WaitsWith<RecursiveMutex>([](auto& box) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    box.mu.lock();
    box.mu.lock();
    box.mu.lock();
    box.changed.wait(box.mu, [&] { return box.ready; });
    EXPECT_EQ(box.mu.depth(), 3u);
    for (int i = 0; i < 3; ++i) box.mu.unlock();
  });
  WaitsWith<RecursiveMutex>([](auto& box) {
    std::unique_lock outer(box.mu);
    RecursiveMutexLock inner(box.mu);
    box.changed.wait(inner, [&] { return box.ready; });
    EXPECT_EQ(box.mu.depth(), 2u);
  });
  WaitsWith<RecursiveMutex>([](auto& box) {
    RecursiveMutexLock outer(box.mu);
    std::unique_lock inner(box.mu);
    box.changed.wait(inner, [&] { return box.ready; });
    EXPECT_EQ(box.mu.depth(), 2u);
  });
}

TEST(ConditionVariableLockTest, AForeignMutexOfOneProcess) {
  std::mutex mu;
  ConditionVariable changed;
  bool ready = false;
  std::thread setter([&] {
    std::scoped_lock lock(mu);
    ready = true;
    changed.notify_all();
  });
  {
    std::unique_lock lock(mu);
    changed.wait(lock, [&] { return ready; });
    EXPECT_TRUE(lock.owns_lock());
    EXPECT_FALSE(changed.wait_for(lock, milliseconds(1)));
  }
  setter.join();
}

// Death.

TEST(ConditionVariableCrashTest, AKilledSleeperTakesNothing) {
  Shared<Arena> arena;
  std::vector<Child> victims = Waiters(*arena, 2);
  std::vector<Child> survivors = Waiters(*arena, 2);
  for (Child& victim : victims) {
    victim.Kill(SIGKILL);
    EXPECT_EQ(victim.Wait(), KilledBy(SIGKILL));
  }
  arena->changed.notify_one();
  AwaitReturned(*arena, survivors, 1);
  EXPECT_EQ(arena->returned, 1);
  arena->changed.notify_one();
  AwaitReturned(*arena, survivors, 2);
  EXPECT_EQ(arena->rescues, 0u);
}

// The one that the wake-up went to dies before it acts: the notification is
// for another of its group, which finds it at the end of a slice.
TEST(ConditionVariableCrashTest, AKilledSuccessorIsReplaced) {
  Shared<Arena> arena;
  std::vector<Child> successor = Waiters(*arena, 1, Sleep::kInSlices);
  std::vector<Child> others = Waiters(*arena, 2, Sleep::kInSlices);
  successor[0].Stop();
  arena->changed.notify_one();  // The kernel wakes who has slept longest.
  successor[0].Kill(SIGKILL);
  EXPECT_EQ(successor[0].Wait(), KilledBy(SIGKILL));
  AwaitReturned(*arena, others, 1);
  std::this_thread::sleep_for(milliseconds(400));
  EXPECT_EQ(arena->returned, 1);
  arena->changed.notify_all();
  for (Child& waiter : others) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->rescues, 0u);
}

// Of the old group only a dead one is left, to whom the next notification
// goes; a young one finds that it stands and takes it, and no other does.
TEST(ConditionVariableCrashTest, WhatADeadOneWasGivenComesBack) {
  Shared<Arena> arena;
  std::vector<Child> first = Waiters(*arena, 2, Sleep::kInSlices);
  arena->changed.notify_one();
  AwaitReturned(*arena, first, 1);
  for (Child& waiter : first) {
    if (waiter.Running()) waiter.Kill(SIGKILL);
    (void)waiter.Wait();
  }
  ASSERT_EQ(arena->old(), 1u);
  std::vector<Child> young = Waiters(*arena, 3, Sleep::kInSlices);
  arena->changed.notify_one();
  AwaitReturned(*arena, young, 2);
  std::this_thread::sleep_for(milliseconds(400));
  EXPECT_EQ(arena->returned, 2);
  EXPECT_EQ(arena->rescues, 1u);
  // From here on nobody is late.
  for (int i = 3; i <= 4; ++i) {
    arena->changed.notify_one();
    AwaitReturned(*arena, young, i);
  }
  EXPECT_EQ(arena->rescues, 1u);
}

// Likewise, but more notifications come, and the old group is given up with
// what its dead ones were given: the young come to know of that, too.
TEST(ConditionVariableCrashTest, WhatDeadOnesAreOwedComesBack) {
  Shared<Arena> arena;
  std::vector<Child> first = Waiters(*arena, 3, Sleep::kInSlices);
  arena->changed.notify_one();
  AwaitReturned(*arena, first, 1);
  for (Child& waiter : first) {
    if (waiter.Running()) waiter.Kill(SIGKILL);
    (void)waiter.Wait();
  }
  ASSERT_EQ(arena->old(), 2u);
  std::vector<Child> young = Waiters(*arena, 3, Sleep::kInSlices);
  for (int i = 0; i < 3; ++i) arena->changed.notify_one();
  AwaitReturned(*arena, young, 4);
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_GE(arena->rescues, 1u);
}

// To the others, whoever is stopped for long is as good as dead; to itself it
// is notified.
TEST(ConditionVariableCrashTest, WhatAStoppedOneWasGivenComesBackToo) {
  Shared<Arena> arena;
  std::vector<Child> stopped = Waiters(*arena, 2, Sleep::kInSlices);
  for (Child& waiter : stopped) waiter.Stop();
  arena->changed.notify_one();
  std::vector<Child> young = Waiters(*arena, 2, Sleep::kInSlices);
  AwaitReturned(*arena, young, 1);
  EXPECT_EQ(arena->returned, 1);
  EXPECT_EQ(arena->rescues, 1u);
  for (Child& waiter : stopped) waiter.Continue();
  for (Child& waiter : stopped) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 3);
  arena->changed.notify_one();
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
}

// While the mutex is held for long, nobody takes what was given to the one that
// waits for it.
TEST(ConditionVariableCrashTest, AWaitForTheMutexIsNoDeath) {
  Shared<Arena> arena;
  std::vector<Child> old = Waiters(*arena, 3, Sleep::kInSlices);
  arena->changed.notify_one();
  AwaitReturned(*arena, old, 1);
  std::vector<Child> young = Waiters(*arena, 2, Sleep::kInSlices);
  for (int i = 2; i <= 3; ++i) {
    {
      MutexLock lock(arena->mu);
      arena->changed.notify_one();
      std::this_thread::sleep_for(milliseconds(300));
      EXPECT_EQ(arena->returned, i - 1);
    }
    AwaitReturned(*arena, old, i);
  }
  for (Child& waiter : old) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->returned, 3);
  arena->changed.notify_all();
  for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->rescues, 0u);
}

// All others sleep, so nobody but they could find the poison.
TEST(ConditionVariableCrashTest, ADeadHolderIsFoundByAWaiter) {
  Shared<Arena> arena;
  Shared<std::atomic<int>> told;
  std::vector<Child> waiters;
  for (int i = 0; i < 2; ++i) {
    waiters.push_back(Child::Fork([&] {
      MutexLock lock(arena->mu);
      arena->changed.wait(lock);
      if (lock.poisoned()) {
        ++*told;
        arena->mu.clear_poison();
        arena->changed.notify_all();
      }
    }));
    ASSERT_TRUE(waiters.back().AwaitAsleepInFutex());
  }
  Child holder = Child::Fork([&] {
    MutexLock lock(arena->mu);
    return raise(SIGKILL);
  });
  EXPECT_EQ(holder.Wait(), KilledBy(SIGKILL));
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(*told, 1);
}

TEST(ConditionVariableCrashTest, ADeadWriterIsFoundByAWaiter) {
  struct Table {
    SharedMutex mu;
    ConditionVariable changed;
  };
  Shared<Table> table;
  Child writer = Child::Fork([&] {
    SharedMutexLock lock(table->mu);
    table->changed.wait(lock);
    return lock.poisoned() ? 0 : 1;
  });
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  Child holder = Child::Fork([&] {
    SharedMutexLock lock(table->mu);
    return raise(SIGKILL);
  });
  EXPECT_EQ(holder.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(writer.Wait(), Exited(0));
}

TEST(ConditionVariableCrashTest, ANotifierThatDiesHoldingHasPoisoned) {
  Shared<Arena> arena;
  Child waiter = Child::Fork([&] {
    os::Slices::TurnOff();
    MutexLock lock(arena->mu);
    arena->changed.wait(lock);
    return lock.poisoned() ? 0 : 1;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  Child notifier = Child::Fork([&] {
    MutexLock lock(arena->mu);
    arena->changed.notify_one();
    return raise(SIGKILL);
  });
  EXPECT_EQ(notifier.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

// The limits of the word.

TEST(ConditionVariableLimitTest, MoreWaitersThanCanBeCountedReturn) {
  Shared<Arena> arena;
  std::vector<Child> early = Waiters(*arena, 1);
  arena->word() += uint64_t{2046} << 53;
  std::vector<Child> late = Waiters(*arena, 1);
  EXPECT_EQ(early[0].Wait(), Exited(0));
  EXPECT_TRUE(late[0].Running());
  EXPECT_EQ(arena->young(), 1u);
  EXPECT_EQ(arena->old(), 0u);
  arena->changed.notify_one();
  EXPECT_EQ(late[0].Wait(), Exited(0));
}

TEST(ConditionVariableLimitTest, MoreOwedThanCanBeCountedAreForAll) {
  for (const uint64_t owed : {61, 62}) {
    Shared<Arena> arena;
    std::vector<Child> old = Waiters(*arena, 3);
    arena->changed.notify_one();
    AwaitReturned(*arena, old, 1);
    // As if two more had been notified, and had not come yet.
    arena->word() += owed << 36 | 2;
    std::vector<Child> young = Waiters(*arena, 2);
    arena->changed.notify_one();
    if (owed == 61) {
      EXPECT_EQ(arena->owed(), 63u);
      EXPECT_GE(arena->old(), 1u);  // The notified one may have returned.
      arena->changed.notify_all();
    }
    for (Child& waiter : young) EXPECT_EQ(waiter.Wait(), Exited(0));
    EXPECT_EQ(arena->owed() + arena->old() + arena->young(), 0u);
    for (Child& waiter : old) EXPECT_EQ(waiter.Wait(), Exited(0));
  }
}

TEST(ConditionVariableLimitTest, TheEpochRunsOverIntoNoOtherBit) {
  Shared<Arena> arena;
  arena->word() = uint64_t{0xffffff} << 12;
  std::vector<Child> waiters = Waiters(*arena, 3);
  arena->changed.notify_one();
  EXPECT_EQ(arena->epoch(), 0u);
  AwaitReturned(*arena, waiters, 1);
  EXPECT_EQ(arena->old(), 2u);
  arena->changed.notify_one();
  AwaitReturned(*arena, waiters, 2);
  EXPECT_EQ(arena->old(), 1u);
  arena->changed.notify_all();
  EXPECT_EQ(arena->epoch(), 2u);
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
}

// Stopped for 2^24 epochs, a waiter takes the present group for its own, in
// which it is not counted.
TEST(ConditionVariableLimitTest, WhoIsNotCountedReturns) {
  Shared<Arena> arena;
  std::vector<Child> young = Waiters(*arena, 1, Sleep::kInSlices);
  arena->word() &= ~(uint64_t{0x7ff} << 53);
  EXPECT_EQ(young[0].Wait(), Exited(0));
  std::vector<Child> old = Waiters(*arena, 2, Sleep::kInSlices);
  arena->changed.notify_one();
  AwaitReturned(*arena, old, 2);  // One of them, and the one before.
  arena->word() &= ~(uint64_t{0x7ff} << 42);
  for (Child& waiter : old) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->old() + arena->young() + arena->credits(), 0u);
}

// Misuse.

TEST(ConditionVariableDeathTest, ToWaitWithoutTheMutexIsFatal) {
  constexpr char kMessage[] =
      "^cohort: ConditionVariable: waits without holding the mutex";
  Mutex mu;
  RecursiveMutex recursive;
  ConditionVariable changed;
  EXPECT_DEATH(changed.wait(mu), kMessage);
  EXPECT_DEATH(changed.wait_for(recursive, milliseconds(1)), kMessage);
  std::unique_lock unowned(mu, std::defer_lock);
  EXPECT_DEATH(changed.wait(unowned), kMessage);
  std::mutex foreign;
  std::unique_lock unowned_foreign(foreign, std::defer_lock);
  EXPECT_DEATH(changed.wait(unowned_foreign), kMessage);
  auto unlocked = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    MutexLock lock(mu);
    lock.unlock();
    changed.wait(lock);
  };
  EXPECT_DEATH(unlocked(), kMessage);
  // Another thread holds it.
  MutexLock lock(mu);
  EXPECT_DEATH(std::thread([&] { changed.wait(mu); }).join(), kMessage);
}

}  // namespace
}  // namespace cohort
