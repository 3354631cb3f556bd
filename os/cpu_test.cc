// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/cpu.h"

#include <sched.h>

#include <cerrno>
#include <thread>

#include "gtest/gtest.h"

namespace cohort::os {
namespace {

TEST(CpuTest, CountsTheCallingThreadsOwnMask) {
  const int before = UsableCpus();
  EXPECT_GE(before, 1);
  std::thread([] {
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
    EXPECT_EQ(UsableCpus(), 1);
  }).join();
  EXPECT_EQ(UsableCpus(), before);
}

TEST(CpuTest, AThreadBoundToOneStillHasRivals) {
  const bool before = RivalsCanRun();
  EXPECT_EQ(before, UsableCpus() > 1);
  std::thread([&] {
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
    EXPECT_EQ(RivalsCanRun(), before);
  }).join();
}

TEST(CpuTest, KeepsErrno) {
  errno = 4711;
  (void)UsableCpus();
  (void)RivalsCanRun();
  EXPECT_EQ(errno, 4711);
  CpuRelax();
}

}  // namespace
}  // namespace cohort::os
