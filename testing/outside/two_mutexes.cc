// SPDX-License-Identifier: Apache-2.0
//
// Uses both headers called sync/mutex.h: its own and Cohort's. Two processes
// take turns in memory that this program maps itself.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <new>

#include "cohort/sync/mutex.h"
#include "sync/mutex.h"

namespace {

constexpr int kRounds = 10'000;

struct Gate {
  cohort::Mutex mu;
  outside::Turnstile turnstile;
};

void Pass(Gate* gate) {
  for (int i = 0; i < kRounds; ++i) {
    cohort::MutexLock lock(gate->mu);
    ++gate->turnstile.passed;
  }
}

}  // namespace

int main() {
  void* memory = mmap(nullptr, sizeof(Gate), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  Gate* gate = new (memory) Gate;
  const pid_t child = fork();
  if (child < 0) return 1;
  Pass(gate);
  if (child == 0) _exit(0);
  if (waitpid(child, nullptr, 0) != child) return 1;
  std::printf("%d passed\n", gate->turnstile.passed);
  return gate->turnstile.passed == 2 * kRounds ? 0 : 1;
}
