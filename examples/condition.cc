// SPDX-License-Identifier: Apache-2.0
//
// Producers and consumers around a shelf that has room for four: who finds it
// full, or empty, sleeps until another process has changed that. What Queue<T>
// (ipc/queue.h) does ready-made, and proof against kills.

#include <iostream>

#include "absl/base/thread_annotations.h"
#include "cohort/os/or_die.h"
#include "cohort/process/init.h"
#include "cohort/process/process_group.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/condition_variable.h"
#include "cohort/sync/mutex.h"

namespace {

using cohort::OrDie;

constexpr int kRoom = 4;
constexpr int kLast = 100;

struct Shelf {
  cohort::Mutex mu;
  cohort::ConditionVariable not_full;
  cohort::ConditionVariable not_empty;
  int items[kRoom] ABSL_GUARDED_BY(mu) = {};
  int count ABSL_GUARDED_BY(mu) = 0;
  bool closed ABSL_GUARDED_BY(mu) = false;
  int most ABSL_GUARDED_BY(mu) = 0;      // Ever on it at a time.
  int consumed ABSL_GUARDED_BY(mu) = 0;  // By all consumers, ...
  int sum ABSL_GUARDED_BY(mu) = 0;       // ...and what it adds up to.
};

void Produce(const cohort::Shared<Shelf>& handle) {
  Shelf& shelf = *handle;
  for (int i = 1; i <= kLast; ++i) {
    cohort::MutexLock lock(shelf.mu);
    while (shelf.count == kRoom) shelf.not_full.wait(lock);
    shelf.items[shelf.count++] = i;
    if (shelf.count > shelf.most) shelf.most = shelf.count;
    shelf.not_empty.notify_one();
  }
}

void Consume(const cohort::Shared<Shelf>& handle) {
  Shelf& shelf = *handle;
  for (;;) {
    cohort::MutexLock lock(shelf.mu);
    while (shelf.count == 0 && !shelf.closed) shelf.not_empty.wait(lock);
    if (shelf.count == 0) return;
    shelf.sum += shelf.items[--shelf.count];
    ++shelf.consumed;
    shelf.not_full.notify_one();
  }
}

}  // namespace

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  auto shelf = OrDie(cohort::Shared<Shelf>::Create());
  cohort::ProcessGroup producers;
  cohort::ProcessGroup consumers;
  for (int i = 0; i < 2; ++i) {
    producers.Start(Produce, shelf);
    consumers.Start(Consume, shelf);
  }
  OrDie(producers.Join());
  {
    cohort::MutexLock lock(shelf->mu);
    shelf->closed = true;
    shelf->not_empty.notify_all();
  }
  OrDie(consumers.Join());

  cohort::MutexLock lock(shelf->mu);
  std::cout << "consumed " << shelf->consumed << " items, sum " << shelf->sum
            << "\nat most " << shelf->most << " at a time\n";
}
