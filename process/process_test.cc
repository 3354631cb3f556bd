// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/socket.h"
#include "cohort/os/spawn.h"
#include "cohort/process/this_process.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

// There where the address sanitizer is.
extern "C" [[gnu::weak]] void __asan_init();  // NOLINT: its name.

namespace cohort {
namespace {

using ::cohort_testing::LeakGuard;
using ::cohort_testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kNoTime = absl::ZeroDuration();

// One end of a socket pair, given to a child; the test holds the other. A
// hang-up there says that the child, and every copy of its end, is gone.
struct Line {
  os::Descriptor here;
  os::Descriptor there;
};

Line MakeLine() {
  auto pair = os::SocketPair();
  return {std::move(pair->first), std::move(pair->second)};
}

std::string Hear(const os::Descriptor& socket) {
  absl::StatusOr<os::Message> message =
      os::ReceiveMessage(socket, 4096, 0, Deadline::Infinite());
  return message.ok() ? message->bytes : message.status().ToString();
}

void Say(const os::Descriptor& socket, std::string_view word) {
  (void)os::SendMessage(socket, word, Deadline::Infinite());
}

MATCHER(IsHangUp, "") {
  return absl::IsOutOfRange(
      os::ReceiveMessage(arg, 4096, 0, Deadline::Infinite()).status());
}

// How many descriptors this process has, the one used for counting left out.
int OpenDescriptors() {
  int count = -1;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

ExitStatus MustJoin(const Process& process) {
  absl::StatusOr<ExitStatus> end = process.Join();
  EXPECT_OK(end);
  return end.ok() ? *end : ExitStatus{};
}

// What children run. ----------------------------------------------------------

void Nothing() {}
int Return(int code) { return code; }
absl::Status Fail(std::string why) {
  absl::Status status = absl::DataLossError(why);
  status.SetPayload("test/payload", absl::Cord("carried"));
  return status;
}
void Throw(std::string what) { throw std::runtime_error(what); }
void Raise(int signal) { raise(signal); }
void Sleep() {
  for (;;) pause();
}
// Says that it is there, and ends at a word from the other end. (A forked child
// would wait in vain for a hang-up: it holds a copy of the other end itself.)
void Serve(os::Descriptor line) {
  Say(line, "here");
  (void)Hear(line);
}
// Likewise, and SIGTERM has no effect on it.
void Withstand(os::Descriptor line) {
  std::signal(SIGTERM, SIG_IGN);
  Serve(std::move(line));
}
void Tell(os::Descriptor line, std::string word) { Say(line, word); }
void TellName(os::Descriptor line) {
  Say(line,
      absl::StrCat(this_process::Name(), this_process::IsChild() ? "" : "!"));
}
int Checksum(std::string text) {
  return std::accumulate(
      text.begin(), text.end(), 0u,
      [](unsigned sum, unsigned char c) { return (sum * 31 + c) & 0x7f; });
}
int CountDescriptors() { return OpenDescriptors(); }
int Sum(std::map<std::string, std::vector<int>> numbers, double factor) {
  int sum = 0;
  for (const auto& [name, list] : numbers) {
    sum += static_cast<int>(name.size());
    sum = std::accumulate(list.begin(), list.end(), sum);
  }
  return static_cast<int>(sum * factor);
}

struct Scale {
  int by = 2;
  int operator()(int x) const { return x * by; }
  int Twice(int x) const { return 2 * x * by; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(by);
  }
};

// Arguments that act while they are decoded.
enum class Trick { kThrow, kRaise, kExit, kStart, kStall };
struct Trap {
  Trick trick = Trick::kThrow;
  int number = 0;

  template <class Archive>
  void save(Archive& archive) const {
    archive(trick, number);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(trick, number);
    switch (trick) {
      case Trick::kThrow:
        throw std::runtime_error("a trap was decoded");
      case Trick::kRaise:
        raise(number);
        break;
      case Trick::kExit:
        std::_Exit(number);
      case Trick::kStart:
        archive.Fail(Process::Start(Nothing).status());
      case Trick::kStall:
        Sleep();
    }
  }
};
void Spring(Trap) {}

// Blocks in the decoding until the far end of the line lets it go on.
struct Gate {
  os::Descriptor line;

  template <class Archive>
  void save(Archive& archive) const {
    archive(line);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(line);
    Say(line, "decoding");
    (void)Hear(line);
  }
};
void Pass(Gate gate) { Say(gate.line, "passed"); }

// Each of these is the start of a grandchild by a child.
absl::Status StartAndWait(ProcessOptions options, os::Descriptor line) {
  absl::StatusOr<Process> process =
      Process::Start(options, Serve, std::move(line));
  if (!process.ok()) return process.status();
  return process->Join().status();
}
int StartByMethod(int method, int lifetime, os::Descriptor line) {
  ProcessOptions options;
  options.start_method = static_cast<StartMethod>(method);
  options.lifetime = static_cast<Lifetime>(lifetime);
  return StartAndWait(options, std::move(line)).ok() ? 0 : 1;
}
int StartGate(int method, Gate gate) {
  ProcessOptions options;
  options.start_method = static_cast<StartMethod>(method);
  return Process::Start(options, Pass, std::move(gate)).ok() ? 0 : 1;
}

// -----------------------------------------------------------------------------

// What must hold however the child is started.
class ProcessTest : public ::testing::TestWithParam<StartMethod> {
 protected:
  ProcessOptions Options(std::string name = "") const {
    ProcessOptions options;
    options.start_method = GetParam();
    options.name = std::move(name);
    return options;
  }

  template <typename... Args>
  absl::StatusOr<Process> Start(Args&&... args) const {
    return Process::Start(Options("child"), std::forward<Args>(args)...);
  }

  // Starts, joins, and says how it ended.
  template <typename... Args>
  ExitStatus Run(Args&&... args) const {
    absl::StatusOr<Process> process = Start(std::forward<Args>(args)...);
    EXPECT_OK(process);
    return process.ok() ? MustJoin(*process) : ExitStatus{};
  }

 private:
  LeakGuard guard_;
};

INSTANTIATE_TEST_SUITE_P(
    Methods, ProcessTest,
    ::testing::Values(StartMethod::kSpawn, StartMethod::kFork),
    [](const ::testing::TestParamInfo<StartMethod>& method) {
      return method.param == StartMethod::kSpawn ? "Spawn" : "Fork";
    });

TEST_P(ProcessTest, FunctionReturnsNothing) {
  const ExitStatus end = Run(Nothing);
  EXPECT_TRUE(end.ok()) << end;
  EXPECT_EQ(end.code, 0);
  EXPECT_OK(end.ToStatus());
}

TEST_P(ProcessTest, IntIsTheExitCode) {
  EXPECT_EQ(Run(Return, 0).code, 0);
  const ExitStatus end = Run(Return, 7);
  EXPECT_EQ(end.code, 7);
  EXPECT_OK(end.status);
  EXPECT_THAT(end.ToStatus(),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr(absl::StrCat("process child (pid ", end.pid,
                                              ") exited with code 7"))));
}

TEST_P(ProcessTest, ExitCodeKeepsTheLowBitsButNotSuccess) {
  EXPECT_EQ(Run(Return, 300).code, 44);
  EXPECT_EQ(Run(Return, -1).code, 255);
  EXPECT_EQ(Run(Return, 256).code, 1);
}

TEST_P(ProcessTest, StatusComesBackWhole) {
  const ExitStatus end = Run(Fail, "page 3 is torn");
  EXPECT_FALSE(end.ok());
  EXPECT_EQ(end.code, 1);
  EXPECT_THAT(end.status,
              StatusIs(absl::StatusCode::kDataLoss, "page 3 is torn"));
  EXPECT_EQ(end.status.GetPayload("test/payload"), absl::Cord("carried"));
  EXPECT_THAT(end.ToStatus(), StatusIs(absl::StatusCode::kDataLoss,
                                       AllOf(HasSubstr("process child (pid"),
                                             HasSubstr("page 3 is torn"))));
}

TEST_P(ProcessTest, StatusOfAnyLengthComesBack) {
  const ExitStatus end = Run(Fail, std::string(1 << 20, 'x'));
  EXPECT_EQ(end.code, 1);
  EXPECT_THAT(end.status, StatusIs(absl::StatusCode::kDataLoss,
                                   HasSubstr(std::string(1000, 'x'))));
}

TEST_P(ProcessTest, ExceptionIsCodeOneWithItsText) {
  ::testing::internal::CaptureStderr();
  const ExitStatus end = Run(Throw, "the disk is gone");
  const std::string printed = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(end.code, 1);
  EXPECT_THAT(end.status.message(), HasSubstr("the disk is gone"));
  EXPECT_THAT(printed,
              AllOf(HasSubstr("child"), HasSubstr("the disk is gone")));
}

TEST_P(ProcessTest, SignalIsToldByNumber) {
  const ExitStatus end = Run(Raise, SIGKILL);
  EXPECT_EQ(end.signal, SIGKILL);
  EXPECT_EQ(end.code, 0);
  EXPECT_FALSE(end.core_dumped);
  EXPECT_OK(end.status);
  EXPECT_THAT(
      end.ToStatus(),
      StatusIs(absl::StatusCode::kAborted,
               HasSubstr(absl::StrCat("process child (pid ", end.pid,
                                      ") was killed by signal 9 (SIGKILL)"))));
}

TEST_P(ProcessTest, ArgumentsArriveAsTheParameterTypes) {
  EXPECT_EQ(Run(Checksum, "w").code, Checksum("w"));
  EXPECT_EQ(Run(Return, 'A').code, 65);
  EXPECT_EQ(
      Run(Sum,
          std::map<std::string, std::vector<int>>{{"ab", {1, 2}}, {"c", {3}}},
          2)
          .code,
      18);
}

TEST_P(ProcessTest, FunctorsMembersAndLambdasRun) {
  EXPECT_EQ(Run(Scale{.by = 3}, 5).code, 15);
  EXPECT_EQ(Run(&Scale::Twice, Scale{.by = 3}, 5).code, 30);
  EXPECT_EQ(Run([](int x) { return x + 1; }, 5).code, 6);
}

TEST_P(ProcessTest, ArgumentsOfManyMegabytes) {
  const std::string text(48 << 20, 'q');
  EXPECT_EQ(Run(Checksum, text).code, Checksum(text));
}

TEST_P(ProcessTest, ArgumentsAtTheBorderBetweenTheWaysTheyTravel) {
  for (size_t size = 7000; size < 7200; size += 20) {
    const std::string text(size, 'b');
    ASSERT_EQ(Run(Checksum, text).code, Checksum(text)) << size;
  }
}

TEST_P(ProcessTest, DescriptorsAreHandedOver) {
  Line line = MakeLine();
  absl::StatusOr<Process> process =
      Start(Tell, std::move(line.there), "through the line");
  ASSERT_OK(process);
  EXPECT_EQ(Hear(line.here), "through the line");
  // The child's copy was the last.
  EXPECT_THAT(line.here, IsHangUp());
  EXPECT_OK(process->Join());
}

TEST_P(ProcessTest, DescriptorsAndALargeArgument) {
  Line line = MakeLine();
  const std::string word(2000, 'w');
  ASSERT_OK_AND_ASSIGN(
      Process process,
      Start([](os::Descriptor out, std::string word,
               std::string ballast) { Say(out, word + ballast.back()); },
            std::move(line.there), word, std::string(1 << 20, 'z')));
  EXPECT_EQ(Hear(line.here), word + 'z');
  EXPECT_OK(process.Join());
}

TEST_P(ProcessTest, ChildKnowsItsName) {
  EXPECT_EQ(this_process::Name(), "main");
  EXPECT_FALSE(this_process::IsChild());
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(Process process, Start(TellName, std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "child");
  EXPECT_EQ(process.name(), "child");
  EXPECT_GT(process.pid(), 0);
  EXPECT_OK(process.Join());
}

TEST_P(ProcessTest, UnnamedChildrenAreNumbered) {
  ASSERT_OK_AND_ASSIGN(Process first, Process::Start(Options(), Nothing));
  ASSERT_OK_AND_ASSIGN(Process second, Process::Start(Options(), Nothing));
  EXPECT_THAT(first.name(), HasSubstr("process-"));
  EXPECT_NE(first.name(), second.name());
  EXPECT_OK(first.Join());
  EXPECT_OK(second.Join());
  EXPECT_THAT(Process::Start(Options(std::string(201, 'n')), Nothing),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(ProcessTest, JoinWithATimeLimit) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(Process process, Start(Serve, std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "here");
  EXPECT_TRUE(process.is_alive());
  for (absl::Duration limit :
       {kNoTime, -absl::InfiniteDuration(), absl::Milliseconds(5)}) {
    EXPECT_THAT(process.Join(limit),
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         HasSubstr("process child (pid ")));
  }
  Say(line.here, "end");
  EXPECT_TRUE(MustJoin(process).ok());
  EXPECT_FALSE(process.is_alive());
  EXPECT_TRUE(MustJoin(process).ok()) << "joined twice";
  EXPECT_OK(process.Join(kNoTime));
}

TEST_P(ProcessTest, SignalsReachItAndOnlyWhileItLives) {
  const struct {
    void (Process::*send)() const;
    int signal;
  } kinds[] = {{&Process::Interrupt, SIGINT},
               {&Process::Terminate, SIGTERM},
               {&Process::Kill, SIGKILL}};
  for (const auto& kind : kinds) {
    ASSERT_OK_AND_ASSIGN(Process process, Start(Sleep));
    (process.*kind.send)();
    EXPECT_EQ(MustJoin(process).signal, kind.signal);
    (process.*kind.send)();
    EXPECT_OK(process.Signal(SIGKILL));
    EXPECT_EQ(MustJoin(process).signal, kind.signal);
  }
}

TEST_P(ProcessTest, PollHandleTellsTheEnd) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(Process process, Start(Serve, std::move(line.there)));
  ASSERT_OK_AND_ASSIGN(
      os::Descriptor handle,
      os::Descriptor(fcntl(process.poll_handle(), F_DUPFD_CLOEXEC, 0))
          .Duplicate());
  EXPECT_EQ(*os::WaitPidfd(handle, Deadline::Now()), false);
  Say(line.here, "end");
  EXPECT_EQ(*os::WaitPidfd(handle, Deadline::Infinite()), true);
  EXPECT_FALSE(process.is_alive());
  EXPECT_TRUE(MustJoin(process).ok());
}

TEST_P(ProcessTest, SeveralThreadsJoinOneProcess) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(Process process, Start(Serve, std::move(line.there)));
  std::atomic<int> joined = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { joined += process.Join().ok(); });
  }
  EXPECT_EQ(Hear(line.here), "here");
  process.Kill();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(joined, 4);
}

TEST_P(ProcessTest, UndecodableArgumentIsTheStatusOfStart) {
  const int before = OpenDescriptors();
  const absl::Status status =
      Start(Spring, Trap{.trick = Trick::kThrow}).status();
  EXPECT_THAT(status.message(), AllOf(HasSubstr("process child (pid "),
                                      HasSubstr("a trap was decoded")));
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_P(ProcessTest, DeathInTheDecodingIsTheStatusOfStart) {
  const int before = OpenDescriptors();
  EXPECT_THAT(Start(Spring, Trap{.trick = Trick::kRaise, .number = SIGKILL}),
              StatusIs(absl::StatusCode::kAborted,
                       AllOf(HasSubstr("process child (pid "),
                             HasSubstr("killed by signal 9 (SIGKILL)"),
                             HasSubstr("before it was ready"))));
  EXPECT_THAT(Start(Spring, Trap{.trick = Trick::kRaise, .number = SIGTERM}),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("killed by signal 15 (SIGTERM)")));
  for (int code : {0, 3}) {
    const absl::Status status =
        Start(Spring, Trap{.trick = Trick::kExit, .number = code}).status();
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kAborted,
                         HasSubstr(absl::StrCat("exited with code ", code))));
    EXPECT_NE(status.GetPayload(std::string(kExitStatusPayload)),
              absl::nullopt);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_P(ProcessTest, NoStartWhileDecoding) {
  EXPECT_THAT(Start(Spring, Trap{.trick = Trick::kStart}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("still decoding")));
}

TEST_P(ProcessTest, ChildThatIsNeverReadyIsKilled) {
  ProcessOptions options = Options("child");
  options.start_timeout = absl::Milliseconds(300);
  EXPECT_THAT(Process::Start(options, Spring, Trap{.trick = Trick::kStall}),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("was not ready within 300ms")));
}

TEST_P(ProcessTest, RefusedStartLeavesTheArgumentsAlone) {
  Line line = MakeLine();
  EXPECT_FALSE(Process::Start(Options(std::string(1000, 'n')), Tell,
                              std::move(line.there), "x")
                   .ok());
  EXPECT_TRUE(line.there.valid());
}

TEST_P(ProcessTest, NoDescriptorsLeft) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 256;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<os::Descriptor> all;
  for (;;) {
    os::Descriptor next(fcntl(0, F_DUPFD_CLOEXEC, 0));
    if (!next.valid()) break;
    all.push_back(std::move(next));
  }
  // Refused for want of descriptors, at whichever step, until there are enough.
  int refused = 0;
  for (;;) {
    absl::StatusOr<Process> process = Start(Nothing);
    if (process.ok()) {
      EXPECT_TRUE(MustJoin(*process).ok());
      break;
    }
    ASSERT_THAT(process, StatusIs(absl::StatusCode::kResourceExhausted));
    ++refused;
    ASSERT_FALSE(all.empty());
    all.pop_back();
  }
  EXPECT_GT(refused, 1);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_P(ProcessTest, HundredsOfStartsKeepNoDescriptor) {
  ASSERT_TRUE(Run(Nothing).ok());
  const int before = OpenDescriptors();
  const int starts = GetParam() == StartMethod::kFork ? 200 : 100;
  for (int i = 0; i < starts; ++i) {
    ProcessOptions options = Options("child");
    options.lifetime = i % 2 == 0 ? Lifetime::kJoin : Lifetime::kDieWithParent;
    ASSERT_OK_AND_ASSIGN(Process process,
                         Process::Start(options, Return, i % 100));
    ASSERT_EQ(MustJoin(process).code, i % 100);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_P(ProcessTest, DestructorAsksThenKills) {
  { ASSERT_OK_AND_ASSIGN(Process obedient, Start(Sleep)); }
  {
    Line line = MakeLine();
    ProcessOptions options = Options("child");
    options.grace = absl::Milliseconds(20);
    ASSERT_OK_AND_ASSIGN(
        Process stubborn,
        Process::Start(options, Withstand, std::move(line.there)));
    EXPECT_EQ(Hear(line.here), "here");
    const int pid = stubborn.pid();
    { Process gone = std::move(stubborn); }
    EXPECT_EQ(kill(pid, 0), -1) << "killed and collected";
    EXPECT_THAT(line.here, IsHangUp());
  }
  {
    Line line = MakeLine();
    ProcessOptions options = Options("child");
    options.grace = kNoTime;
    ASSERT_OK_AND_ASSIGN(
        Process stubborn,
        Process::Start(options, Withstand, std::move(line.there)));
    EXPECT_EQ(Hear(line.here), "here");
  }
  {
    // A stopped process does not see SIGTERM.
    ProcessOptions options = Options("child");
    options.grace = absl::Milliseconds(20);
    ASSERT_OK_AND_ASSIGN(Process stopped, Process::Start(options, Sleep));
    EXPECT_OK(stopped.Signal(SIGSTOP));
  }
}

TEST_P(ProcessTest, MovedFromObjectsAreInert) {
  ASSERT_OK_AND_ASSIGN(Process first, Start(Sleep));
  Process second = std::move(first);
  EXPECT_EQ(first.pid(), 0);    // NOLINT: what is left of it.
  EXPECT_EQ(first.name(), "");  // NOLINT
  EXPECT_EQ(first.poll_handle(), -1);
  EXPECT_FALSE(first.is_alive());
  first.Kill();
  EXPECT_THAT(first.Join(), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_TRUE(second.is_alive());

  ASSERT_OK_AND_ASSIGN(Process third, Start(Sleep));
  const int pid = second.pid();
  second = std::move(third);  // Ends what it had.
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_TRUE(second.is_alive());
}

TEST_P(ProcessTest, CopiesInAForkedProcessAreInert) {
  const int before = OpenDescriptors();
  Line line = MakeLine();
  ProcessOptions options = Options("child");
  options.lifetime = Lifetime::kDieWithParent;
  ASSERT_OK_AND_ASSIGN(Process process,
                       Process::Start(options, Serve, std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "here");
  const int copy = fork();
  if (copy == 0) {
    int wrong = 0;
    // Nothing but the line's end; the pidfd, the socket and the pipe are gone.
    wrong |= OpenDescriptors() == before + 1 ? 0 : 1;
    wrong |= process.is_alive() ? 2 : 0;
    wrong |= absl::IsFailedPrecondition(process.Join().status()) ? 0 : 4;
    process.Kill();
    { Process dropped = std::move(process); }
    std::_Exit(wrong);
  }
  int status = -1;
  ASSERT_EQ(waitpid(copy, &status, 0), copy);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(process.is_alive());
  Say(line.here, "end");
  EXPECT_TRUE(MustJoin(process).ok());
}

// A sibling that is started later must not hold what watches this one.
TEST_P(ProcessTest, SiblingsDoNotHoldEachOther) {
  Line first_line = MakeLine();
  Line second_line = MakeLine();
  ProcessOptions options = Options("child");
  options.lifetime = Lifetime::kDieWithParent;
  ASSERT_OK_AND_ASSIGN(
      Process first,
      Process::Start(options, Serve, std::move(first_line.there)));
  ASSERT_OK_AND_ASSIGN(
      Process second,
      Process::Start(options, Serve, std::move(second_line.there)));
  EXPECT_EQ(Hear(first_line.here), "here");
  EXPECT_EQ(Hear(second_line.here), "here");
  first.Kill();
  EXPECT_THAT(first_line.here, IsHangUp());
  EXPECT_EQ(MustJoin(first).signal, SIGKILL);
  EXPECT_TRUE(second.is_alive());
}

TEST_P(ProcessTest, DetachedChildRunsOnAndIsCollectedLater) {
  Line line = MakeLine();
  int pid = 0;
  {
    ProcessOptions options = Options("child");
    options.lifetime = Lifetime::kDetach;
    ASSERT_OK_AND_ASSIGN(Process process,
                         Process::Start(options, Serve, std::move(line.there)));
    pid = process.pid();
  }
  EXPECT_EQ(Hear(line.here), "here");
  EXPECT_EQ(kill(pid, 0), 0);
  Say(line.here, "end");
  // It ends now; some start after that collects it.
  while (kill(pid, 0) == 0) ASSERT_TRUE(Run(Nothing).ok());
  EXPECT_EQ(errno, ESRCH);
}

TEST_P(ProcessTest, IgnoredChildSignalIsAnUnknownStatusNotAHang) {
  const auto before = std::signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 20; ++i) {
    ASSERT_OK_AND_ASSIGN(Process process, Start(Return, 3));
    EXPECT_THAT(process.Join(),
                StatusIs(absl::StatusCode::kUnknown,
                         AllOf(HasSubstr("process child (pid "),
                               HasSubstr("exit status unknown"))));
    EXPECT_FALSE(process.is_alive());
  }
  EXPECT_FALSE(Start(Spring, Trap{.trick = Trick::kThrow}).ok());
  EXPECT_THAT(Start(Spring, Trap{.trick = Trick::kExit}),
              StatusIs(absl::StatusCode::kUnknown));
  { auto dropped = Start(Sleep); }
  std::signal(SIGCHLD, before);
}

TEST_P(ProcessTest, StolenStatusIsUnknown) {
  ASSERT_OK_AND_ASSIGN(Process process, Start(Fail, "said"));
  int status;
  ASSERT_EQ(waitpid(-1, &status, 0), process.pid());
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(process.Join(),
                StatusIs(absl::StatusCode::kUnknown, HasSubstr("said")));
  }
}

// The middle process holds nothing but its own copies; the test sees through
// the line when the grandchild is gone.
TEST_P(ProcessTest, DieWithParent) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(
      Process middle,
      Start(StartByMethod, static_cast<int>(GetParam()),
            static_cast<int>(Lifetime::kDieWithParent), std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "here");
  middle.Kill();
  EXPECT_THAT(line.here, IsHangUp());
}

TEST_P(ProcessTest, OthersOutliveTheirParent) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(
      Process middle, Start(
                          [](int method, os::Descriptor line) {
                            StartByMethod(method,
                                          static_cast<int>(Lifetime::kJoin),
                                          std::move(line));
                          },
                          static_cast<int>(GetParam()), std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "here");
  middle.Kill();
  EXPECT_EQ(MustJoin(middle).signal, SIGKILL);
  // The grandchild still listens: it ends by our word, which it can receive.
  EXPECT_OK(os::SendMessage(line.here, "end", Deadline::Infinite()));
  EXPECT_THAT(line.here, IsHangUp());
}

TEST_P(ProcessTest, ParentKilledInTheHandshake) {
  Line line = MakeLine();
  Gate gate;
  gate.line = std::move(line.there);
  // The middle process decodes a gate too: let it pass, then it starts another.
  ASSERT_OK_AND_ASSIGN(os::Descriptor here, line.here.Duplicate());
  std::thread opener([&here] {
    EXPECT_EQ(Hear(here), "decoding");
    Say(here, "go on");
  });
  absl::StatusOr<Process> middle = Process::Start(
      [&] {
        ProcessOptions options = Options("middle");
        options.allow_threads = true;
        return options;
      }(),
      StartGate, static_cast<int>(GetParam()), std::move(gate));
  opener.join();
  ASSERT_OK(middle);
  EXPECT_EQ(Hear(line.here), "decoding");  // The grandchild.
  middle->Kill();
  EXPECT_EQ(MustJoin(*middle).signal, SIGKILL);
  Say(line.here, "go on");
  here.Reset();
  // It ends without having run its function.
  EXPECT_THAT(line.here, IsHangUp());
}

TEST_P(ProcessTest, OutputIsWrittenOnce) {
  ::testing::internal::CaptureStdout();
  std::cout << "parent ";
  printf("too ");
  EXPECT_TRUE(Run([] {
                std::cout << "child ";
                printf("also ");
              }).ok());
  std::cout << "end" << std::flush;
  fflush(stdout);
  const std::string printed = ::testing::internal::GetCapturedStdout();
  for (const char* word : {"parent", "too", "child", "also", "end"}) {
    const size_t first = printed.find(word);
    EXPECT_NE(first, std::string::npos) << word;
    EXPECT_EQ(printed.find(word, first + 1), std::string::npos) << word;
  }
}

// Spawn alone. ----------------------------------------------------------------

class SpawnTest : public ::testing::Test {
  LeakGuard guard_;
};

TEST_F(SpawnTest, OnlyListedDescriptorsReachTheChild) {
  const auto count = [] {
    ProcessOptions options;
    options.start_method = StartMethod::kSpawn;
    absl::StatusOr<Process> process = Process::Start(options, CountDescriptors);
    EXPECT_OK(process);
    return process.ok() ? MustJoin(*process).code : -1;
  };
  // 0, 1, 2 and the line to the parent.
  EXPECT_EQ(count(), 4);
  std::vector<os::Descriptor> inheritable;
  for (int i = 0; i < 30; ++i) {
    inheritable.emplace_back(dup(0));  // Without close-on-exec.
  }
  EXPECT_EQ(count(), 4);
}

TEST_F(SpawnTest, NothingPrivateOnTheCommandLineOrInTheEnvironment) {
  const std::string secret = "swordfish-7712";
  ASSERT_OK_AND_ASSIGN(Process process,
                       Process::Start(
                           {.start_method = StartMethod::kSpawn},
                           [](std::string secret) {
                             for (const char* file : {"/proc/self/cmdline",
                                                      "/proc/self/environ"}) {
                               std::string text;
                               FILE* in = fopen(file, "re");
                               for (int c; (c = getc(in)) != EOF;) {
                                 text.push_back(static_cast<char>(c));
                               }
                               fclose(in);
                               if (text.find(secret) != std::string::npos)
                                 return 1;
                             }
                             return 0;
                           },
                           secret));
  EXPECT_EQ(MustJoin(process).code, 0);
}

TEST_F(SpawnTest, StartsWhileOtherThreadsRun) {
  constexpr int kThreads = 4;
  // The malloc() of the address sanitizer is no libc's: its locks are not taken
  // by fork(), so a copy finds one held for ever if a thread held it then.
  const bool may_fork = &__asan_init == nullptr;
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&good, may_fork, i] {
      for (int round = 0; round < 10; ++round) {
        ProcessOptions options;
        options.start_method = (i + round) % 2 == 0 || !may_fork
                                   ? StartMethod::kSpawn
                                   : StartMethod::kFork;
        options.allow_threads = true;
        options.lifetime = Lifetime::kDieWithParent;
        absl::StatusOr<Process> process =
            Process::Start(options, Return, 40 + i);
        if (!process.ok()) continue;
        absl::StatusOr<ExitStatus> end = process->Join();
        good += end.ok() && end->code == 40 + i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kThreads * 10);
}

// A child belongs to its parent process, not to the thread that started it.
TEST_F(SpawnTest, ChildOutlivesTheThreadThatStartedIt) {
  Line line = MakeLine();
  absl::StatusOr<Process> process = absl::UnknownError("");
  std::thread([&] {
    process = Process::Start({.lifetime = Lifetime::kDieWithParent}, Serve,
                             std::move(line.there));
  }).join();
  ASSERT_OK(process);
  EXPECT_EQ(Hear(line.here), "here");
  EXPECT_TRUE(process->is_alive());
  Say(line.here, "end");
  EXPECT_TRUE(MustJoin(*process).ok());
}

TEST_F(SpawnTest, DefaultMethodAndOptions) {
  ASSERT_OK_AND_ASSIGN(Process process, Process::Start(Return, 5));
  EXPECT_EQ(MustJoin(process).code, 5);
}

int Descend(int depth) {
  if (depth == 0) return 0;
  absl::StatusOr<Process> child = Process::Start(Descend, depth - 1);
  if (!child.ok()) return 100;
  absl::StatusOr<ExitStatus> end = child->Join();
  return end.ok() && end->ok() ? 0 : 101;
}

TEST_F(SpawnTest, ChildrenHaveChildren) {
  ASSERT_OK_AND_ASSIGN(Process process, Process::Start(Descend, 4));
  EXPECT_EQ(MustJoin(process).code, 0);
}

TEST_F(SpawnTest, GrandchildrenAreNamedAfterTheirParent) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(Process process,
                       Process::Start(
                           {.name = "ingest"},
                           [](os::Descriptor line) {
                             absl::StatusOr<Process> child =
                                 Process::Start(TellName, std::move(line));
                             return child.ok() && child->Join().ok() ? 0 : 1;
                           },
                           std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "ingest:1");
  EXPECT_EQ(MustJoin(process).code, 0);
}

TEST_F(SpawnTest, LeavesByExit) {
  Line line = MakeLine();
  ASSERT_OK_AND_ASSIGN(Process process,
                       Process::Start(
                           [](os::Descriptor line) {
                             static os::Descriptor kept;
                             kept = std::move(line);
                             std::atexit([] { Say(kept, "handler ran"); });
                           },
                           std::move(line.there)));
  EXPECT_EQ(Hear(line.here), "handler ran");
  EXPECT_TRUE(MustJoin(process).ok());
}

// Fork alone. -----------------------------------------------------------------

class ForkTest : public ::testing::Test {
  LeakGuard guard_;
};

TEST_F(ForkTest, RefusedBesideOtherThreadsUnlessAsked) {
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) std::this_thread::yield();
  });
  ProcessOptions options;
  options.start_method = StartMethod::kFork;
  EXPECT_THAT(Process::Start(options, Nothing),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("other threads")));
  options.allow_threads = true;
  absl::StatusOr<Process> process = Process::Start(options, Return, 4);
  EXPECT_OK(process);
  if (process.ok()) {
    EXPECT_EQ(MustJoin(*process).code, 4);
  }
  stop = true;
  other.join();
  options.allow_threads = false;
  ASSERT_OK_AND_ASSIGN(Process alone, Process::Start(options, Nothing));
  EXPECT_TRUE(MustJoin(alone).ok());
}

int in_memory = 1;

TEST_F(ForkTest, SeesTheParentsMemoryAsItWas) {
  in_memory = 23;
  ASSERT_OK_AND_ASSIGN(Process process,
                       Process::Start({.start_method = StartMethod::kFork},
                                      [] { return in_memory; }));
  in_memory = 1;
  EXPECT_EQ(MustJoin(process).code, 23);
}

TEST_F(ForkTest, RunsNoHandlerOfTheParent) {
  Line line = MakeLine();
  static os::Descriptor* const kept = new os::Descriptor;
  *kept = std::move(line.there);
  std::atexit([] {
    if (kept->valid()) Say(*kept, "handler ran");
  });
  ASSERT_OK_AND_ASSIGN(
      Process process,
      Process::Start({.start_method = StartMethod::kFork}, Nothing));
  EXPECT_TRUE(MustJoin(process).ok());
  kept->Reset();
  EXPECT_THAT(line.here, IsHangUp());
}

}  // namespace
}  // namespace cohort
