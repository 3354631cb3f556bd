// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/limits/task_rings.h"

#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/lamport_ring.h"
#include "cohort/os/cpu.h"

namespace cohort_benchmarks {
namespace {

struct Task {
  int id = 0;
  int function = 0;
  int argument = 0;
  int result = 0;
};

}  // namespace

absl::StatusOr<double> TaskRingsPerSecond(int (*function)(int), int tasks,
                                          int in_flight) {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  using Ring = LamportRing<Task, 1024>;
  SharedObject<Ring> to_worker;
  SharedObject<Ring> to_caller;
  int (*const functions[])(int) = {function};
  const int warm = tasks / 20;
  Companion worker([&] {
    PinTo(kSecondCpu);
    Task task;
    for (int i = 0; i < warm + tasks; ++i) {
      to_worker->Pop(task);
      task.result = functions[task.function](task.argument);
      to_caller->Push(task);
    }
  });
  PinTo(kFirstCpu);
  int64_t begin = 0;
  bool in_order = true;
  int64_t sum = 0;
  for (int sent = 0, received = 0; received < warm + tasks;) {
    if (sent == warm) begin = Now();
    while (sent < warm + tasks && sent - received < in_flight) {
      to_worker->Push({.id = sent, .argument = sent});
      if (++sent == warm) break;
    }
    Task task;
    while (received < sent && to_caller->TryPop(task)) {
      in_order = in_order && task.id == received++;
      sum += task.result;
    }
  }
  const int64_t took = Now() - begin;
  if (absl::Status s = worker.Join(); !s.ok()) return s;
  for (int i = 0; i < warm + tasks; ++i) sum -= function(i);
  if (!in_order || sum != 0) return absl::DataLossError("wrong result");
  return tasks * 1e9 / static_cast<double>(took);
}

}  // namespace cohort_benchmarks
