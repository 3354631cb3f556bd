// SPDX-License-Identifier: Apache-2.0
//
// Workers are killed at random while a pool works at full speed. Every call
// must end, with the right result or, where retries are used up, with the death
// of its worker; none may be lost, none may hang.

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/pool/process_pool.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "cohort/testing/stress.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::IsOk;

uint64_t Mix(uint64_t x) {
  for (int i = 0; i < 2'000; ++i) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
  }
  return x;
}

// SIGKILLs a random worker every few milliseconds until it is destroyed.
class Killer final {
 public:
  explicit Killer(const ProcessPool& pool)
      : thread_([this, &pool] { Run(pool); }) {}
  ~Killer() {
    stop_ = true;
    thread_.join();
    std::cout << "kills: " << kills_ << "\n";
  }
  Killer(const Killer&) = delete;
  Killer& operator=(const Killer&) = delete;

 private:
  void Run(const ProcessPool& pool) {
    std::mt19937 random(20'261'121);  // NOLINT: the same every time.
    while (!stop_) {
      std::this_thread::sleep_for(std::chrono::microseconds(
          std::uniform_int_distribution<int>(0, 10'000)(random)));
      const std::vector<int> pids = pool.WorkerPids();
      if (pids.empty()) continue;
      // A pid cannot be reused between the two lines: only the pool collects
      // its children, and a number of ours wraps after 4 million processes.
      kill(pids[random() % pids.size()], SIGKILL);
      ++kills_;
    }
  }

  std::atomic<bool> stop_ = false;
  int64_t kills_ = 0;
  std::thread thread_;
};

class ProcessPoolStressTest : public ::testing::TestWithParam<StartMethod> {
 protected:
  cohort_testing::LeakGuard leaks_;
};

INSTANTIATE_TEST_SUITE_P(StartMethods, ProcessPoolStressTest,
                         ::testing::Values(StartMethod::kSpawn,
                                           StartMethod::kFork),
                         [](const auto& info) {
                           return info.param == StartMethod::kSpawn ? "Spawn"
                                                                    : "Fork";
                         });

TEST_P(ProcessPoolStressTest, NothingIsLostUnderRandomKills) {
  absl::StatusOr<ProcessPool> pool = ProcessPool::Create(
      {.workers = 2, .start_method = GetParam(), .retries = 1'000});
  ASSERT_THAT(pool, IsOk());
  const auto end =
      std::chrono::steady_clock::now() + cohort_testing::StressSeconds();
  std::vector<uint64_t> elements(20'000);
  std::iota(elements.begin(), elements.end(), 0);
  std::vector<uint64_t> expected;
  for (uint64_t x : elements) expected.push_back(Mix(x));
  int64_t elements_done = 0;
  int64_t calls_done = 0;
  {
    Killer killer(*pool);
    while (std::chrono::steady_clock::now() < end) {
      const absl::StatusOr<std::vector<uint64_t>> all =
          pool->Map(Mix, elements);
      ASSERT_THAT(all, IsOk());
      ASSERT_EQ(*all, expected);
      elements_done += static_cast<int64_t>(elements.size());
      std::vector<Future<uint64_t>> futures;
      for (uint64_t x = 0; x < 2'000; ++x) {
        futures.push_back(pool->Submit(Mix, x));
      }
      for (uint64_t x = 0; x < 2'000; ++x) {
        const absl::StatusOr<uint64_t> one = futures[x].Get();
        ASSERT_THAT(one, IsOk());
        ASSERT_EQ(*one, expected[x]);
        ++calls_done;
      }
    }
  }
  const PoolStats stats = pool->Stats();
  std::cout << "elements: " << elements_done << ", calls: " << calls_done
            << ", deaths: " << stats.worker_deaths
            << ", retried: " << stats.retried << "\n";
  EXPECT_GT(stats.worker_deaths, 0U);
  pool->Close();
  EXPECT_THAT(pool->Join(), IsOk());
}

TEST_P(ProcessPoolStressTest, WithoutRetriesEveryCallEndsOneWayOrTheOther) {
  absl::StatusOr<ProcessPool> pool =
      ProcessPool::Create({.workers = 2, .start_method = GetParam()});
  ASSERT_THAT(pool, IsOk());
  const auto end =
      std::chrono::steady_clock::now() + cohort_testing::StressSeconds() / 2;
  int64_t right = 0;
  int64_t aborted = 0;
  {
    Killer killer(*pool);
    while (std::chrono::steady_clock::now() < end) {
      std::vector<Future<uint64_t>> futures;
      for (uint64_t x = 0; x < 1'000; ++x) {
        futures.push_back(pool->Submit(Mix, x));
      }
      for (uint64_t x = 0; x < 1'000; ++x) {
        const absl::StatusOr<uint64_t> one = futures[x].Get();
        if (one.ok()) {
          ASSERT_EQ(*one, Mix(x));
          ++right;
        } else {
          ASSERT_TRUE(absl::IsAborted(one.status())) << one.status();
          ++aborted;
        }
      }
    }
  }
  std::cout << "right: " << right << ", aborted: " << aborted << "\n";
  // A death takes one call along, never two.
  EXPECT_LE(aborted, static_cast<int64_t>(pool->Stats().worker_deaths));
}

}  // namespace
}  // namespace cohort
