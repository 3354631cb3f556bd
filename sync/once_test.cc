// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/once.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

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

static_assert(std::is_trivially_destructible_v<Once>);
static_assert(std::is_standard_layout_v<Once>);
static_assert(!std::is_copy_constructible_v<Once>);
static_assert(!std::is_copy_assignable_v<Once>);

struct Arena {
  Once once;
  Gate gate;
  std::atomic<int> begun;
  std::atomic<int> runs;
  std::atomic<int> again;
  int value;
};

// A runner that stays inside until the gate is open.
Child Runner(Arena& arena) {
  Child runner = Child::Fork([&] {
    arena.once.call([&](bool again) {
      arena.again = again;
      ++arena.begun;
      arena.gate.Pass();
      arena.value = 42;
      ++arena.runs;
    });
  });
  while (arena.begun == 0) sched_yield();
  return runner;
}

// A child that waits for the runner, or becomes one; without slices, so that
// its wake-up has to be a real one.
Child Waiter(Arena& arena) {
  Child waiter = Child::Fork([&] {
    os::Slices::TurnOff();
    arena.once.call([&](bool again) {
      arena.again = again;
      arena.value = 42;
      ++arena.runs;
    });
    return arena.once.done() && arena.value == 42 ? 0 : 1;
  });
  EXPECT_TRUE(waiter.AwaitAsleepInFutex());
  return waiter;
}

TEST(OnceTest, AConstructedOneIsAllZero) {
  alignas(Once) unsigned char bytes[sizeof(Once)];
  std::memset(bytes, 0xff, sizeof bytes);
  new (bytes) Once;
  const unsigned char zero[sizeof(Once)] = {};
  EXPECT_EQ(std::memcmp(bytes, zero, sizeof bytes), 0);
}

TEST(OnceTest, RunsTheFunctionOnce) {
  Shared<Once> once;
  int runs = 0;
  EXPECT_FALSE(once->done());
  once->call([&] { ++runs; });
  EXPECT_TRUE(once->done());
  once->call([&] { ++runs; });
  EXPECT_TRUE(once->try_call([&] { ++runs; }));
  EXPECT_TRUE(once->try_call_for(milliseconds(1), [&] { ++runs; }));
  EXPECT_TRUE(once->try_call_until(Deadline::Infinite(), [&] { ++runs; }));
  EXPECT_EQ(runs, 1);
}

TEST(OnceTest, EachFormRunsIt) {
  int runs = 0;
  auto run = [&] { ++runs; };
  Shared<Once> first, second, third, fourth;
  EXPECT_TRUE(first->try_call(run));
  EXPECT_TRUE(second->try_call_for(absl::ZeroDuration(), run));
  EXPECT_TRUE(third->try_call_for(milliseconds(-1), run));
  EXPECT_TRUE(fourth->try_call_until(Deadline::Now(), run));
  EXPECT_EQ(runs, 4);
}

TEST(OnceTest, TakesWhateverCanBeCalled) {
  struct Counter {
    int calls = 0;
    void operator()() & { ++calls; }
    void operator()() && { calls += 100; }
    int operator()(bool again) const { return again ? 1 : 0; }  // Preferred.
  };
  static int calls;
  calls = 0;
  void (*function)() = [] { ++calls; };
  Shared<Once> by_function, by_move_only, by_bool;
  by_function->call(function);
  auto one = std::make_unique<int>(1);
  by_move_only->call([one = std::move(one)] { calls += *one; });
  by_bool->call([](bool again) { calls += again ? 100 : 1; });
  EXPECT_EQ(calls, 3);
  Counter counter;
  Shared<Once> by_object;
  by_object->call(counter);
  EXPECT_EQ(counter.calls, 0);
}

TEST(OnceTest, OneOfManyThreadsRunsIt) {
  constexpr int kRounds = 500;
  constexpr int kThreads = 4;
  auto once = std::make_unique<Once[]>(kRounds);
  std::vector<int> runs(kRounds);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        once[i].call([&] { ++runs[i]; });
        EXPECT_EQ(runs[i], 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(OnceTest, OneOfManyProcessesRunsIt) {
  constexpr int kRounds = 1'000;
  struct Data {
    Once once[kRounds];
    int runs[kRounds];
  };
  Shared<Data> data;
  auto work = [&] {
    for (int i = 0; i < kRounds; ++i) {
      data->once[i].call([&] { ++data->runs[i]; });
      if (data->runs[i] != 1) return 1;
    }
    return 0;
  };
  std::vector<Child> children;
  for (int i = 0; i < 3; ++i) children.push_back(Child::Fork(work));
  EXPECT_EQ(work(), 0);
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(OnceTest, WorksAtAnotherAddressInEachProcess) {
  Shared<Once> once;
  // The same page a second time.
  void* twin = mremap(once.get(), 0, 4096, MREMAP_MAYMOVE);
  ASSERT_NE(twin, MAP_FAILED);
  auto* alias = static_cast<Once*>(twin);
  EXPECT_EQ(Child::Fork([&] { alias->call([] {}); }).Wait(), Exited(0));
  EXPECT_TRUE(once->done());
  munmap(twin, 4096);
}

TEST(OnceTest, AllWhoWaitReturnAtItsEnd) {
  Shared<Arena> arena;
  Child runner = Runner(*arena);
  std::vector<Child> waiters;
  for (int i = 0; i < 5; ++i) waiters.push_back(Waiter(*arena));
  EXPECT_FALSE(arena->once.done());
  arena->gate.Open();
  EXPECT_EQ(runner.Wait(), Exited(0));
  for (Child& waiter : waiters) EXPECT_EQ(waiter.Wait(), Exited(0));
  EXPECT_EQ(arena->runs, 1);
}

TEST(OnceTest, AWaitEndsInTime) {
  Shared<Arena> arena;
  Child runner = Runner(*arena);
  auto fail = [] { ADD_FAILURE() << "there is a runner"; };
  EXPECT_FALSE(arena->once.try_call(fail));
  EXPECT_FALSE(arena->once.try_call_for(milliseconds(-1), fail));
  EXPECT_FALSE(arena->once.try_call_for(absl::Milliseconds(1), fail));
  const Deadline deadline = Deadline::After(milliseconds(30));
  EXPECT_FALSE(arena->once.try_call_until(deadline, fail));
  EXPECT_TRUE(deadline.Passed());
  arena->gate.Open();
  EXPECT_TRUE(arena->once.try_call_for(absl::InfiniteDuration(), fail));
  EXPECT_EQ(runner.Wait(), Exited(0));
  EXPECT_EQ(arena->runs, 1);
}

TEST(OnceTest, AnExceptionLeavesItToTheNextCaller) {
  Shared<Arena> arena;
  auto throws = [](bool) { throw std::runtime_error("no disk"); };
  EXPECT_THROW(arena->once.call(throws), std::runtime_error);
  EXPECT_FALSE(arena->once.done());
  EXPECT_THROW((void)arena->once.try_call(throws), std::runtime_error);
  bool told = false;
  arena->once.call([&](bool again) { told = again; });
  EXPECT_TRUE(told);
  EXPECT_TRUE(arena->once.done());
}

TEST(OnceTest, AnExceptionWakesTheNextCaller) {
  Shared<Arena> arena;
  Child runner = Child::Fork([&] {
    try {
      arena->once.call([&] {
        ++arena->begun;
        arena->gate.Pass();
        throw std::runtime_error("no disk");
      });
    } catch (const std::runtime_error&) {
      return 0;
    }
    return 1;
  });
  while (arena->begun == 0) sched_yield();
  Child first = Waiter(*arena);
  Child second = Waiter(*arena);
  arena->gate.Open();
  EXPECT_EQ(runner.Wait(), Exited(0));
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(arena->runs, 1);
  EXPECT_EQ(arena->again, 1);
}

TEST(OnceTest, OneInsideAnother) {
  struct Two {
    Once outer, inner;
    int value;
  };
  Shared<Two> two;
  two->outer.call([&] { two->inner.call([&] { two->value = 7; }); });
  EXPECT_TRUE(two->inner.done());
  EXPECT_EQ(two->value, 7);
}

// Death.

TEST(OnceCrashTest, TheNextCallerRunsItAnewAndIsTold) {
  Shared<Arena> arena;
  for (int i = 0; i < 3; ++i) {
    Child runner = Child::Fork([&] {
      arena->once.call([&](bool again) {
        arena->again = again;
        raise(SIGKILL);
      });
    });
    ASSERT_EQ(runner.Wait(), KilledBy(SIGKILL));
    EXPECT_FALSE(arena->once.done());
    EXPECT_EQ(arena->again, i > 0 ? 1 : 0);
  }
  bool told = false;
  EXPECT_TRUE(arena->once.try_call([&](bool again) { told = again; }));
  EXPECT_TRUE(told);
  arena->once.call([] { ADD_FAILURE() << "it is done"; });
}

TEST(OnceCrashTest, AWaiterTakesTheDeadRunnersPlace) {
  Shared<Arena> arena;
  Child runner = Runner(*arena);
  Child first = Waiter(*arena);
  Child second = Waiter(*arena);
  runner.Kill(SIGKILL);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
  EXPECT_EQ(arena->runs, 1);
  EXPECT_EQ(arena->again, 1);
}

TEST(OnceCrashTest, AnEndingThreadAndExecveCountAsDeath) {
  Shared<Arena> arena;
  Child thread = Child::Fork([&] {
    std::thread([&] {
      arena->once.call([&] { pthread_exit(nullptr); });
    }).join();
  });
  EXPECT_EQ(thread.Wait(), Exited(0));
  EXPECT_FALSE(arena->once.done());
  Child program = Child::Fork([&] {
    arena->once.call([&] { execl("/bin/true", "true", nullptr); });
    return 1;
  });
  EXPECT_EQ(program.Wait(), Exited(0));
  EXPECT_FALSE(arena->once.done());
  EXPECT_TRUE(arena->once.try_call([](bool again) { EXPECT_TRUE(again); }));
}

// A stopped runner is not a dead one.
TEST(OnceCrashTest, AStoppedRunnerKeepsItsPlace) {
  Shared<Arena> arena;
  Child runner = Runner(*arena);
  runner.Stop();
  arena->gate.Open();
  auto fail = [] { ADD_FAILURE() << "there is a runner"; };
  EXPECT_FALSE(arena->once.try_call_for(milliseconds(50), fail));
  runner.Continue();
  EXPECT_EQ(runner.Wait(), Exited(0));
  EXPECT_TRUE(arena->once.done());
}

TEST(OnceCrashTest, AChildForkedFromInsideIsNotTheRunner) {
  Shared<Arena> arena;
  arena->once.call([&] {
    Child child = Child::Fork([&] {
      return arena->once.try_call_for(milliseconds(1), [] {}) ? 1 : 0;
    });
    EXPECT_EQ(child.Wait(), Exited(0));
    EXPECT_FALSE(arena->once.done());
  });
  EXPECT_TRUE(arena->once.done());
}

// Misuse.

TEST(OnceDeathTest, ACallFromInsideIsFatal) {
  Shared<Once> once;
  auto call = [&] { once->call([&] { once->call([] {}); }); };
  auto try_call = [&] { once->call([&] { (void)once->try_call([] {}); }); };
  EXPECT_DEATH(call(), "Once: called from inside its own function");
  EXPECT_DEATH(try_call(), "Once: called from inside its own function");
}

TEST(OnceDeathTest, AForkedChildThatReturnsFromTheFunctionIsRefused) {
  Shared<Once> once;
  Child parent = Child::Fork([&] {
    pid_t pid = -1;
    once->call([&] {
      pid = fork();
      if (pid == 0) {
        fclose(stderr);
        return;
      }
      int status = 0;
      waitpid(pid, &status, 0);
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    });
    return pid > 0 ? 0 : 1;
  });
  EXPECT_EQ(parent.Wait(), Exited(0));
  EXPECT_TRUE(once->done());
}

}  // namespace
}  // namespace cohort
