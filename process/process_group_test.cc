// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/process_group.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/socket.h"
#include "cohort/process/this_process.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::LeakGuard;
using ::cohort_testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

int Return(int code) { return code; }
void Sleep() {
  for (;;) pause();
}
// Says that it is there, and ends at a word from the other end.
void Serve(os::Descriptor line) {
  (void)os::SendMessage(line, "here", Deadline::Infinite());
  (void)os::ReceiveMessage(line, 16, 0, Deadline::Infinite());
}
void Withstand(os::Descriptor line) {
  std::signal(SIGTERM, SIG_IGN);
  Serve(std::move(line));
}
void DieAtAWord(os::Descriptor line) {
  Serve(std::move(line));
  raise(SIGKILL);
}
int CompareName(std::string expected) {
  return this_process::Name() == expected ? 0 : 1;
}
struct Trap {
  template <class Archive>
  void save(Archive& archive) const {
    archive(0);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive.Fail(absl::OutOfRangeError("a trap was decoded"));
  }
};
void Spring(Trap) {}

class ProcessGroupTest : public ::testing::TestWithParam<StartMethod> {
 protected:
  ProcessOptions Options(std::string name) const {
    ProcessOptions options;
    options.start_method = GetParam();
    options.name = std::move(name);
    return options;
  }

 private:
  LeakGuard guard_;
};

INSTANTIATE_TEST_SUITE_P(
    Methods, ProcessGroupTest,
    ::testing::Values(StartMethod::kSpawn, StartMethod::kFork),
    [](const ::testing::TestParamInfo<StartMethod>& method) {
      return method.param == StartMethod::kSpawn ? "Spawn" : "Fork";
    });

TEST_P(ProcessGroupTest, EmptyGroupIsWell) {
  ProcessGroup group;
  EXPECT_OK(group.Join());
  EXPECT_TRUE(group.processes().empty());
}

TEST_P(ProcessGroupTest, AllEndWell) {
  ProcessGroup group;
  for (int i = 0; i < 5; ++i) {
    const std::string name = absl::StrCat("w", i);
    group.Start(Options(name), CompareName, name);
  }
  EXPECT_OK(group.Join());
  ASSERT_EQ(group.processes().size(), 5);
  EXPECT_EQ(group.processes()[3].name(), "w3");
  for (Process& process : group.processes()) EXPECT_FALSE(process.is_alive());
  EXPECT_OK(group.Join()) << "joined twice";
}

TEST_P(ProcessGroupTest, NamesTheOneThatFailed) {
  ProcessGroup group;
  for (int i = 0; i < 5; ++i) {
    group.Start(Options(absl::StrCat("w", i)), Return, i == 3 ? 9 : 0);
  }
  ASSERT_EQ(group.processes().size(), 5);
  const absl::Status all = group.Join();
  EXPECT_THAT(
      all, StatusIs(absl::StatusCode::kAborted,
                    absl::StrCat("process w3 (pid ", group.processes()[3].pid(),
                                 ") exited with code 9")));
  EXPECT_EQ(group.Join(), all) << "the verdict stays";
}

TEST_P(ProcessGroupTest, TheFirstFailureCountsNotTheFirstStarted) {
  auto line = os::SocketPair();
  ASSERT_OK(line);
  ProcessGroup group;
  group.Start(Options("late"), DieAtAWord, std::move(line->second));
  group.Start(Options("early"), Return, 1);
  group.Start(Options("fine"), Return, 0);
  ASSERT_EQ(group.processes().size(), 3);
  // Until the failure of "early" has been seen, "late" runs.
  EXPECT_OK(group.processes()[1].Join());
  EXPECT_THAT(group.Join(absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_OK(os::SendMessage(line->first, "die", Deadline::Infinite()));
  EXPECT_THAT(group.Join(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("process early")));
}

TEST_P(ProcessGroupTest, FailedStartIsToldByJoin) {
  ProcessGroup group;
  group.Start(Options("good"), Return, 0);
  group.Start(Options("bad"), Spring, Trap());
  group.Start(Options("worse"), Return, 7);
  EXPECT_THAT(group.Join(), StatusIs(absl::StatusCode::kOutOfRange,
                                     AllOf(HasSubstr("process bad"),
                                           HasSubstr("a trap was decoded"))));
  EXPECT_EQ(group.processes().size(), 2);
}

TEST_P(ProcessGroupTest, TimeLimitNamesOneThatRuns) {
  ProcessGroup group;
  group.Start(Options("quick"), Return, 0);
  group.Start(Options("slow"), Sleep);
  EXPECT_OK(group.processes()[0].Join());
  EXPECT_THAT(
      group.Join(absl::Milliseconds(1)),
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("slow (pid ")));
  group.Terminate();
  EXPECT_THAT(group.Join(),
              StatusIs(absl::StatusCode::kAborted,
                       AllOf(HasSubstr("process slow"), HasSubstr("SIGTERM"))));
}

TEST_P(ProcessGroupTest, KillEndsAll) {
  ProcessGroup group;
  for (int i = 0; i < 3; ++i) group.Start(Options(""), Sleep);
  group.Kill();
  EXPECT_THAT(group.Join(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("SIGKILL")));
}

TEST_P(ProcessGroupTest, MoreCanBeStartedAfterJoin) {
  ProcessGroup group;
  group.Start(Options(""), Return, 0);
  EXPECT_OK(group.Join());
  group.Start(Options("second"), Return, 4);
  EXPECT_THAT(group.Join(), StatusIs(absl::StatusCode::kAborted,
                                     HasSubstr("process second")));
}

TEST_P(ProcessGroupTest, DefaultsHoldForStartsWithoutOptions) {
  ProcessGroup group(Options("same"));
  group.Start(CompareName, "same");
  EXPECT_OK(group.Join());
  EXPECT_EQ(group.processes()[0].name(), "same");
}

TEST_P(ProcessGroupTest, DestructorEndsWhatIsLeft) {
  std::vector<os::Descriptor> lines;
  {
    ProcessGroup group;
    for (int i = 0; i < 3; ++i) {
      auto line = os::SocketPair();
      ASSERT_OK(line);
      ProcessOptions options = Options("");
      options.grace = absl::Milliseconds(i == 1 ? 0 : 20);
      group.Start(options, Withstand, std::move(line->second));
      lines.push_back(std::move(line->first));
    }
    group.Start(Options("ended"), Return, 0);
    for (os::Descriptor& line : lines) {
      EXPECT_OK(os::ReceiveMessage(line, 16, 0, Deadline::Infinite()));
    }
  }
  for (os::Descriptor& line : lines) {
    EXPECT_THAT(os::ReceiveMessage(line, 16, 0, Deadline::Infinite()).status(),
                StatusIs(absl::StatusCode::kOutOfRange));
  }
}

TEST_P(ProcessGroupTest, CopyInAForkedProcessIsInert) {
  ProcessGroup group;
  group.Start(Options("child"), Sleep);
  const int copy = fork();
  if (copy == 0) {
    const bool refused = absl::IsFailedPrecondition(group.Join());
    group.Kill();
    group.~ProcessGroup();
    std::_Exit(refused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(copy, &status, 0), copy);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(group.processes()[0].is_alive());
}

}  // namespace
}  // namespace cohort
