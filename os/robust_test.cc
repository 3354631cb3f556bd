// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/robust.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "cohort/os/cpu.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

// The thread sanitizer asks for its options: taking the same locks in any order
// is what a test here is about.
extern "C" const char* __tsan_default_options() { return "detect_deadlocks=0"; }

namespace cohort::os {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::KilledBy;
using cohort_testing::Shared;

// A lock reduced to what the kernel knows of it; never contended here.
struct Lock {
  std::atomic<uint32_t> word;
  uint32_t unused[5];
  RobustNode node;

  void Take() {
    RobustThread& self = RobustThread::Self();
    self.Pend(word);
    word = self.tid();
    self.Push(node);
    self.Unpend();
  }
  bool Free() {
    RobustThread& self = RobustThread::Self();
    self.Pend(word);
    const bool unlinked = self.Unlink(node);
    if (unlinked) word = 0;
    self.Unpend();
    return unlinked;
  }
};
static_assert(sizeof(Lock) == 40);

// The words that the kernel would find if this thread died now.
std::vector<const void*> WordsOnTheList() {
  robust_list_head* head = nullptr;
  size_t size = 0;
  EXPECT_EQ(syscall(SYS_get_robust_list, 0, &head, &size), 0);
  std::vector<const void*> words;
  const uintptr_t end = reinterpret_cast<uintptr_t>(&head->list);
  for (uintptr_t at = reinterpret_cast<uintptr_t>(head->list.next); at != end;
       at = reinterpret_cast<uintptr_t>(
           reinterpret_cast<robust_list*>(at & ~uintptr_t{1})->next)) {
    words.push_back(
        reinterpret_cast<const void*>((at & ~uintptr_t{1}) - kRobustDistance));
    if (words.size() > 4096) {
      ADD_FAILURE() << "the list has a loop";
      break;
    }
  }
  return words;
}

// Those among them that hold this thread's id, which fences never do.
std::multiset<const void*> OwnedWords() {
  std::multiset<const void*> owned;
  const auto tid = static_cast<uint32_t>(syscall(SYS_gettid));
  for (const void* at : WordsOnTheList()) {
    uint32_t word;
    std::memcpy(&word, at, sizeof word);
    if ((word & FUTEX_TID_MASK) == tid) owned.insert(at);
  }
  return owned;
}

pthread_mutex_t MakeRobust(int protocol) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setprotocol(&attributes, protocol);
  pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  return mutex;
}

TEST(RobustTest, BindsEachThreadOnce) {
  RobustThread& self = RobustThread::Self();
  EXPECT_EQ(&RobustThread::Self(), &self);
  EXPECT_EQ(self.tid(), static_cast<uint32_t>(syscall(SYS_gettid)));
  std::thread([&] {
    EXPECT_NE(&RobustThread::Self(), &self);
    EXPECT_EQ(RobustThread::Self().tid(),
              static_cast<uint32_t>(syscall(SYS_gettid)));
  }).join();
}

TEST(RobustTest, SpinsWhereRivalsCanRun) {
  std::thread([] {
    RobustThread& self = RobustThread::Self();
    EXPECT_EQ(self.may_spin(), RivalsCanRun());
    self.RefreshCpus();
    EXPECT_EQ(self.may_spin(), RivalsCanRun());
  }).join();
}

TEST(RobustTest, APendingWordOfADeadHolderIsMarked) {
  Shared<Lock> lock;
  Child child = Child::Fork([&] {
    RobustThread& self = RobustThread::Self();
    self.Pend(lock->word);
    lock->word = self.tid() | FUTEX_WAITERS;
    return raise(SIGKILL);
  });
  ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(lock->word, uint32_t{FUTEX_OWNER_DIED | FUTEX_WAITERS});
}

TEST(RobustTest, WithoutCoverADeadHolderStays) {
  Shared<Lock> lock;
  Child child = Child::Fork([&] {
    RobustThread& self = RobustThread::Self();
    self.Pend(lock->word);
    lock->word = self.tid();
    self.Unpend();
    return raise(SIGKILL);
  });
  const auto dead = static_cast<uint32_t>(child.pid());
  ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(lock->word, dead);
}

TEST(RobustTest, APendingFreeWordWakesASleeper) {
  Shared<Lock> lock;
  Child sleeper = Child::Fork([&] {
    return FutexWait(lock->word, 0, Deadline::Infinite()) == FutexEnd::kWoken
               ? 0
               : 1;
  });
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  Child victim = Child::Fork([&] {
    RobustThread::Self().Pend(lock->word);
    return raise(SIGKILL);
  });
  ASSERT_EQ(victim.Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(sleeper.Wait(), Exited(0));
}

TEST(RobustTest, EveryPushedWordOfADeadHolderIsMarked) {
  Shared<std::array<Lock, RobustThread::kMaxHeld>> locks;
  Child child = Child::Fork([&] {
    for (Lock& lock : *locks) lock.Take();
    return raise(SIGKILL);
  });
  ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
  for (Lock& lock : *locks) ASSERT_EQ(lock.word, uint32_t{FUTEX_OWNER_DIED});
}

TEST(RobustTest, AnEndingThreadsWordsAreMarked) {
  Shared<std::array<Lock, 3>> locks;
  pthread_mutex_t theirs = MakeRobust(PTHREAD_PRIO_NONE);
  std::thread([&] {
    for (Lock& lock : *locks) lock.Take();
    // The way from the last to the first leads over a private entry now.
    ASSERT_TRUE((*locks)[2].Free());
    ASSERT_EQ(pthread_mutex_lock(&theirs), 0);
    (*locks)[2].Take();
    ASSERT_TRUE((*locks)[1].Free());
  }).join();
  // join() returns when the kernel has cleared the thread's id; the list comes
  // before that.
  EXPECT_EQ((*locks)[0].word, uint32_t{FUTEX_OWNER_DIED});
  EXPECT_EQ((*locks)[1].word, 0u);
  EXPECT_EQ((*locks)[2].word, uint32_t{FUTEX_OWNER_DIED});
}

TEST(RobustTest, ExecveMarks) {
  Shared<Lock> lock;
  Child child = Child::Fork([&] {
    lock->Take();
    execl("/bin/true", "true", nullptr);
    return 1;
  });
  ASSERT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(lock->word, uint32_t{FUTEX_OWNER_DIED});
}

TEST(RobustTest, ADestructorOfTheThreadMayStillTakeALock) {
  Shared<Lock> lock;
  static pthread_key_t key;
  // Made after the key of robust.cc, so that it comes later in each round.
  (void)RobustThread::Self();
  ASSERT_EQ(pthread_key_create(&key,
                               [](void* of) {
                                 static_cast<Lock*>(of)->Take();
                                 if (!static_cast<Lock*>(of)->Free()) abort();
                                 static_cast<Lock*>(of)->unused[0] = 1;
                               }),
            0);
  std::thread([&] {
    (void)RobustThread::Self();
    pthread_setspecific(key, lock.get());
  }).join();
  EXPECT_EQ(lock->unused[0], 1u);
  EXPECT_EQ(lock->word, 0u);
  pthread_key_delete(key);
}

TEST(RobustTest, ForkedChildrenHoldNothing) {
  Shared<Lock> held;
  Shared<Lock> other;
  held->Take();
  auto body = [&] {
    RobustThread& self = RobustThread::Self();
    if (self.held() != 0 || self.Holds(held->node)) return 1;
    if (self.tid() != static_cast<uint32_t>(syscall(SYS_gettid))) return 2;
    if (held->Free()) return 3;
    other->Take();
    return raise(SIGKILL);
  };
  ASSERT_EQ(Child::Fork(body).Wait(), KilledBy(SIGKILL));
  EXPECT_EQ(other->word, uint32_t{FUTEX_OWNER_DIED});
  other->word = 0;

  // _Fork(3) runs no pthread_atfork() handlers.
  const pid_t pid = _Fork();
  if (pid == 0) _exit(body());
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(other->word, uint32_t{FUTEX_OWNER_DIED});

  EXPECT_EQ(held->word, RobustThread::Self().tid());
  EXPECT_TRUE(held->Free());
}

TEST(RobustDeathTest, AChildOfARawCloneIsRefused) {
  (void)RobustThread::Self();
  auto clone_and_bind = [] {
    const auto pid =
        static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (pid == 0) {
      (void)RobustThread::Self();
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) raise(WTERMSIG(status));
  };
  EXPECT_EXIT(clone_and_bind(), testing::KilledBySignal(SIGABRT),
              "has no robust list");
}

TEST(RobustDeathTest, AnotherLayoutIsRefused) {
  auto bind = [] {
    std::thread([] {
      static robust_list_head head = {{&head.list}, 8, nullptr};
      syscall(SYS_set_robust_list, &head, sizeof head);
      (void)RobustThread::Self();
    }).join();
  };
  EXPECT_DEATH(bind(), "another layout");
}

TEST(RobustDeathTest, OneLockTooMany) {
  std::vector<Lock> locks(RobustThread::kMaxHeld + 1);
  auto take_all = [&] {
    for (Lock& lock : locks) lock.Take();
  };
  EXPECT_DEATH(take_all(), "holds 1024 mutexes and locks another");
}

TEST(RobustTest, UnlinksOnlyWhatIsPushed) {
  Lock lock = {};
  EXPECT_FALSE(RobustThread::Self().Unlink(lock.node));
  lock.Take();
  EXPECT_TRUE(RobustThread::Self().Holds(lock.node));
  EXPECT_TRUE(lock.Free());
  EXPECT_FALSE(RobustThread::Self().Holds(lock.node));
  EXPECT_FALSE(lock.Free());
}

// Ours and libc's come and go in any order; after each step the kernel's view
// must be exactly what is held.
TEST(RobustTest, MixesWithRobustMutexesOfLibc) {
  constexpr int kOurs = 12;
  constexpr int kTheirs = 12;
  Shared<std::array<Lock, kOurs>> ours;
  std::vector<pthread_mutex_t> theirs;
  for (int i = 0; i < kTheirs; ++i) {
    theirs.push_back(
        MakeRobust(i % 3 == 0 ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE));
  }
  std::multiset<const void*> held;
  std::minstd_rand random(42);
  auto step = [&] {
    const size_t i = random() % (kOurs + kTheirs);
    if (i < kOurs) {
      Lock& lock = (*ours)[i];
      if (held.count(&lock.word) == 0) {
        lock.Take();
        held.insert(&lock.word);
      } else {
        ASSERT_TRUE(lock.Free());
        held.erase(&lock.word);
      }
    } else {
      pthread_mutex_t& mutex = theirs[i - kOurs];
      if (held.count(&mutex) == 0) {
        ASSERT_EQ(pthread_mutex_lock(&mutex), 0);
        held.insert(&mutex);
      } else {
        ASSERT_EQ(pthread_mutex_unlock(&mutex), 0);
        held.erase(&mutex);
      }
    }
  };
  for (int i = 0; i < 30'000; ++i) {
    ASSERT_NO_FATAL_FAILURE(step());
    ASSERT_EQ(OwnedWords(), held) << "after step " << i;
    ASSERT_LE(WordsOnTheList().size(), kTheirs + 2 * size_t{kOurs});
  }
  for (Lock& lock : *ours) {
    if (held.count(&lock.word) != 0) {
      EXPECT_TRUE(lock.Free());
    }
  }
  for (pthread_mutex_t& mutex : theirs) {
    if (held.count(&mutex) != 0) {
      EXPECT_EQ(pthread_mutex_unlock(&mutex), 0);
    }
  }
  EXPECT_TRUE(WordsOnTheList().empty());
  EXPECT_EQ(RobustThread::Self().held(), 0);
}

// And at death the kernel finds all of ours, whatever stands between them.
TEST(RobustTest, AMixedListIsMarkedToItsEnd) {
  constexpr int kOurs = 8;
  Shared<std::array<Lock, kOurs>> ours;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    Shared<std::array<bool, kOurs>> held;
    for (Lock& lock : *ours) lock.word = 0;
    Child child = Child::Fork([&] {
      std::vector<pthread_mutex_t> theirs(kOurs, MakeRobust(PTHREAD_PRIO_NONE));
      std::vector<bool> locked(kOurs);
      std::minstd_rand random(seed);
      for (int step = 0; step < 60; ++step) {
        const size_t i = random() / 7 % kOurs;
        if (random() / 11 % 2 == 0) {
          if ((*held)[i]) {
            if (!(*ours)[i].Free()) return 1;
          } else {
            (*ours)[i].Take();
          }
          (*held)[i] = !(*held)[i];
        } else {
          if (locked[i]) {
            pthread_mutex_unlock(&theirs[i]);
          } else {
            pthread_mutex_lock(&theirs[i]);
          }
          locked[i] = !locked[i];
        }
      }
      return raise(SIGKILL);
    });
    ASSERT_EQ(child.Wait(), KilledBy(SIGKILL));
    for (int i = 0; i < kOurs; ++i) {
      ASSERT_EQ((*ours)[i].word, (*held)[i] ? FUTEX_OWNER_DIED : 0u)
          << "lock " << i << ", seed " << seed;
    }
  }
}

// Links in shared memory are the kernel's alone: whatever a peer writes there,
// this thread neither follows nor spreads it.
TEST(RobustTest, IgnoresLinksThatAPeerHasWritten) {
  Shared<std::array<Lock, 4>> locks;
  pthread_mutex_t theirs = MakeRobust(PTHREAD_PRIO_NONE);
  Lock target = {};
  auto& [bottom, low, high, top] = *locks;
  bottom.Take();
  low.Take();
  ASSERT_EQ(pthread_mutex_lock(&theirs), 0);
  high.Take();
  top.Take();
  for (Lock& lock : *locks) {
    lock.node.prev = &target.node.next;
    lock.node.next.next = &target.node.next;
  }
  EXPECT_TRUE(low.Free());
  EXPECT_TRUE(high.Free());
  EXPECT_EQ(pthread_mutex_unlock(&theirs), 0);
  EXPECT_TRUE(top.Free());
  EXPECT_TRUE(bottom.Free());
  EXPECT_TRUE(WordsOnTheList().empty());
  EXPECT_EQ(target.node.prev, nullptr);
  EXPECT_EQ(target.node.next.next, nullptr);
}

}  // namespace
}  // namespace cohort::os
