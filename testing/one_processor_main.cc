// SPDX-License-Identifier: Apache-2.0
//
// main() for crash tests of what spins before it sleeps: GoogleTest's, after
// the program has started itself again bound to one processor, where nothing
// spins. A spinning waiter executes thousands of instructions, all alike, and
// the kill stepper would kill it at each.

#include <sched.h>
#include <unistd.h>

#include <cstdio>

#include "gtest/gtest.h"

int main(int argc, char** argv) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||
      CPU_COUNT(&allowed) > 1) {
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    if (sched_setaffinity(0, sizeof here, &here) == 0) {
      execv("/proc/self/exe", argv);
    }
    std::perror("crash test: cannot start again on one processor");
    return 1;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
