// SPDX-License-Identifier: Apache-2.0
//
// The lines that show processes to a newcomer, as a program: no test framework
// between them and the library. It ends with 0 iff all jobs were done.

#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/queue.h"
#include "cohort/os/or_die.h"
#include "cohort/process/init.h"
#include "cohort/process/process.h"
#include "cohort/process/process_group.h"

struct Job {
  int id = 0;
  std::string path;
  template <class A>
  void serialize(A& a) {
    a(id, path);
  }
};

absl::Status Work(cohort::Queue<Job> jobs, std::string who) {
  for (absl::StatusOr<Job> job : jobs.Items()) {
    if (!job.ok()) return job.status();
    std::cout << who << job->path;
  }
  return absl::OkStatus();
}

int Count(cohort::Queue<Job> jobs) {
  int count = 0;
  while (jobs.TryGet().ok()) ++count;
  return count;
}

int main(int argc, char** argv) {
  using cohort::OrDie;
  cohort::Init(argc, argv);

  cohort::Queue<Job> jobs =
      OrDie(cohort::Queue<Job>::Create({.max_items = 1024}));
  cohort::Process child = OrDie(cohort::Process::Start(
      {.start_method = cohort::StartMethod::kSpawn, .name = "ingest"}, Work,
      jobs, "w"));
  if (!absl::IsDeadlineExceeded(child.Join(absl::Milliseconds(1)).status())) {
    return 1;  // It waits for jobs.
  }
  cohort::ProcessGroup group;
  for (int i = 0; i < 3; ++i) {
    group.Start({.name = "w" + std::to_string(i)}, Work, jobs, "w");
  }
  OrDie(jobs.Put({.id = 1, .path = "/a"}, absl::Milliseconds(10)));
  for (int i = 0; i < 100; ++i) OrDie(jobs.Put({.id = i, .path = "/b"}));
  jobs.Close();
  OrDie(group.Join());
  absl::StatusOr<cohort::ExitStatus> end = child.Join();
  OrDie(end.status());
  OrDie(end->ToStatus());
  if (!absl::IsOutOfRange(jobs.TryGet().status())) return 2;

  // What one process puts, another takes, whichever way it was started.
  for (cohort::StartMethod method :
       {cohort::StartMethod::kSpawn, cohort::StartMethod::kFork}) {
    cohort::Queue<Job> more = OrDie(cohort::Queue<Job>::Create());
    for (int i = 0; i < 7; ++i) OrDie(more.Put({.id = i, .path = "/c"}));
    cohort::Process counter =
        OrDie(cohort::Process::Start({.start_method = method}, Count, more));
    if (OrDie(counter.Join()).code != 7) return 3;
  }
  return 0;
}
