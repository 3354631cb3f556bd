// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/process_pool.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <forward_list>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/descriptor.h"
#include "cohort/pool/future.h"
#include "cohort/process/process.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::cohort_testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

int Square(int x) { return x * x; }
int Pid() { return getpid(); }
void Nothing() {}
std::string Repeat(std::string text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}
std::string Same(std::string text) { return text; }
size_t Length(const std::string& text) { return text.size(); }
absl::StatusOr<int> Positive(int x) {
  if (x <= 0) return absl::InvalidArgumentError("not positive");
  return x;
}
absl::Status Refuse() { return absl::PermissionDeniedError("no"); }
int Throw(int) { throw std::runtime_error("thrown on purpose"); }
int DieBy(int signal) {
  // Whatever the sanitizers have installed.
  std::signal(signal, SIG_DFL);
  (void)raise(signal);
  return 0;
}
int ExitWith(int code) { std::exit(code); }
int Hang() {
  for (;;) pause();
}

// Counts in a file how often it was run, and dies in the first runs.
int DieTheFirst(int times, std::string counter) {
  const int fd = open(counter.c_str(), O_WRONLY | O_APPEND | O_CREAT, 0600);
  (void)!write(fd, "x", 1);
  const off_t runs = lseek(fd, 0, SEEK_END);
  close(fd);
  if (runs <= times) return DieBy(SIGKILL);
  return static_cast<int>(runs);
}

// Notes in a file that `x` ran; `fatal` dies instead of its first return.
int NoteAndMaybeDie(int x, int fatal, const std::string& notes) {
  const int fd = open(notes.c_str(), O_RDWR | O_APPEND | O_CREAT, 0600);
  std::string before(1 << 16, '\0');
  before.resize(static_cast<size_t>(
      std::max<ssize_t>(0, pread(fd, before.data(), before.size(), 0))));
  const std::string line = std::to_string(x) + "\n";
  (void)!write(fd, line.data(), line.size());
  close(fd);
  if (x == fatal && before.find("\n" + line) == std::string::npos &&
      before.find(line) != 0) {
    DieBy(SIGKILL);
  }
  return x;
}
struct Note {
  int fatal = -1;
  std::string notes;
  int operator()(int x) const { return NoteAndMaybeDie(x, fatal, notes); }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(fatal, notes);
  }
};

struct Scale {
  int by = 2;
  int operator()(int x) const { return x * by; }
  int Twice(int x) const { return 2 * x * by; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(by);
  }
};

// Refuses to arrive where its value is negative.
struct Picky {
  int value = 0;
  template <class Archive>
  void save(Archive& archive) const {
    archive(value);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(value);
    if (value < 0) archive.Fail(absl::DataLossError("refused on arrival"));
  }
};
int Unpack(Picky picky) { return picky.value; }
Picky Pack(int value) { return Picky{value}; }

std::string TempName(const char* stem) {
  return ::testing::TempDir() + "/" + stem + "." + std::to_string(getpid());
}

// Every test runs with both ways to make a worker.
class ProcessPoolTest : public ::testing::TestWithParam<StartMethod> {
 protected:
  static PoolOptions With(int workers) {
    PoolOptions options;
    options.workers = workers;
    options.start_method = GetParam();
    return options;
  }
  static ProcessPool Pool(int workers = 2) {
    absl::StatusOr<ProcessPool> pool = ProcessPool::Create(With(workers));
    EXPECT_THAT(pool, IsOk());
    return *std::move(pool);
  }

  cohort_testing::LeakGuard leaks_;
};

INSTANTIATE_TEST_SUITE_P(StartMethods, ProcessPoolTest,
                         ::testing::Values(StartMethod::kSpawn,
                                           StartMethod::kFork),
                         [](const auto& info) {
                           return info.param == StartMethod::kSpawn ? "Spawn"
                                                                    : "Fork";
                         });

TEST_P(ProcessPoolTest, RunsFunctionsElsewhere) {
  ProcessPool pool = Pool();
  EXPECT_THAT(pool.Apply(Square, 7), IsOkAndHolds(49));
  const absl::StatusOr<int> pid = pool.Apply(Pid);
  ASSERT_THAT(pid, IsOk());
  EXPECT_NE(*pid, getpid());
  EXPECT_THAT(pool.WorkerPids(), ::testing::Contains(*pid));
  EXPECT_THAT(pool.Apply(Nothing), IsOk());
  EXPECT_THAT(pool.Apply(Scale{.by = 3}, 5), IsOkAndHolds(15));
  EXPECT_THAT(pool.Apply(&Scale::Twice, Scale{}, 5), IsOkAndHolds(20));
  EXPECT_THAT(pool.Apply([](int x) { return x + 1; }, 1), IsOkAndHolds(2));
}

TEST_P(ProcessPoolTest, MapKeepsTheOrder) {
  ProcessPool pool = Pool();
  EXPECT_THAT(pool.Map(Square, {1, 2, 3, 4}),
              IsOkAndHolds(ElementsAre(1, 4, 9, 16)));
  EXPECT_THAT(pool.Map(Square, std::vector<int>()), IsOkAndHolds(IsEmpty()));
  std::vector<int> many(10'000);
  std::iota(many.begin(), many.end(), 0);
  std::vector<int> expected;
  for (int x : many) expected.push_back(Square(x));
  EXPECT_THAT(pool.Map(Square, many), IsOkAndHolds(expected));
  for (size_t chunk : {1, 3, 9'999, 10'000, 1'000'000}) {
    EXPECT_THAT(pool.Map(Square, many, {.chunk = chunk}),
                IsOkAndHolds(expected));
  }
  EXPECT_THAT(pool.Map(Square, std::forward_list<int>{2, 3}),
              IsOkAndHolds(ElementsAre(4, 9)));
  EXPECT_THAT(pool.Map([](int) {}, {1, 2, 3}), IsOk());
  EXPECT_THAT(pool.Map(Length, {std::string("a"), std::string("bcd")}),
              IsOkAndHolds(ElementsAre(1, 3)));
}

TEST_P(ProcessPoolTest, ManyCallsFromManyThreads) {
  ProcessPool pool = Pool();
  std::atomic<int> wrong = 0;
  auto submit = [&](int from) {
    std::vector<Future<int>> futures;
    for (int i = from; i < from + 1'000; ++i) {
      futures.push_back(pool.Submit(Square, i));
    }
    for (int i = from; i < from + 1'000; ++i) {
      const absl::StatusOr<int> r =
          futures[static_cast<size_t>(i - from)].Get();
      if (!r.ok() || *r != i * i) ++wrong;
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back(submit, t * 1'000);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(pool.Stats().completed, 4'000U);
}

TEST_P(ProcessPoolTest, LargeArgumentsAndResultsPassInPieces) {
  ProcessPool pool = Pool();
  const std::string big(5 << 20, 'b');
  EXPECT_THAT(pool.Apply(Length, big), IsOkAndHolds(big.size()));
  const absl::StatusOr<std::string> back = pool.Apply(Repeat, big, 3);
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(*back, Repeat(big, 3));
  // Several at once, so that lanes are full both ways.
  std::vector<Future<std::string>> futures;
  for (int i = 0; i < 8; ++i) futures.push_back(pool.Submit(Repeat, big, 1));
  for (Future<std::string>& future : futures) {
    EXPECT_THAT(std::move(future).Get(), IsOkAndHolds(big));
  }
  const std::vector<std::string> list(20, std::string(300'000, 'x'));
  EXPECT_THAT(pool.Map(Same, list), IsOkAndHolds(list));
}

TEST_P(ProcessPoolTest, ErrorsOfFunctionsComeBack) {
  ProcessPool pool = Pool();
  EXPECT_THAT(pool.Apply(Positive, 3), IsOkAndHolds(3));
  EXPECT_THAT(pool.Apply(Positive, -3),
              StatusIs(absl::StatusCode::kInvalidArgument, "not positive"));
  EXPECT_THAT(pool.Apply(Refuse),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(pool.Apply(Throw, 1),
              StatusIs(::testing::_, HasSubstr("thrown on purpose")));
  // The first in the order of the elements.
  EXPECT_THAT(pool.Map(Positive, {3, -1, 5, 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, "not positive"));
  EXPECT_THAT(pool.Map(Throw, {1, 2}),
              StatusIs(::testing::_, HasSubstr("thrown on purpose")));
}

TEST_P(ProcessPoolTest, WhatDoesNotArriveIsAnError) {
  ProcessPool pool = Pool(1);
  EXPECT_THAT(pool.Apply(Unpack, Picky{1}), IsOkAndHolds(1));
  EXPECT_THAT(
      pool.Apply(Unpack, Picky{-1}),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("refused on arrival")));
  EXPECT_THAT(pool.Map(Unpack, {Picky{1}, Picky{2}}),
              IsOkAndHolds(ElementsAre(1, 2)));
  EXPECT_THAT(
      pool.Map(Unpack, {Picky{1}, Picky{-2}, Picky{3}}),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("refused on arrival")));
  EXPECT_THAT(pool.Apply(Pack, -1), StatusIs(absl::StatusCode::kDataLoss,
                                             HasSubstr("refused on arrival")));
  EXPECT_THAT(
      pool.Map(Pack, {1, -1}),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("refused on arrival")));
  EXPECT_THAT(pool.Apply(Unpack, Picky{5}), IsOkAndHolds(5));
  EXPECT_EQ(pool.Stats().worker_deaths, 0U);
}

TEST_P(ProcessPoolTest, OnlyTheVictimsOwnCallFails) {
  ProcessPool pool = Pool();
  Future<int> victim = pool.Submit(DieBy, SIGKILL);
  std::vector<Future<int>> others;
  for (int i = 0; i < 200; ++i) others.push_back(pool.Submit(Square, i));
  const absl::StatusOr<int> lost = victim.Get();
  EXPECT_THAT(lost, StatusIs(absl::StatusCode::kAborted, HasSubstr("SIGKILL")));
  EXPECT_TRUE(lost.status().GetPayload("cohort/worker_death").has_value());
  for (int i = 0; i < 200; ++i) {
    EXPECT_THAT(others[static_cast<size_t>(i)].Get(), IsOkAndHolds(i * i));
  }
  EXPECT_EQ(pool.Stats().worker_deaths, 1U);
  EXPECT_THAT(pool.Apply(ExitWith, 3),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("exit code 3")));
  EXPECT_THAT(pool.Apply(DieBy, SIGSEGV),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("SIGSEGV")));
  EXPECT_THAT(pool.Apply(Square, 5), IsOkAndHolds(25));
}

TEST_P(ProcessPoolTest, RetriesAreCountedAndBounded) {
  ProcessPool pool = Pool();
  const std::string counter = TempName("retries");
  EXPECT_THAT(pool.Submit({.retries = 2}, DieTheFirst, 2, counter).Get(),
              IsOkAndHolds(3));
  unlink(counter.c_str());
  EXPECT_THAT(pool.Submit({.retries = 1}, DieTheFirst, 2, counter).Get(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("attempts: 2")));
  unlink(counter.c_str());
  EXPECT_EQ(pool.Stats().retried, 3U);
}

TEST_P(ProcessPoolTest, OfAChunkOnlyUnfinishedElementsRunAgain) {
  ProcessPool pool = Pool(1);
  const std::string notes = TempName("notes");
  std::vector<int> elements(100);
  std::iota(elements.begin(), elements.end(), 0);
  EXPECT_THAT(pool.Map(Note{.fatal = 60, .notes = notes}, elements,
                       {.chunk = 100, .retries = 1}),
              IsOkAndHolds(elements));
  // Each ran once, and the one that died twice.
  std::string text(1 << 16, '\0');
  const int fd = open(notes.c_str(), O_RDONLY);
  text.resize(static_cast<size_t>(read(fd, text.data(), text.size())));
  close(fd);
  unlink(notes.c_str());
  std::string expected;
  for (int x : elements) {
    expected += std::to_string(x) + "\n";
    if (x == 60) expected += std::to_string(x) + "\n";
  }
  EXPECT_EQ(text, expected);
}

TEST_P(ProcessPoolTest, AnElementThatKillsIsTheOnlyOneThatFails) {
  ProcessPool pool = Pool(1);
  auto fatal = [](int x) { return x == 3 ? DieBy(SIGKILL) : x; };
  EXPECT_THAT(pool.Map(fatal, {1, 2, 3, 4, 5}, {.chunk = 5}),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("element 2")));
  EXPECT_EQ(pool.Stats().worker_deaths, 1U);
  EXPECT_THAT(pool.Map(fatal, {1, 2, 4}, {.chunk = 5}), IsOk());
}

TEST_P(ProcessPoolTest, ALimitEndsTheCallAndNotItsNeighbours) {
  ProcessPool pool = Pool();
  Future<int> slow = pool.Submit({.timeout = absl::Milliseconds(50)}, Hang);
  Future<int> quick = pool.Submit({.timeout = absl::Seconds(100)}, Square, 3);
  EXPECT_THAT(quick.Get(), IsOkAndHolds(9));
  EXPECT_THAT(slow.Get(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                   HasSubstr("its limit of 50ms")));
  EXPECT_THAT(pool.Apply(Square, 4), IsOkAndHolds(16));
}

TEST_P(ProcessPoolTest, GetPollsOnceWithZero) {
  ProcessPool pool = Pool(1);
  Future<int> hang = pool.Submit(Hang);
  EXPECT_THAT(hang.Get(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(hang.Get(-absl::Seconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_FALSE(hang.Done());
  Future<int> queued = pool.Submit(Square, 2);
  EXPECT_TRUE(queued.Cancel());
  EXPECT_FALSE(queued.Cancel());
  EXPECT_TRUE(queued.Done());
  EXPECT_THAT(queued.Get(), StatusIs(absl::StatusCode::kCancelled));
  pool.Terminate();
  EXPECT_THAT(hang.Get(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(hang.Cancel());
}

TEST_P(ProcessPoolTest, ResultsCanBeReadTwiceOrMovedOut) {
  ProcessPool pool = Pool();
  Future<std::string> f = pool.Submit(Repeat, "ab", 2);
  EXPECT_THAT(f.Get(), IsOkAndHolds("abab"));
  EXPECT_THAT(f.Get(), IsOkAndHolds("abab"));
  EXPECT_THAT(std::move(f).Get(), IsOkAndHolds("abab"));
  EXPECT_THAT(f.Get(),  // NOLINT(bugprone-use-after-move)
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Future<int>().Get(),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_P(ProcessPoolTest, AsCompletedTellsEachOnce) {
  ProcessPool pool = Pool();
  std::vector<Future<int>> futures;
  for (int i = 0; i < 100; ++i) futures.push_back(pool.Submit(Square, i));
  std::map<size_t, int> seen;
  for (auto [index, result] : AsCompleted(futures)) {
    ASSERT_THAT(result, IsOk());
    EXPECT_TRUE(seen.emplace(index, *result).second);
  }
  ASSERT_EQ(seen.size(), 100U);
  for (auto [index, result] : seen) {
    EXPECT_EQ(static_cast<size_t>(result), index * index);
  }
  // Not in time: all the same, and last.
  std::vector<Future<int>> slow;
  slow.push_back(pool.Submit(Hang));
  slow.push_back(pool.Submit(Square, 3));
  std::vector<size_t> order;
  for (auto&& [index, result] :
       AsCompleted(std::move(slow), absl::Milliseconds(200))) {
    order.push_back(index);
    EXPECT_EQ(result.ok(), index == 1);
  }
  EXPECT_THAT(order, ElementsAre(1, 0));
  pool.Terminate();
}

TEST_P(ProcessPoolTest, GetAllGivesTheOrderOfTheFutures) {
  ProcessPool pool = Pool();
  std::vector<Future<int>> futures;
  for (int i = 0; i < 10; ++i) futures.push_back(pool.Submit(Square, i));
  EXPECT_THAT(GetAll(std::move(futures)),
              IsOkAndHolds(ElementsAre(0, 1, 4, 9, 16, 25, 36, 49, 64, 81)));
  std::vector<Future<int>> bad;
  bad.push_back(pool.Submit(Positive, 1));
  bad.push_back(pool.Submit(Positive, 0));
  EXPECT_THAT(GetAll(std::move(bad)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  std::vector<Future<void>> nothing;
  nothing.push_back(pool.Submit(Nothing));
  EXPECT_THAT(GetAll(std::move(nothing)), IsOk());
}

TEST_P(ProcessPoolTest, ClosingLetsWorkFinishAndTakesNoMore) {
  ProcessPool pool = Pool();
  std::vector<Future<int>> futures;
  for (int i = 0; i < 500; ++i) futures.push_back(pool.Submit(Square, i));
  EXPECT_THAT(pool.Join(), StatusIs(absl::StatusCode::kFailedPrecondition));
  pool.Close();
  EXPECT_THAT(pool.Apply(Square, 1),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(pool.Join(), IsOk());
  EXPECT_THAT(pool.WorkerPids(), IsEmpty());
  for (int i = 0; i < 500; ++i) {
    EXPECT_THAT(futures[static_cast<size_t>(i)].Get(absl::ZeroDuration()),
                IsOkAndHolds(i * i));
  }
  EXPECT_THAT(pool.Join(), IsOk());
}

TEST_P(ProcessPoolTest, JoinSaysWhenItIsNotDone) {
  ProcessPool pool = Pool(1);
  Future<int> hang = pool.Submit(Hang);
  pool.Close();
  EXPECT_THAT(pool.Join(absl::Milliseconds(10)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(pool.Shutdown({.kill_running = true}), IsOk());
  EXPECT_THAT(hang.Get(), StatusIs(absl::StatusCode::kCancelled));
}

TEST_P(ProcessPoolTest, ShutdownCancelsWhatIsQueuedOnRequest) {
  ProcessPool pool = Pool(1);
  Future<int> hang = pool.Submit(Hang);
  Future<int> queued = pool.Submit(Square, 1);
  EXPECT_THAT(
      pool.Shutdown({.cancel_queued = true, .grace = absl::Milliseconds(10)}),
      StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(queued.Get(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(hang.Get(), StatusIs(absl::StatusCode::kCancelled));
}

TEST_P(ProcessPoolTest, FuturesOutliveTheirPool) {
  Future<int> done;
  Future<int> lost;
  {
    PoolOptions options = With(1);
    options.grace = absl::Milliseconds(10);
    absl::StatusOr<ProcessPool> pool = ProcessPool::Create(options);
    ASSERT_THAT(pool, IsOk());
    done = pool->Submit(Square, 9);
    ASSERT_THAT(done.Get(), IsOk());
    lost = pool->Submit(Hang);
  }
  EXPECT_THAT(done.Get(), IsOkAndHolds(81));
  EXPECT_THAT(lost.Get(), StatusIs(absl::StatusCode::kCancelled));
}

TEST_P(ProcessPoolTest, IdleWorkersThatAreKilledAreReplaced) {
  ProcessPool pool = Pool();
  for (int round = 0; round < 10; ++round) {
    for (int pid : pool.WorkerPids()) kill(pid, SIGKILL);
    EXPECT_THAT(pool.Submit({.retries = 5}, Square, round).Get(),
                IsOkAndHolds(round * round));
  }
}

TEST_P(ProcessPoolTest, AnInterruptIsTheParentsBusiness) {
  ProcessPool pool = Pool();
  // Until each has run something, and so is at work for certain.
  std::set<int> seen;
  while (seen.size() < 2) {
    const absl::StatusOr<std::vector<int>> pids =
        pool.Map([](int) { return Pid(); }, {0, 1, 2, 3}, {.chunk = 1});
    ASSERT_THAT(pids, IsOk());
    seen.insert(pids->begin(), pids->end());
  }
  for (int pid : seen) kill(pid, SIGINT);
  EXPECT_THAT(pool.Apply(Square, 3), IsOkAndHolds(9));
  EXPECT_EQ(pool.Stats().worker_deaths, 0U);
}

TEST_P(ProcessPoolTest, WrongOptionsAreRefused) {
  EXPECT_THAT(ProcessPool::Create({.workers = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ProcessPool::Create({.workers = 100'000}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(ProcessPoolTest, SmallLanesWorkToo) {
  PoolOptions options = With(2);
  options.lane_bytes = 1;
  absl::StatusOr<ProcessPool> pool = ProcessPool::Create(options);
  ASSERT_THAT(pool, IsOk());
  EXPECT_THAT(pool->Apply(Repeat, std::string(100'000, 'x'), 2),
              IsOkAndHolds(std::string(200'000, 'x')));
  std::vector<int> many(5'000, 2);
  EXPECT_THAT(pool->Map(Square, many),
              IsOkAndHolds(std::vector<int>(5'000, 4)));
}

TEST_P(ProcessPoolTest, DescriptorsTravelBothWays) {
  ProcessPool pool = Pool();
  auto identity = [](std::vector<os::Descriptor> list) { return list; };
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const os::Descriptor read_end(ends[0]);
  std::vector<os::Descriptor> list;
  list.emplace_back(ends[1]);
  absl::StatusOr<std::vector<os::Descriptor>> back =
      pool.Apply(identity, std::move(list));
  ASSERT_THAT(back, IsOk());
  ASSERT_EQ(back->size(), 1U);
  ASSERT_EQ(write((*back)[0].get(), "x", 1), 1);
  char byte = 0;
  ASSERT_EQ(read(read_end.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
}

TEST_P(ProcessPoolTest, AForkedCopyIsInert) {
  ProcessPool pool = Pool();
  Future<int> future = pool.Submit(Hang);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const bool inert =
        absl::IsFailedPrecondition(future.Get().status()) &&
        absl::IsFailedPrecondition(pool.Apply(Square, 1).status()) &&
        pool.WorkerPids().empty() && !future.Cancel();
    { ProcessPool end = std::move(pool); }
    _exit(inert ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(pool.WorkerPids().size(), 2U);
  pool.Terminate();
}

}  // namespace
}  // namespace cohort
