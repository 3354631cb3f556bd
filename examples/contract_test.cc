// SPDX-License-Identifier: Apache-2.0
//
// What a newcomer types, taken together: pools, processes, queues and locks as
// they meet in one program. Each room tests itself; this tests that they fit.

#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/queue.h"
#include "cohort/os/or_die.h"
#include "cohort/pool/future.h"
#include "cohort/pool/process_pool.h"
#include "cohort/process/exit_status.h"
#include "cohort/process/process.h"
#include "cohort/process/process_group.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/leak_ledger.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

int Square(int x) { return x * x; }

struct Job {
  int id = 0;
  std::string path;
  template <class A>
  void serialize(A& a) {
    a(id, path);
  }
};

struct Scale {
  int by = 2;
  int operator()(int x) const { return x * by; }
  int Twice(int x) const { return 2 * x * by; }
  template <class A>
  void serialize(A& a) {
    a(by);
  }
};

struct Board {
  cohort::Mutex mu;
  int64_t score ABSL_GUARDED_BY(mu) = 0;
};

absl::Status Work(cohort::Queue<Job> jobs, std::string who) {
  for (absl::StatusOr<Job> job : jobs.Items()) {
    if (!job.ok()) return job.status();
    std::cout << who << job->path;
  }
  return absl::OkStatus();
}

void DieHolding(cohort::Shared<Board> board) {
  cohort::MutexLock lock(board->mu);
  board->score = -1;
  (void)raise(SIGKILL);
}

void AddOne(cohort::Shared<Board> board) {
  for (int i = 0; i < 1000; ++i) {
    cohort::MutexLock lock(board->mu);
    ++board->score;
  }
}

namespace {

using cohort::OrDie;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ContractTest : public ::testing::Test {
  cohort_testing::LeakGuard guard_;
};

TEST_F(ContractTest, Pool) {
  cohort::ProcessPool pool = OrDie(cohort::ProcessPool::Create({.workers = 4}));
  std::vector<int> squares = OrDie(pool.Map(Square, {1, 2, 3, 4}));
  EXPECT_THAT(squares, ElementsAre(1, 4, 9, 16));

  cohort::Future<int> f =
      pool.Submit({.timeout = absl::Seconds(3), .retries = 2}, Square, 7);
  absl::StatusOr<int> seven = f.Get(absl::Minutes(1));
  EXPECT_EQ(OrDie(seven), 49);
  int a = OrDie(pool.Apply(Scale{.by = 3}, 5)) +
          OrDie(pool.Apply(&Scale::Twice, Scale{}, 5));
  EXPECT_EQ(a, 15 + 20);

  std::vector<cohort::Future<int>> futures;
  for (int x : squares) futures.push_back(pool.Submit(Square, x));
  std::vector<int> of_squares(squares.size());
  for (auto [index, result] : cohort::AsCompleted(futures)) {
    of_squares[index] = OrDie(result);
  }
  EXPECT_THAT(of_squares, ElementsAre(1, 16, 81, 256));
  EXPECT_THAT(OrDie(cohort::GetAll(std::move(futures))),
              ElementsAre(1, 16, 81, 256));
}

TEST_F(ContractTest, QueueInOneProcess) {
  cohort::Queue<Job> jobs =
      OrDie(cohort::Queue<Job>::Create({.max_items = 1024}));
  OrDie(jobs.Put({.id = 1, .path = "/a"}, absl::Milliseconds(10)));
  absl::StatusOr<Job> job = jobs.TryGet();
  EXPECT_EQ(OrDie(job).path, "/a");
  EXPECT_TRUE(absl::IsDeadlineExceeded(jobs.TryGet().status()));
  OrDie(jobs.Put({.id = 2, .path = "/b"}));
  jobs.Close();
  EXPECT_TRUE(absl::IsFailedPrecondition(jobs.Put({.id = 3, .path = "/c"})));
  std::vector<int> left;
  for (absl::StatusOr<Job> one : jobs.Items()) left.push_back(OrDie(one).id);
  EXPECT_THAT(left, ElementsAre(2));
  EXPECT_TRUE(absl::IsOutOfRange(jobs.TryGet().status()));
}

// Standard output into a file while it lives; children inherit it.
class Redirected {
 public:
  Redirected() : path_(::testing::TempDir() + "/contract_test_out") {
    std::cout.flush();
    std::FILE* const file = std::fopen(path_.c_str(), "we");
    dup2(fileno(file), STDOUT_FILENO);
    std::fclose(file);
  }
  ~Redirected() {
    dup2(saved_, STDOUT_FILENO);
    close(saved_);
  }
  std::string Text() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  const std::string path_;
  const int saved_ = dup(STDOUT_FILENO);
};

size_t CountOf(const std::string& part, const std::string& text) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) {
    ++count;
  }
  return count;
}

TEST_F(ContractTest, SpawnedProcessesShareAQueue) {
  const Redirected output;
  cohort::Queue<Job> jobs =
      OrDie(cohort::Queue<Job>::Create({.max_items = 1024}));
  cohort::Process child = OrDie(cohort::Process::Start(
      {.start_method = cohort::StartMethod::kSpawn, .name = "ingest"}, Work,
      jobs, "w"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      child.Join(absl::Milliseconds(1)).status()));  // It waits for jobs.
  cohort::ProcessGroup group;
  for (int i = 0; i < 3; ++i) {
    group.Start({.name = "w" + std::to_string(i)}, Work, jobs, "w");
  }
  for (int i = 0; i < 100; ++i) OrDie(jobs.Put({.id = i, .path = "/a"}));
  jobs.Close();
  OrDie(group.Join());
  absl::StatusOr<cohort::ExitStatus> end = child.Join();
  EXPECT_TRUE(OrDie(end).ok());
  EXPECT_EQ(CountOf("w/a", output.Text()), 100u);  // Each went to one.
}

TEST_F(ContractTest, ForkedProcessesShareAQueue) {
  const Redirected output;
  cohort::Queue<Job> jobs =
      OrDie(cohort::Queue<Job>::Create({.max_items = 4}));  // Puts wait.
  cohort::ProcessGroup group({.start_method = cohort::StartMethod::kFork});
  for (int i = 0; i < 3; ++i) group.Start(Work, jobs, "f");
  for (int i = 0; i < 100; ++i) OrDie(jobs.Put({.id = i, .path = "/b"}));
  jobs.Close();
  OrDie(group.Join());
  EXPECT_EQ(CountOf("f/b", output.Text()), 100u);
}

TEST_F(ContractTest, GroupNamesTheFirstThatFailed) {
  cohort::Shared<Board> board = OrDie(cohort::Shared<Board>::Create());
  cohort::ProcessGroup group;
  group.Start({.name = "victim"}, DieHolding, board);
  const absl::Status all = group.Join();
  EXPECT_TRUE(absl::IsAborted(all));
  EXPECT_THAT(std::string(all.message()), HasSubstr("victim"));
  EXPECT_THAT(std::string(all.message()), HasSubstr("SIGKILL"));
}

TEST_F(ContractTest, LockOfADeadHolderIsRepaired) {
  cohort::Shared<Board> board = OrDie(cohort::Shared<Board>::Create());
  cohort::Process victim = OrDie(cohort::Process::Start(DieHolding, board));
  EXPECT_EQ(OrDie(victim.Join()).signal, SIGKILL);
  {
    cohort::MutexLock lock(board->mu,
                           [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(board->mu) {
                             EXPECT_EQ(board->score, -1);
                             board->score = 0;
                           });
    board->score += 1;
  }
  cohort::ProcessGroup group;
  for (int i = 0; i < 2; ++i) group.Start(AddOne, board);
  OrDie(group.Join());
  cohort::MutexLock lock(board->mu, [] { FAIL() << "nobody died since"; });
  EXPECT_EQ(board->score, 2001);
}

TEST_F(ContractTest, LockInMemoryOfOnesOwn) {
  auto* mine = new (mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Board;
  {
    cohort::MutexLock lock(mine->mu);
    mine->score = 1;
  }
  {
    cohort::MutexLock lock(mine->mu);
    EXPECT_EQ(mine->score, 1);
  }
  munmap(mine, sizeof(Board));
}

}  // namespace
