// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/event.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
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

static_assert(std::is_trivially_destructible_v<Event>);
static_assert(std::is_standard_layout_v<Event>);
static_assert(!std::is_copy_constructible_v<Event>);
static_assert(!std::is_copy_assignable_v<Event>);

constexpr uint32_t kMark = 0x80000000;

std::atomic<uint32_t>& WordOf(Event& event) {
  return *reinterpret_cast<std::atomic<uint32_t>*>(&event);
}

// A child that waits without slices: a wake-up that is lost is a hang.
Child Waiter(Event& event) {
  return Child::Fork([&] {
    os::Slices::TurnOff();
    event.wait();
  });
}

TEST(EventTest, AConstructedOneIsAllZero) {
  alignas(Event) unsigned char bytes[sizeof(Event)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) Event;
  const unsigned char zero[sizeof(Event)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(EventTest, AllZeroBytesAreClear) {
  Shared<Event> event;
  EXPECT_FALSE(event->is_set());
}

TEST(EventTest, IsSetUntilCleared) {
  Shared<Event> event;
  for (int i = 0; i < 3; ++i) {
    event->set();
    EXPECT_TRUE(event->is_set());
    event->set();  // Two are as one.
    EXPECT_TRUE(event->is_set());
    event->wait();
    EXPECT_TRUE(event->is_set());  // A wait takes nothing.
    event->clear();
    EXPECT_FALSE(event->is_set());
    event->clear();
    EXPECT_FALSE(event->is_set());
  }
}

TEST(EventTest, WakesASleeper) {
  Shared<Event> event;
  Child sleeper = Waiter(*event);
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  event->set();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
  EXPECT_EQ(WordOf(*event), 1u);  // Nobody is left, and nothing says so.
}

TEST(EventTest, WakesAllSleepers) {
  Shared<Event> event;
  std::vector<Child> sleepers;
  for (int i = 0; i < 20; ++i) {
    sleepers.push_back(Waiter(*event));
    ASSERT_TRUE(sleepers.back().AwaitAsleepInFutex());
  }
  event->set();
  for (Child& sleeper : sleepers) EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(EventTest, AClearThatFollowsAtOnceKeepsNobody) {
  Shared<Event> event;
  for (int round = 0; round < 20; ++round) {
    Child first = Waiter(*event);
    Child second = Waiter(*event);
    ASSERT_TRUE(first.AwaitAsleepInFutex());
    ASSERT_TRUE(second.AwaitAsleepInFutex());
    event->set();
    event->clear();
    EXPECT_EQ(first.Wait(), Exited(0));
    EXPECT_EQ(second.Wait(), Exited(0));
    EXPECT_FALSE(event->is_set());
  }
}

TEST(EventTest, AStoppedWaiterMissesNoSet) {
  Shared<Event> event;
  Child stopped = Waiter(*event);
  ASSERT_TRUE(stopped.AwaitAsleepInFutex());
  stopped.Stop();
  for (int i = 0; i < 5; ++i) {
    event->set();
    event->clear();
  }
  Child later = Waiter(*event);
  ASSERT_TRUE(later.AwaitAsleepInFutex());
  stopped.Continue();
  EXPECT_EQ(stopped.Wait(), Exited(0));
  EXPECT_TRUE(later.Running());
  event->set();
  EXPECT_EQ(later.Wait(), Exited(0));
}

// Whoever begins to wait after a clear() does not pass by the set() before it.
TEST(EventTest, AWaitAfterTheClearNeedsANewSet) {
  Shared<Event> event;
  event->set();
  event->clear();
  EXPECT_FALSE(event->wait_for(milliseconds(1)));
  Child sleeper = Waiter(*event);
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  event->clear();  // Of a clear event: changes nothing.
  EXPECT_TRUE(sleeper.AwaitAsleepInFutex());
  event->set();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(EventTest, TheCountOfClearsRunsOverIntoNoOtherBit) {
  Shared<Event> event;
  WordOf(*event) = ~kMark - 1;  // Clear, and the count at its end.
  Child sleeper = Waiter(*event);
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  EXPECT_EQ(WordOf(*event), ~uint32_t{0} - 1);
  event->set();
  event->clear();
  EXPECT_EQ(WordOf(*event) & ~kMark, 0u);
  EXPECT_EQ(sleeper.Wait(), Exited(0));
  WordOf(*event) = ~uint32_t{0};  // The mark is kept by a clear().
  event->clear();
  EXPECT_EQ(WordOf(*event), kMark);
}

// A setter that dies before it wakes leaves the mark, and the next set() does
// what it did not.
TEST(EventTest, TheNextSetWakesForADeadSetter) {
  Shared<Event> event;
  for (const bool cleared : {false, true}) {
    event->clear();
    Child sleeper = Waiter(*event);
    ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
    WordOf(*event).fetch_or(1);  // All that the dead one did.
    if (cleared) event->clear();
    EXPECT_TRUE(sleeper.AwaitAsleepInFutex());
    event->set();
    EXPECT_EQ(sleeper.Wait(), Exited(0));
  }
}

TEST(EventTest, WithoutASecondSetASliceWakes) {
  Shared<Event> event;
  Child sleeper = Child::Fork([&] { event->wait(); });
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  WordOf(*event).fetch_or(1);
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(EventTest, AKilledWaiterIsJustGone) {
  Shared<Event> event;
  Child victim = Waiter(*event);
  Child survivor = Waiter(*event);
  ASSERT_TRUE(victim.AwaitAsleepInFutex());
  ASSERT_TRUE(survivor.AwaitAsleepInFutex());
  victim.Kill(SIGKILL);
  EXPECT_EQ(victim.Wait(), KilledBy(SIGKILL));
  event->set();
  EXPECT_EQ(survivor.Wait(), Exited(0));
  EXPECT_EQ(WordOf(*event), 1u);
}

TEST(EventTest, AMarkThatIsStaleGoesWithTheNextSet) {
  Shared<Event> event;
  Child victim = Waiter(*event);
  ASSERT_TRUE(victim.AwaitAsleepInFutex());
  victim.Kill(SIGKILL);
  (void)victim.Wait();
  EXPECT_EQ(WordOf(*event), kMark);
  event->set();
  EXPECT_EQ(WordOf(*event), 1u);
}

TEST(EventTest, AWaitOfNoTimeLooksOnce) {
  Shared<Event> event;
  for (const bool set : {false, true}) {
    if (set) event->set();
    EXPECT_EQ(event->wait_for(milliseconds(0)), set);
    EXPECT_EQ(event->wait_for(milliseconds(-1)), set);
    EXPECT_EQ(event->wait_for(absl::ZeroDuration()), set);
    EXPECT_EQ(event->wait_for(-absl::InfiniteDuration()), set);
    EXPECT_EQ(event->wait_until(Deadline::Now()), set);
  }
}

TEST(EventTest, TimesOut) {
  Shared<Event> event;
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(event->wait_until(deadline));
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(event->wait_for(absl::Milliseconds(1)));
}

TEST(EventTest, AWaitWithATimeLimitIsWoken) {
  Shared<Event> event;
  Child waiter = Child::Fork([&] {
    os::Slices::TurnOff();
    if (!event->wait_for(absl::InfiniteDuration())) return 1;
    return event->wait_for(std::chrono::hours(1)) ? 0 : 2;
  });
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  event->set();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(EventTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Event> event;
  // The same page a second time.
  void* twin = mremap(event.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  Child sleeper = Waiter(*static_cast<Event*>(twin));
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  event->set();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
  munmap(twin, 4096);
}

// Each answers with what it wrote before its set(), half of which find the
// event set already.
TEST(EventTest, ShowsWhatWasWrittenBefore) {
  constexpr int kRounds = 20'000;
  struct Arena {
    Event asked;
    Event answered;
    int64_t question;  // Not atomic: the events alone order it.
    int64_t answer;
  };
  Shared<Arena> arena;
  Child child = Child::Fork([&] {
    for (int64_t i = 1; i <= kRounds; ++i) {
      arena->asked.wait();
      arena->asked.clear();
      if (arena->question != i) return 1;
      arena->answer = 2 * i;
      arena->answered.set();
    }
    return 0;
  });
  for (int64_t i = 1; i <= kRounds; ++i) {
    arena->question = i;
    arena->asked.set();
    arena->answered.wait();
    arena->answered.clear();
    ASSERT_EQ(arena->answer, 2 * i);
  }
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(EventTest, IsForThreadsToo) {
  Event event;
  int value = 0;
  std::vector<std::thread> threads;
  std::atomic<int> seen = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      event.wait();
      seen += value;
    });
  }
  value = 7;
  event.set();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(seen, 28);
}

TEST(EventTest, OneSetReleases64Processes) {
  Shared<Event> event;
  Shared<std::atomic<int>> released;
  std::vector<Child> children;
  for (int i = 0; i < 64; ++i) {
    children.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      event->wait();
      ++*released;
    }));
  }
  for (Child& child : children) ASSERT_TRUE(child.AwaitAsleepInFutex());
  EXPECT_EQ(*released, 0);
  event->set();
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(*released, 64);
}

// Signals.

Event* handled_event = nullptr;
std::atomic<int>* handled = nullptr;

void Handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}

TEST(EventSignalTest, AHandlerThatDoesNotSetItDoesNotEndTheWait) {
  Shared<Event> event;
  Shared<std::atomic<int>> count;
  handled = count.get();
  Child waiter = Child::Fork([&] {
    os::Slices::TurnOff();
    Handle(SIGUSR1, [](int) { ++*handled; });
    *count = 1;
    event->wait();
  });
  while (*count == 0) sched_yield();
  for (int signals = 2; signals <= 5; ++signals) {
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    waiter.Kill(SIGUSR1);
    while (*count < signals) sched_yield();
  }
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  event->set();
  EXPECT_EQ(waiter.Wait(), Exited(0));
}

TEST(EventSignalTest, AHandlerMaySetWhatItsThreadWaitsFor) {
  Shared<Event> event;
  handled_event = event.get();
  Child waiter = Child::Fork([&] {
    os::Slices::TurnOff();
    Handle(SIGUSR1, [](int) {
      handled_event->set();
      handled_event->clear();
    });
    event->wait();
  });
  Child other = Waiter(*event);
  ASSERT_TRUE(waiter.AwaitAsleepInFutex());
  ASSERT_TRUE(other.AwaitAsleepInFutex());
  waiter.Kill(SIGUSR1);
  EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(other.Wait(), Exited(0));
}

// A handler sets and clears the event in the middle of anything, with `errno`
// as it was, while another process sleeps and is woken.
TEST(EventSignalTest, AHandlerMayInterruptEveryMember) {
  struct Arena {
    Event event;
    std::atomic<int> signals;
    std::atomic<bool> stop;
  };
  Shared<Arena> arena;
  handled_event = &arena->event;
  handled = &arena->signals;
  Child bystander = Child::Fork([&] {
    while (!arena->stop) (void)arena->event.wait_for(milliseconds(1));
  });
  Child child = Child::Fork([&] {
    Handle(SIGALRM, [](int) {
      const int before = errno;
      handled_event->set();
      if (handled_event->is_set() && *handled % 2 == 0) handled_event->clear();
      if (errno != before) raise(SIGABRT);
      ++*handled;
    });
    const itimerval often = {{0, 50}, {0, 50}};
    setitimer(ITIMER_REAL, &often, nullptr);
    errno = 4711;
    for (int i = 0; arena->signals < 1'000; ++i) {
      arena->event.set();
      arena->event.clear();
      if (i % 16 == 0) {
        (void)arena->event.wait_for(std::chrono::microseconds(100));
      }
      if (errno != 4711) return 1;
    }
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
    arena->event.clear();
    return arena->event.is_set() ? 2 : 0;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
  arena->stop = true;
  EXPECT_EQ(bystander.Wait(), Exited(0));
  // It is as good as new.
  arena->event.clear();
  Child sleeper = Waiter(arena->event);
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  arena->event.set();
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

}  // namespace
}  // namespace cohort
