// SPDX-License-Identifier: Apache-2.0
//
// Numbers that several processes change together: one value, and a row of them.
// Then one of the processes is killed in the middle of a change.

#include <csignal>
#include <iostream>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cohort/ipc/shared_array.h"
#include "cohort/ipc/shared_value.h"
#include "cohort/os/or_die.h"
#include "cohort/process/init.h"
#include "cohort/process/process.h"
#include "cohort/process/process_group.h"

namespace {

using cohort::OrDie;
using cohort::SharedArray;
using cohort::SharedValue;

// Counts itself in and adds its number to every element.
absl::Status Add(SharedArray<int> row, SharedValue<int> workers, int number) {
  absl::Status counted = workers.With([](int& count) { ++count; });
  if (!counted.ok()) return counted;
  return row.With([&](absl::Span<int> all) {
    for (int& element : all) element += number;
  });
}

void Print(SharedArray<int> row) {
  std::cout << "array:";
  for (const int element : OrDie(row.Load())) std::cout << ' ' << element;
  std::cout << '\n';
}

// Both sides change together, or it is no balance.
struct Balance {
  int left = 50;
  int right = 50;
};

// A thief who does not get far.
void TakeAndDie(SharedValue<Balance> balance) {
  (void)balance.With([](Balance& b) {
    b.left -= 30;
    raise(SIGKILL);
  });
}

}  // namespace

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  auto row = OrDie(SharedArray<int>::Create({0, 0, 0, 0, 0}));
  auto workers = OrDie(SharedValue<int>::Create(0));
  Print(row);
  cohort::ProcessGroup group;
  for (int number = 1; number <= 3; ++number) {
    group.Start(Add, row, workers, number);
  }
  OrDie(group.Join());
  Print(row);
  std::cout << "workers: " << OrDie(workers.Load()) << '\n';

  // A number that is changed by itself needs no lock.
  workers.atomic().fetch_sub(1);

  auto balance = OrDie(SharedValue<Balance>::Create());
  auto thief = OrDie(cohort::Process::Start(TakeAndDie, balance));
  (void)thief.Join();
  // Nobody is given half a change; the next one is told, and puts it right.
  if (absl::IsDataLoss(balance.Load().status())) {
    std::cout << "the balance is in doubt\n";
  }
  const int sum =
      OrDie(balance.With([](Balance& b) { return b.left + b.right; },
                         [](Balance& b) { b.left = 100 - b.right; }));
  std::cout << "repaired: " << sum << '\n';
}
