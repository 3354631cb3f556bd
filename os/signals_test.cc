// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/signals.h"

#include <csignal>
#include <thread>

#include "gtest/gtest.h"

namespace cohort::os {
namespace {

TEST(SignalNameTest, NamesWhatHasAName) {
  EXPECT_EQ(SignalName(SIGKILL), "SIGKILL");
  EXPECT_EQ(SignalName(SIGSEGV), "SIGSEGV");
  EXPECT_EQ(SignalName(0), "signal 0");
  EXPECT_EQ(SignalName(1'000), "signal 1000");
}

bool Blocks(int signal) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, signal) == 1;
}

TEST(BlockedSignalsTest, HoldsForTheThreadsThatAreStartedMeanwhile) {
  bool there = false;
  std::thread thread;
  {
    const BlockedSignals blocked;
    EXPECT_TRUE(Blocks(SIGUSR1));
    thread = std::thread([&] { there = Blocks(SIGUSR1); });
  }
  EXPECT_FALSE(Blocks(SIGUSR1));
  thread.join();
  EXPECT_TRUE(there);
}

}  // namespace
}  // namespace cohort::os
