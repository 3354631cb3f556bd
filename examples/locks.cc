// SPDX-License-Identifier: Apache-2.0
//
// What locks are for. Three processes count together, without a lock and with
// one; then they move money between two accounts, by functions that lock and
// call others that lock.

#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "cohort/os/or_die.h"
#include "cohort/process/init.h"
#include "cohort/process/process_group.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/latch.h"
#include "cohort/sync/mutex.h"
#include "cohort/sync/recursive_mutex.h"

namespace {

using cohort::OrDie;

constexpr int kWorkers = 3;
constexpr int kRounds = 10;

struct Counter {
  cohort::Latch start{kWorkers};
  cohort::Mutex mu;
  // Atomic, so that nothing but the sum can be wrong without the lock.
  std::atomic<int> value = 0;
};

void AddOne(Counter& counter) {
  const int seen = counter.value;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  counter.value = seen + 1;  // Undoes what others have added meanwhile.
}

void CountUnlocked(const cohort::Shared<Counter>& counter) {
  counter->start.arrive_and_wait();
  for (int i = 0; i < kRounds; ++i) AddOne(*counter);
}

void CountLocked(const cohort::Shared<Counter>& counter) {
  counter->start.arrive_and_wait();
  for (int i = 0; i < kRounds; ++i) {
    cohort::MutexLock lock(counter->mu);
    AddOne(*counter);
  }
}

int Counted(void (*count)(const cohort::Shared<Counter>&)) {
  auto counter = OrDie(cohort::Shared<Counter>::Create());
  cohort::ProcessGroup workers;
  for (int i = 0; i < kWorkers; ++i) workers.Start(count, counter);
  OrDie(workers.Join());
  return counter->value;
}

struct Bank {
  cohort::RecursiveMutex mu;
  int mine ABSL_GUARDED_BY(mu) = 50;
  int yours ABSL_GUARDED_BY(mu) = 50;
};

void ChangeMine(Bank& bank, int by) {
  cohort::RecursiveMutexLock lock(bank.mu);
  bank.mine += by;
}

void ChangeYours(Bank& bank, int by) {
  cohort::RecursiveMutexLock lock(bank.mu);
  bank.yours += by;
}

// Nobody sees the money that has left one account and not reached the other.
void Pay(Bank& bank, int amount) {
  cohort::RecursiveMutexLock lock(bank.mu);
  ChangeMine(bank, -amount);
  ChangeYours(bank, amount);
}

int Sum(Bank& bank) {
  cohort::RecursiveMutexLock lock(bank.mu);
  return bank.mine + bank.yours;
}

// Returns the exit code.
int PayToAndFro(const cohort::Shared<Bank>& bank) {
  for (int i = 0; i < 1000; ++i) {
    Pay(*bank, 30);
    if (Sum(*bank) != 100) return 1;
    Pay(*bank, -30);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  constexpr int kAll = kWorkers * kRounds;
  std::cout << "without a lock " << Counted(CountUnlocked) << " of " << kAll
            << "\nwith a lock " << Counted(CountLocked) << " of " << kAll
            << '\n';

  auto bank = OrDie(cohort::Shared<Bank>::Create());
  cohort::ProcessGroup payers;
  for (int i = 0; i < kWorkers; ++i) payers.Start(PayToAndFro, bank);
  OrDie(payers.Join());
  std::cout << "the bank has " << Sum(*bank) << ", as ever\n";
}
