// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/stress.h"

#include <signal.h>
#include <stdlib.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "cohort/os/deadline.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"

namespace cohort_testing {
namespace {

struct Control {
  std::atomic<bool> stop;
};

uint64_t ChooseSeed(uint64_t asked) {
  if (asked != 0) return asked;
  const char* const text = getenv("COHORT_STRESS_SEED");
  if (text != nullptr && *text != '\0') return strtoull(text, nullptr, 0);
  return static_cast<uint64_t>(cohort::os::NowNanoseconds());
}

}  // namespace

std::chrono::milliseconds StressSeconds() {
  const char* const text = getenv("COHORT_STRESS_SECONDS");
  char* end = nullptr;
  const double seconds = text == nullptr ? -1 : strtod(text, &end);
  if (text == nullptr || end == text || *end != '\0' || seconds < 0) {
    return std::chrono::seconds(2);
  }
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

bool Worker::Stopping() const {
  return static_cast<const Control*>(control_)->stop.load(
      std::memory_order_relaxed);
}

std::ostream& operator<<(std::ostream& out, const ChaosReport& report) {
  out << report.kills << " kills, " << report.failures << " failures, seed "
      << report.seed;
  for (const std::string& message : report.messages) out << "\n  " << message;
  return out;
}

class Chaos final {
 public:
  Chaos(const std::vector<std::function<void(const Worker&)>>& bodies,
        const ChaosOptions& options)
      : bodies_(bodies),
        options_(options),
        incarnations_(bodies.size(), 0),
        failed_(bodies.size(), false) {
    report_.seed = ChooseSeed(options.seed);
    random_.seed(report_.seed);
  }

  ChaosReport Run() {
    std::cout << "[stress] seed=" << report_.seed << std::endl;
    for (size_t i = 0; i < bodies_.size(); ++i) workers_.push_back(Start(i));
    const cohort::Deadline end = cohort::Deadline::After(options_.duration);
    std::uniform_int_distribution<int64_t> pause(0,
                                                 2 * options_.rhythm.count());
    std::uniform_int_distribution<size_t> choice(0, bodies_.size() - 1);
    while (!bodies_.empty() && !end.Passed() &&
           report_.failures < options_.max_failures) {
      std::this_thread::sleep_for(std::chrono::microseconds(pause(random_)));
      Strike(choice(random_));
    }
    for (size_t i = 0; i < workers_.size(); ++i) {
      failed_[i] = !workers_[i].Running();
      if (failed_[i]) Complain(i, workers_[i].Wait());
    }
    control_->stop = true;
    const cohort::Deadline patience =
        cohort::Deadline::After(options_.patience);
    for (size_t i = 0; i < workers_.size(); ++i) {
      const std::optional<End> end_of_worker = workers_[i].WaitFor(patience);
      if (!end_of_worker.has_value()) {
        Fail(i, "does not return after the end");
      } else if (*end_of_worker != Exited(0) && !failed_[i]) {
        Complain(i, *end_of_worker);
      }
    }
    std::cout << "[stress] kills=" << report_.kills
              << " failures=" << report_.failures << " seed=" << report_.seed
              << std::endl;
    return report_;
  }

 private:
  Child Start(size_t index) {
    return Child::Fork([&] {
      bodies_[index](Worker(static_cast<int>(index), incarnations_[index],
                            control_.get()));
    });
  }

  // Kills one worker, or stops it for a moment.
  void Strike(size_t index) {
    Child& worker = workers_[index];
    if (!worker.Running()) {
      Complain(index, worker.Wait());
    } else if (options_.signal == SIGSTOP) {
      worker.Stop();
      std::this_thread::sleep_for(options_.rhythm);
      worker.Continue();
      ++report_.kills;
      return;
    } else {
      worker.Kill(options_.signal);
      const End end = worker.Wait();
      ++report_.kills;
      if (end != KilledBy(options_.signal)) Complain(index, end);
    }
    ++incarnations_[index];
    worker = Start(index);
  }

  void Complain(size_t index, const End& end) {
    std::ostringstream what;
    what << (control_->stop ? "" : "before time was over: ") << end;
    Fail(index, what.str());
  }

  void Fail(size_t index, const std::string& what) {
    ++report_.failures;
    if (report_.messages.size() < 20) {
      report_.messages.push_back(
          "worker " + std::to_string(index) + ", incarnation " +
          std::to_string(incarnations_[index]) + ": " + what);
    }
  }

  const std::vector<std::function<void(const Worker&)>>& bodies_;
  const ChaosOptions& options_;
  Shared<Control> control_;
  std::vector<Child> workers_;
  std::vector<int64_t> incarnations_;
  std::vector<bool> failed_;  // By the end of time, and reported.
  std::mt19937_64 random_;
  ChaosReport report_;
};

ChaosReport KillAtRandom(
    const std::vector<std::function<void(const Worker&)>>& bodies,
    const ChaosOptions& options) {
  return Chaos(bodies, options).Run();
}

}  // namespace cohort_testing
