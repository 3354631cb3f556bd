// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/membarrier.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <thread>

#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Shared;

// As a sandbox that does not know the call.
bool RefuseMembarrier() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter = {.len = 4, .filter = program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// The hand-shake of the header: at most one of the two sides misses what the
// other has stored.
void ShakeHands(bool refused) {
  struct Arena {
    alignas(64) std::atomic<int> frequent;
    alignas(64) std::atomic<int> rare;
    alignas(64) std::atomic<int> round;
    std::atomic<int> missed;
    alignas(64) std::atomic<int> done;
  };
  const int rounds = refused ? 100 : 5'000;
  Shared<Arena> arena;
  Child child = Child::Fork([&] {
    if (!JoinBarriers()) return 1;
    arena->done = 1;
    for (int i = 1; i <= rounds; ++i) {
      for (int looks = 0; arena->round != i; ++looks) {
        if (looks > 1000) std::this_thread::yield();
      }
      arena->frequent.store(i, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      const bool missed = arena->rare.load(std::memory_order_relaxed) != i;
      arena->missed = missed ? 1 : 0;
      arena->done = i + 1;
    }
    return 0;
  });
  Child rare = Child::Fork([&] {
    if (refused && !RefuseMembarrier()) return 1;
    while (arena->done != 1) std::this_thread::yield();
    for (int i = 1; i <= rounds; ++i) {
      arena->round = i;
      for (int pause = i % 64; pause > 0; --pause) (void)arena->done.load();
      arena->rare.store(i, std::memory_order_relaxed);
      BarrierForAll();
      const bool missed = arena->frequent.load(std::memory_order_relaxed) != i;
      while (arena->done != i + 1) std::this_thread::yield();
      if (missed && arena->missed == 1) return 2;
    }
    return 0;
  });
  EXPECT_EQ(rare.Wait(), Exited(0));
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(MembarrierTest, OneOfTwoSeesTheOther) { ShakeHands(/*refused=*/false); }

TEST(MembarrierTest, AlsoWhereTheCallIsRefused) {
  ShakeHands(/*refused=*/true);
}

TEST(MembarrierTest, WhereTheCallIsRefusedNobodyJoins) {
  Child child = Child::Fork([] {
    if (!RefuseMembarrier()) return 1;
    errno = 77;
    if (JoinBarriers()) return 2;
    BarrierForAll();
    return errno == 77 ? 0 : 3;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(MembarrierTest, MayBeJoinedTwice) {
  EXPECT_EQ(JoinBarriers(), JoinBarriers());
}

}  // namespace
}  // namespace cohort::os
