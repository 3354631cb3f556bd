// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/chaos.h"

#include <csignal>
#include <vector>

namespace cohort_examples {

Chaos::Chaos(const cohort::ProcessPool& pool, absl::Duration rhythm)
    : pool_(pool), rhythm_(rhythm), random_(std::random_device()()) {
  KillOne();
  thread_ = std::thread(&Chaos::Run, this);
}

void Chaos::Stop() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Chaos::KillOne() {
  const std::vector<int> pids = pool_.WorkerPids();
  if (pids.empty()) return;  // All of them are being replaced.
  if (kill(pids[random_() % pids.size()], SIGKILL) == 0) ++killed_;
}

void Chaos::Run() {
  std::unique_lock lock(mu_);
  while (!stopped_.wait_for(lock, absl::ToChronoNanoseconds(rhythm_),
                            [this] { return stop_; })) {
    KillOne();
  }
}

}  // namespace cohort_examples
