// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/shared_mutex.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
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

static_assert(std::is_trivially_destructible_v<SharedMutex>);
static_assert(std::is_standard_layout_v<SharedMutex>);
static_assert(!std::is_copy_constructible_v<SharedMutex>);
static_assert(!std::is_copy_assignable_v<SharedMutex>);

struct Arena {
  SharedMutex mu;
  Gate gate;
  std::atomic<int> count;
};

template <int kReaders>
bool MayWrite(BasicSharedMutex<kReaders>& mu) {
  if (!mu.try_lock()) return false;
  mu.unlock();
  return true;
}

template <int kReaders>
bool MayRead(BasicSharedMutex<kReaders>& mu) {
  if (!mu.try_lock_shared()) return false;
  mu.unlock_shared();
  return true;
}

// The children here do without slices, so each wake-up has to be a real one.

// Writes, or reads, until the gate is open.
template <int kReaders>
Child Writer(BasicSharedMutex<kReaders>& mu, Gate& gate,
             std::atomic<int>& count) {
  return Child::Fork([&] {
    os::Slices::TurnOff();
    SharedMutexLock lock(mu);
    ++count;
    gate.Pass();
  });
}

template <int kReaders>
Child Reader(BasicSharedMutex<kReaders>& mu, Gate& gate,
             std::atomic<int>& count) {
  return Child::Fork([&] {
    os::Slices::TurnOff();
    SharedMutexReaderLock lock(mu);
    ++count;
    gate.Pass();
  });
}

void Await(const std::atomic<int>& count, int value) {
  while (count != value) sched_yield();
}

Child DieWriting(SharedMutex& mu) {
  return Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu.lock();
    return raise(SIGKILL);
  });
}

TEST(SharedMutexTest, AConstructedOneIsAllZero) {
  alignas(SharedMutex) unsigned char bytes[sizeof(SharedMutex)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) SharedMutex;
  const auto* mu = reinterpret_cast<const uint64_t*>(bytes);
  // Words and links; padding is nobody's.
  for (size_t line = 0; line < sizeof bytes / 64; ++line) {
    for (int i = 0; i < 5; ++i) EXPECT_EQ(mu[line * 8 + i], 0u);
  }
}

TEST(SharedMutexTest, AllZeroBytesAreFreeAndClean) {
  Shared<SharedMutex> mu;
  {
    SharedMutexReaderLock lock(*mu);
    EXPECT_FALSE(mu->poisoned());
  }
  SharedMutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

// Every thread writes and reads.
template <int kReaders>
void ExcludesThreads() {
  struct Data {
    BasicSharedMutex<kReaders> mu;
    int64_t left = 0;
    int64_t right = 0;
  };
  constexpr int kRounds = 10'000;
  auto data = std::make_unique<Data>();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        if ((i + t) % 4 == 0) {
          SharedMutexLock lock(data->mu);
          ++data->left;
          ++data->right;
        } else {
          SharedMutexReaderLock lock(data->mu);
          EXPECT_EQ(data->left, data->right);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(data->left, kRounds);
}

TEST(SharedMutexTest, ExcludesOtherThreads) { ExcludesThreads<32>(); }
TEST(SharedMutexTest, ExcludesOtherThreadsWithFewSlots) {
  ExcludesThreads<1>();
  ExcludesThreads<2>();
}

TEST(SharedMutexTest, ExcludesOtherProcesses) {
  struct Data {
    SharedMutex mu;
    int64_t left ABSL_GUARDED_BY(mu) = 0;
    int64_t right ABSL_GUARDED_BY(mu) = 0;
  };
  constexpr int kRounds = 50'000;
  Shared<Data> data;
  auto work = [&] {
    for (int i = 0; i < kRounds; ++i) {
      {
        SharedMutexLock lock(data->mu);
        ++data->left;
        ++data->right;
      }
      SharedMutexReaderLock lock(data->mu);
      if (data->left != data->right) return 1;
    }
    return 0;
  };
  Child child = Child::Fork(work);
  EXPECT_EQ(work(), 0);
  ASSERT_EQ(child.Wait(), Exited(0));
  SharedMutexReaderLock lock(data->mu);
  EXPECT_EQ(data->left, 2 * kRounds);
}

TEST(SharedMutexTest, WorksAtAnotherAddressInEachProcess) {
  Shared<SharedMutex> mu;
  // The same page a second time.
  void* twin = mremap(mu.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  auto* alias = static_cast<SharedMutex*>(twin);
  {
    SharedMutexReaderLock lock(*mu);
    Child child = Child::Fork(
        [&] { return MayRead(*alias) && !MayWrite(*alias) ? 0 : 1; });
    EXPECT_EQ(child.Wait(), Exited(0));
  }
  ASSERT_EQ(DieWriting(*alias).Wait(), KilledBy(SIGKILL));
  SharedMutexReaderLock lock(*mu);
  EXPECT_TRUE(mu->poisoned());
  munmap(twin, 4096);
}

TEST(SharedMutexTest, ReadersReadTogether) {
  Shared<Arena> arena;
  std::vector<Child> readers;
  for (int i = 0; i < 6; ++i) {
    readers.push_back(Reader(arena->mu, arena->gate, arena->count));
  }
  Await(arena->count, 6);
  EXPECT_TRUE(MayRead(arena->mu));
  EXPECT_FALSE(MayWrite(arena->mu));
  arena->gate.Open();
  for (Child& reader : readers) EXPECT_EQ(reader.Wait(), Exited(0));
  EXPECT_TRUE(MayWrite(arena->mu));
}

TEST(SharedMutexTest, AWriterExcludesAll) {
  Shared<Arena> arena;
  Child writer = Writer(arena->mu, arena->gate, arena->count);
  Await(arena->count, 1);
  EXPECT_FALSE(MayRead(arena->mu));
  EXPECT_FALSE(MayWrite(arena->mu));
  EXPECT_FALSE(arena->mu.try_lock_for(milliseconds(1)));
  EXPECT_FALSE(arena->mu.try_lock_shared_for(milliseconds(1)));
  arena->gate.Open();
  EXPECT_EQ(writer.Wait(), Exited(0));
  EXPECT_TRUE(MayRead(arena->mu));
}

TEST(SharedMutexTest, TheLastReaderWakesTheWriter) {
  constexpr int kCount = 4;
  Shared<Arena> arena;
  Shared<std::array<Gate, kCount>> gates;
  Shared<std::atomic<int>> written;
  std::vector<Child> readers;
  for (int i = 0; i < kCount; ++i) {
    readers.push_back(Reader(arena->mu, (*gates)[i], arena->count));
  }
  Await(arena->count, kCount);
  arena->gate.Open();
  Child writer = Writer(arena->mu, arena->gate, *written);
  for (int i = 0; i < kCount; ++i) {
    ASSERT_TRUE(writer.AwaitAsleepInFutex());
    EXPECT_EQ(*written, 0);
    (*gates)[i].Open();
    EXPECT_EQ(readers[i].Wait(), Exited(0));
  }
  EXPECT_EQ(writer.Wait(), Exited(0));
  EXPECT_EQ(*written, 1);
}

TEST(SharedMutexTest, AWaitingWriterGoesBeforeLaterReaders) {
  struct Data : Arena {
    Gate first;
    std::atomic<int> written;
  };
  Shared<Data> data;
  Child first = Reader(data->mu, data->first, data->count);
  Await(data->count, 1);
  Child writer = Writer(data->mu, data->gate, data->written);
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  EXPECT_FALSE(MayRead(data->mu));
  Child second = Reader(data->mu, data->gate, data->count);
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  data->first.Open();
  EXPECT_EQ(first.Wait(), Exited(0));
  Await(data->written, 1);
  EXPECT_EQ(data->count, 1);
  data->gate.Open();
  EXPECT_EQ(writer.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(data->count, 2);
}

TEST(SharedMutexTest, ReadersWhoWaitedReadTogether) {
  constexpr int kCount = 5;
  struct Data : Arena {
    Gate leave;
    std::atomic<int> written;
  };
  Shared<Data> data;
  Child writer = Writer(data->mu, data->gate, data->written);
  Await(data->written, 1);
  std::vector<Child> readers;
  for (int i = 0; i < kCount; ++i) {
    readers.push_back(Reader(data->mu, data->leave, data->count));
    ASSERT_TRUE(readers.back().AwaitAsleepInFutex());
  }
  data->gate.Open();
  Await(data->count, kCount);
  EXPECT_FALSE(MayWrite(data->mu));
  data->leave.Open();
  for (Child& reader : readers) EXPECT_EQ(reader.Wait(), Exited(0));
  EXPECT_EQ(writer.Wait(), Exited(0));
  EXPECT_TRUE(MayWrite(data->mu));
}

TEST(SharedMutexTest, WritersAndReadersFollowEachOther) {
  constexpr int kEach = 4;
  struct Data : Arena {
    Gate hold;
    std::atomic<int> written;
  };
  Shared<Data> data;
  Child holder = Writer(data->mu, data->hold, data->written);
  Await(data->written, 1);
  data->gate.Open();
  std::vector<Child> children;
  for (int i = 0; i < kEach; ++i) {
    children.push_back(Reader(data->mu, data->gate, data->count));
    ASSERT_TRUE(children.back().AwaitAsleepInFutex());
    children.push_back(Writer(data->mu, data->gate, data->written));
    ASSERT_TRUE(children.back().AwaitAsleepInFutex());
  }
  data->hold.Open();
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(data->count, kEach);
  EXPECT_EQ(data->written, kEach + 1);
}

TEST(SharedMutexTest, OneReaderMoreThanThereAreSlotsWaits) {
  struct Data {
    BasicSharedMutex<2> mu;
    Gate first, others;
    std::atomic<int> count, written;
  };
  Shared<Data> data;
  Child first = Reader(data->mu, data->first, data->count);
  Await(data->count, 1);
  Child second = Reader(data->mu, data->others, data->count);
  Await(data->count, 2);
  EXPECT_FALSE(MayRead(data->mu));
  EXPECT_FALSE(data->mu.try_lock_shared_for(milliseconds(30)));
  Child third = Reader(data->mu, data->others, data->count);
  ASSERT_TRUE(third.AwaitAsleepInFutex());
  Child writer = Writer(data->mu, data->others, data->written);
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  EXPECT_EQ(data->count, 2);
  data->first.Open();
  Await(data->count, 3);
  EXPECT_EQ(data->written, 0);
  data->others.Open();
  for (Child* child : {&first, &second, &third, &writer}) {
    EXPECT_EQ(child->Wait(), Exited(0));
  }
  EXPECT_TRUE(MayRead(data->mu));
}

TEST(SharedMutexTest, AWriterWhoseTimeIsOverLetsReadersIn) {
  Shared<Arena> arena;
  Child reader = Reader(arena->mu, arena->gate, arena->count);
  Await(arena->count, 1);
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(arena->mu.try_lock_until(deadline));
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(arena->mu.try_lock_for(absl::Milliseconds(1)));
  EXPECT_TRUE(MayRead(arena->mu));
  // A reader that waited behind such a writer comes in too.
  Child writer = Child::Fork(
      [&] { return arena->mu.try_lock_for(milliseconds(300)) ? 1 : 0; });
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  Child second = Reader(arena->mu, arena->gate, arena->count);
  EXPECT_EQ(writer.Wait(), Exited(0));
  Await(arena->count, 2);
  arena->gate.Open();
  EXPECT_EQ(reader.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
}

TEST(SharedMutexTest, ReadersTimeOut) {
  Shared<Arena> arena;
  Child writer = Writer(arena->mu, arena->gate, arena->count);
  Await(arena->count, 1);
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(arena->mu.try_lock_shared_until(deadline));
  EXPECT_TRUE(deadline.Passed());
  EXPECT_FALSE(arena->mu.try_lock_shared_for(absl::Milliseconds(1)));
  arena->gate.Open();
  EXPECT_EQ(writer.Wait(), Exited(0));
  EXPECT_TRUE(MayWrite(arena->mu));
}

TEST(SharedMutexTest, TriesWithoutWaiting) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  ASSERT_TRUE(mu->try_lock());
  EXPECT_FALSE(mu->try_lock());  // To the writer too.
  EXPECT_FALSE(mu->try_lock_shared());
  mu->unlock();
  ASSERT_TRUE(mu->try_lock_shared());
  EXPECT_FALSE(mu->try_lock());  // To a reader too.
  EXPECT_TRUE(Child::Fork([&] { return MayRead(*mu) ? 0 : 1; }).Wait() ==
              Exited(0));
  mu->unlock_shared();
  EXPECT_TRUE(MayWrite(*mu));
}

TEST(SharedMutexTest, AWaitOfNoTimeTriesOnce) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  auto polls = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    int taken = 0;
    auto count = [&](bool held) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      if (!held) return;
      ++taken;
      mu->unlock();
    };
    auto count_shared = [&](bool held) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      if (!held) return;
      ++taken;
      mu->unlock_shared();
    };
    count(mu->try_lock_for(milliseconds(0)));
    count(mu->try_lock_for(-absl::InfiniteDuration()));
    count(mu->try_lock_until(Deadline::Now()));
    count_shared(mu->try_lock_shared_for(milliseconds(-1)));
    count_shared(mu->try_lock_shared_for(absl::ZeroDuration()));
    count_shared(mu->try_lock_shared_until(Deadline::Now()));
    return taken;
  };
  EXPECT_EQ(Child::Fork(polls).Wait(), Exited(6));
  mu->lock();
  EXPECT_EQ(Child::Fork(polls).Wait(), Exited(0));
  mu->unlock();
  mu->lock_shared();
  EXPECT_EQ(Child::Fork(polls).Wait(), Exited(3));
  mu->unlock_shared();
}

TEST(SharedMutexTest, AWaitWithATimeLimitIsWoken)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  mu->lock();
  Child reader = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    os::Slices::TurnOff();
    if (!mu->try_lock_shared_for(std::chrono::hours(1))) return 1;
    mu->unlock_shared();
    if (!mu->try_lock_shared_for(absl::InfiniteDuration())) return 2;
    mu->unlock_shared();
    return 0;
  });
  Child writer = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    os::Slices::TurnOff();
    if (!mu->try_lock_for(absl::Hours(1))) return 1;
    mu->unlock();
    return 0;
  });
  ASSERT_TRUE(reader.AwaitAsleepInFutex());
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  mu->unlock();
  EXPECT_EQ(reader.Wait(), Exited(0));
  EXPECT_EQ(writer.Wait(), Exited(0));
}

TEST(SharedMutexTest, AHandlerDoesNotEndTheWait)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  Shared<std::atomic<int>> handled;
  static std::atomic<int>* count;
  count = handled.get();
  mu->lock_shared();
  Child writer = Child::Fork([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++*count; };
    sigaction(SIGUSR1, &action, nullptr);
    *count = 1;
    SharedMutexLock lock(*mu);
  });
  Await(*handled, 1);
  for (int signals = 2; signals <= 5; ++signals) {
    ASSERT_TRUE(writer.AwaitAsleepInFutex());
    writer.Kill(SIGUSR1);
    Await(*handled, signals);
  }
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  mu->unlock_shared();
  EXPECT_EQ(writer.Wait(), Exited(0));
}

// A stale one could mark a foreign object that is mapped here later.
TEST(SharedMutexTest, LeavesNothingPending) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  struct robust_list_head* head = nullptr;
  size_t size = 0;
  ASSERT_EQ(syscall(SYS_get_robust_list, 0, &head, &size), 0);
  struct Data {
    SharedMutex mu, written;
    BasicSharedMutex<1> read;
    Gate gate;
    std::atomic<int> count;
  };
  Shared<Data> data;
  Child writer = Writer(data->written, data->gate, data->count);
  Await(data->count, 1);
  Child reader = Reader(data->read, data->gate, data->count);
  Await(data->count, 2);

  SharedMutex& mu = data->mu;
  mu.lock();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(mu.try_lock());
  EXPECT_FALSE(mu.try_lock_shared());
  EXPECT_EQ(head->list_op_pending, nullptr);
  mu.unlock();
  EXPECT_EQ(head->list_op_pending, nullptr);
  mu.lock_shared();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(mu.try_lock());
  EXPECT_EQ(head->list_op_pending, nullptr);
  mu.unlock_shared();
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(data->written.try_lock());
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(data->written.try_lock_shared());
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(data->written.try_lock_shared_for(milliseconds(1)));
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(data->written.try_lock_for(milliseconds(1)));
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(data->read.try_lock_for(milliseconds(1)));
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_FALSE(data->read.try_lock_shared_for(milliseconds(1)));
  EXPECT_EQ(head->list_op_pending, nullptr);
  EXPECT_EQ(head->list.next, &head->list);
  data->gate.Open();
}

TEST(SharedMutexTest, UnlocksInAnyOrder) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  struct Data {
    SharedMutex first, second, third;
  };
  Shared<Data> data;
  data->first.lock_shared();
  data->second.lock();
  data->third.lock_shared();
  data->first.unlock_shared();
  data->second.unlock();
  EXPECT_TRUE(MayWrite(data->first));
  EXPECT_TRUE(MayWrite(data->second));
  EXPECT_FALSE(MayWrite(data->third));
  data->third.unlock_shared();
  EXPECT_TRUE(MayWrite(data->third));
}

// The standard library's own tools.

TEST(SharedMutexTest, SharedLockAndUniqueLock) {
  Shared<SharedMutex> mu;
  {
    std::shared_lock lock(*mu);
    Child child = Child::Fork([&] {
      std::shared_lock second(*mu, milliseconds(5));
      std::unique_lock third(*mu, std::defer_lock);
      return second.owns_lock() && !third.try_lock() ? 0 : 1;
    });
    EXPECT_EQ(child.Wait(), Exited(0));
  }
  {
    std::unique_lock lock(*mu, milliseconds(5));
    EXPECT_TRUE(lock.owns_lock());
    Child child = Child::Fork([&] {
      std::shared_lock second(*mu, milliseconds(5));
      std::shared_lock third(*mu, std::try_to_lock);
      return second.owns_lock() || third.owns_lock() ? 1 : 0;
    });
    EXPECT_EQ(child.Wait(), Exited(0));
  }
  std::unique_lock lock(*mu, std::try_to_lock);
  EXPECT_TRUE(lock.owns_lock());
}

TEST(SharedMutexTest, ScopedLockOfTwoDoesNotDeadlock) {
  struct Two {
    SharedMutex first, second;
    int value;
  };
  constexpr int kRounds = 5'000;
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

TEST(SharedMutexTest, ConditionVariableAnyWaitsWithIt) {
  Shared<SharedMutex> shared;
  SharedMutex& mu = *shared;
  std::condition_variable_any changed;
  bool ready = false;
  std::thread setter([&] {
    SharedMutexLock lock(mu);
    ready = true;
    changed.notify_all();
  });
  {
    std::shared_lock lock(mu);
    changed.wait(lock, [&] { return ready; });
  }
  std::unique_lock lock(mu);
  changed.wait(lock, [&] { return ready; });
  setter.join();
}

// Death.

TEST(SharedMutexCrashTest, DeadReadersDoNotBlockWriters) {
  Shared<SharedMutex> mu;
  for (int i = 0; i < 40; ++i) {  // More than there are slots.
    Child reader = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      mu->lock_shared();
      return raise(SIGKILL);
    });
    ASSERT_EQ(reader.Wait(), KilledBy(SIGKILL));
  }
  {
    SharedMutexLock lock(*mu);
    EXPECT_FALSE(mu->poisoned());
  }
  SharedMutexReaderLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

TEST(SharedMutexCrashTest, ADyingReaderWakesTheWriter) {
  struct Data : Arena {
    std::atomic<int> written;
  };
  Shared<Data> data;
  Child reader = Reader(data->mu, data->gate, data->count);
  Await(data->count, 1);
  Child writer = Child::Fork([&] {
    os::Slices::TurnOff();
    SharedMutexLock lock(data->mu);
    return data->mu.poisoned() ? 1 : 0;
  });
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  reader.Kill(SIGKILL);
  EXPECT_EQ(writer.Wait(), Exited(0));
}

TEST(SharedMutexCrashTest, ADyingReaderMakesRoomForAnother) {
  struct Data {
    BasicSharedMutex<1> mu;
    Gate gate, open;
    std::atomic<int> count;
  };
  Shared<Data> data;
  data->open.Open();
  Child first = Reader(data->mu, data->gate, data->count);
  Await(data->count, 1);
  Child second = Reader(data->mu, data->open, data->count);
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  first.Kill(SIGKILL);
  EXPECT_EQ(second.Wait(), Exited(0));
}

TEST(SharedMutexCrashTest, ReadersAreToldOfADeadWriterUntilItIsRepaired) {
  Shared<SharedMutex> mu;
  ASSERT_EQ(DieWriting(*mu).Wait(), KilledBy(SIGKILL));
  for (int i = 0; i < 2; ++i) {
    SharedMutexReaderLock lock(*mu);
    EXPECT_TRUE(lock.poisoned());
  }
  ASSERT_EQ(DieWriting(*mu).Wait(), KilledBy(SIGKILL));  // A repairer.
  {
    SharedMutexLock lock(*mu);
    EXPECT_TRUE(lock.poisoned());
  }
  {
    SharedMutexLock lock(*mu);
    EXPECT_TRUE(mu->poisoned());
    mu->clear_poison();
  }
  SharedMutexReaderLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

TEST(SharedMutexCrashTest, TriesSucceedAfterAWritersDeath)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  ASSERT_EQ(DieWriting(*mu).Wait(), KilledBy(SIGKILL));
  ASSERT_TRUE(mu->try_lock_shared());
  EXPECT_TRUE(mu->poisoned());
  mu->unlock_shared();
  ASSERT_EQ(DieWriting(*mu).Wait(), KilledBy(SIGKILL));
  ASSERT_TRUE(mu->try_lock());
  EXPECT_TRUE(mu->poisoned());
  mu->unlock();
}

TEST(SharedMutexCrashTest, SleepersGetADeadWritersLock) {
  Shared<Arena> arena;
  Child writer = Writer(arena->mu, arena->gate, arena->count);
  Await(arena->count, 1);
  std::vector<Child> sleepers;
  for (int i = 0; i < 3; ++i) {
    sleepers.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      SharedMutexReaderLock lock(arena->mu);
      return lock.poisoned() ? 0 : 1;
    }));
    ASSERT_TRUE(sleepers.back().AwaitAsleepInFutex());
    sleepers.push_back(Child::Fork([&] {
      os::Slices::TurnOff();
      SharedMutexLock lock(arena->mu);
      return lock.poisoned() ? 0 : 1;
    }));
    ASSERT_TRUE(sleepers.back().AwaitAsleepInFutex());
  }
  writer.Kill(SIGKILL);
  for (Child& sleeper : sleepers) EXPECT_EQ(sleeper.Wait(), Exited(0));
}

// Until it has the readers out it has written nothing.
TEST(SharedMutexCrashTest, AWriterThatDiesWaitingPoisonsNothing) {
  struct Data : Arena {
    Gate open;
    std::atomic<int> written;
  };
  Shared<Data> data;
  data->open.Open();
  Child reader = Reader(data->mu, data->gate, data->count);
  Await(data->count, 1);
  Child writer = Writer(data->mu, data->open, data->written);
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  Child second = Reader(data->mu, data->open, data->count);
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  Child third = Reader(data->mu, data->open, data->count);
  ASSERT_TRUE(third.AwaitAsleepInFutex());
  writer.Kill(SIGKILL);
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(third.Wait(), Exited(0));
  {
    SharedMutexReaderLock lock(data->mu);
    EXPECT_FALSE(lock.poisoned());
  }
  data->gate.Open();
  EXPECT_EQ(reader.Wait(), Exited(0));
  SharedMutexLock lock(data->mu);
  EXPECT_FALSE(lock.poisoned());
}

// The gate stays closed until the next one comes, and readers are there.
TEST(SharedMutexCrashTest, AReaderMayTryBehindAWriterThatDiedWaiting)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  mu->lock_shared();
  Child writer = Child::Fork([&] { SharedMutexLock lock(*mu); });
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  writer.Kill(SIGKILL);
  ASSERT_EQ(writer.Wait(), KilledBy(SIGKILL));
  EXPECT_FALSE(mu->try_lock());
  mu->unlock_shared();
  EXPECT_TRUE(mu->try_lock());
  EXPECT_FALSE(mu->poisoned());
  mu->unlock();
}

TEST(SharedMutexCrashTest, RepairRunsOnceAfterADeath) {
  struct Account {
    SharedMutex mu;
    int cents ABSL_GUARDED_BY(mu) = 0;
  };
  Shared<Account> account;
  ASSERT_EQ(DieWriting(account->mu).Wait(), KilledBy(SIGKILL));
  int repairs = 0;
  auto lock_with_repair = [&] {
    SharedMutexLock lock(account->mu,
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

TEST(SharedMutexCrashTest, AThrowingOrDyingRepairLeavesThePoison) {
  Shared<SharedMutex> mu;
  ASSERT_EQ(DieWriting(*mu).Wait(), KilledBy(SIGKILL));
  auto throws = [&] {
    SharedMutexLock lock(*mu, [] { throw std::runtime_error("no journal"); });
  };
  EXPECT_THROW(throws(), std::runtime_error);
  Child repairer =
      Child::Fork([&] { SharedMutexLock lock(*mu, [] { raise(SIGKILL); }); });
  ASSERT_EQ(repairer.Wait(), KilledBy(SIGKILL));
  bool repaired = false;
  SharedMutexLock lock(*mu, [&] { repaired = true; });
  EXPECT_TRUE(repaired);
}

TEST(SharedMutexCrashTest, AnEndingThreadCountsAsADeadHolder) {
  Shared<SharedMutex> mu;
  std::thread([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu->lock_shared();
  }).join();
  {
    SharedMutexLock lock(*mu);
    EXPECT_FALSE(mu->poisoned());
  }
  std::thread([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->lock(); }).join();
  SharedMutexReaderLock lock(*mu);
  EXPECT_TRUE(mu->poisoned());
}

TEST(SharedMutexCrashTest, ExecveCountsAsDeath) {
  for (const bool write : {false, true}) {
    Shared<SharedMutex> mu;
    Child child = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      if (write) {
        mu->lock();
      } else {
        mu->lock_shared();
      }
      execl("/bin/true", "true", nullptr);
      return 1;
    });
    ASSERT_EQ(child.Wait(), Exited(0));
    SharedMutexLock lock(*mu);
    EXPECT_EQ(mu->poisoned(), write);
  }
}

TEST(SharedMutexCrashTest, AForkedChildDoesNotHoldWhatItsParentHolds)
ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shared<SharedMutex> mu;
  mu->lock_shared();
  Child child = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (mu->try_lock()) return 1;
    mu->lock_shared();
    return 0;  // Ends while it reads.
  });
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(Child::Fork([&] { return MayWrite(*mu) ? 1 : 0; }).Wait(),
            Exited(0));
  mu->unlock_shared();
  SharedMutexLock lock(*mu);
  EXPECT_FALSE(mu->poisoned());
}

// A stopped process is not a dead one: nobody may take its place. The others'
// time limits hold, and its death is noticed as ever.
TEST(SharedMutexCrashTest, AStoppedReaderKeepsItsPlace) {
  Shared<Arena> arena;
  Child reader = Reader(arena->mu, arena->gate, arena->count);
  Await(arena->count, 1);
  reader.Stop();
  EXPECT_FALSE(arena->mu.try_lock_for(milliseconds(50)));
  EXPECT_TRUE(MayRead(arena->mu));
  reader.Kill(SIGKILL);
  SharedMutexLock lock(arena->mu);
  EXPECT_FALSE(lock.poisoned());
}

TEST(SharedMutexCrashTest, AStoppedWriterThatWaitsKeepsItsPlace) {
  struct Data : Arena {
    Gate open;
    std::atomic<int> written;
  };
  Shared<Data> data;
  data->open.Open();
  Child reader = Reader(data->mu, data->gate, data->count);
  Await(data->count, 1);
  Child writer = Writer(data->mu, data->open, data->written);
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  writer.Stop();
  EXPECT_FALSE(data->mu.try_lock_shared_for(milliseconds(50)));
  EXPECT_FALSE(data->mu.try_lock_for(milliseconds(1)));
  Child sleeper = Reader(data->mu, data->open, data->count);
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  data->gate.Open();
  EXPECT_EQ(reader.Wait(), Exited(0));
  EXPECT_FALSE(data->mu.try_lock_shared_for(milliseconds(1)));
  writer.Continue();
  EXPECT_EQ(writer.Wait(), Exited(0));
  EXPECT_EQ(data->written, 1);
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

// Misuse.

TEST(SharedMutexDeathTest, UnlockByAnotherThanTheWriterIsFatal) {
  Shared<SharedMutex> mu;
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->unlock(); };
  EXPECT_DEATH(misuse(), "SharedMutex: unlocked by another than its writer");
  SharedMutexReaderLock lock(*mu);
  EXPECT_DEATH(misuse(), "SharedMutex: unlocked by another than its writer");
}

TEST(SharedMutexDeathTest, UnlockSharedByAThreadThatDoesNotReadIsFatal) {
  Shared<SharedMutex> mu;
  auto misuse = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->unlock_shared(); };
  EXPECT_DEATH(misuse(), "unlock_shared.. by a thread that does not read");
  SharedMutexReaderLock lock(*mu);
  EXPECT_DEATH(misuse(), "unlock_shared.. by a thread that does not read");
}

TEST(SharedMutexDeathTest, LockAgainIsFatal) {
  Shared<SharedMutex> mu;
  auto write = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->lock(); };
  auto wait_to_write = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    (void)mu->try_lock_for(std::chrono::hours(1));
  };
  auto read = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu->lock_shared(); };
  EXPECT_DEATH((write(), write()), "locked again by its writer");
  EXPECT_DEATH((write(), wait_to_write()), "locked again by its writer");
  EXPECT_DEATH((write(), read()), "lock_shared.. by its writer");
  EXPECT_DEATH((read(), write()), "lock.. by a thread that reads it");
  EXPECT_DEATH((read(), read()), "lock_shared.. by a thread that reads it");
}

// It would wait for the writer, and the writer for it.
// It would wait for the writer, who waits for it.
TEST(SharedMutexDeathTest, AReaderThatLocksBehindAWaitingWriterIsFatal) {
  Shared<SharedMutex> mu;
  auto lock = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mu->lock_shared();
    Child writer = Child::Fork([&] { SharedMutexLock lock(*mu); });
    if (writer.AwaitAsleepInFutex()) mu->lock();
  };
  EXPECT_DEATH(lock(), "SharedMutex: lock\\(\\) by a thread that reads it");
}

TEST(SharedMutexDeathTest, ReadingAgainBehindAWaitingWriterIsFatal) {
  Shared<Arena> arena;
  Child reader = Child::Fork([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    arena->mu.lock_shared();
    ++arena->count;
    arena->gate.Pass();
    fclose(stderr);
    arena->mu.lock_shared();
    return 1;
  });
  Await(arena->count, 1);
  Child writer = Child::Fork([&] { SharedMutexLock lock(arena->mu); });
  ASSERT_TRUE(writer.AwaitAsleepInFutex());
  arena->gate.Open();
  EXPECT_EQ(reader.Wait(), KilledBy(SIGABRT));
  EXPECT_EQ(writer.Wait(), Exited(0));
}

}  // namespace
}  // namespace cohort
