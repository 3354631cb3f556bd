// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/init.h"

#include <string>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/socket.h"
#include "cohort/os/spawn.h"
#include "cohort/process/internal/child.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

// Runs this program with the marker of a child and these descriptors.
os::ExitFacts RunAsChild(std::vector<int> descriptors) {
  os::SpawnRequest request;
  request.arguments = {"init_test", std::string(process_internal::kChildMarker),
                       "x"};
  request.descriptors = std::move(descriptors);
  absl::StatusOr<os::Child> child = os::Spawn(request);
  EXPECT_OK(child);
  EXPECT_OK(os::WaitPidfd(child->pidfd, Deadline::Infinite()));
  absl::StatusOr<os::ExitFacts> facts = os::ReapPidfd(child->pidfd);
  EXPECT_OK(facts);
  return *facts;
}

TEST(InitTest, LeavesTheArgumentsOfTheProgramAlone) {
  std::string program = "program";
  std::string flag = "--flag";
  std::vector<char*> words = {program.data(), flag.data(), nullptr};
  int argc = 2;
  char** argv = words.data();
  Init(argc, argv);
  EXPECT_EQ(argc, 2);
  EXPECT_EQ(argv, words.data());
  EXPECT_EQ(argv[1], flag);
  EXPECT_TRUE(process_internal::InitWasCalled());
  EXPECT_EQ(process_internal::ProgramName(), "program");
}

TEST(InitTest, MarkerByHandIsRefusedInOneLine) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(RunAsChild({}).code, 2);
  const std::string printed = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(printed, ::testing::HasSubstr("run the program without it"));
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), 1);
}

TEST(InitTest, DescriptorThatIsNoSocketIsRefused) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(RunAsChild({0}).code, 2);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("run the program without it"));
}

TEST(InitTest, MessagesThatNoParentSendsAreRefused) {
  for (const std::string& bytes :
       {std::string("x"), std::string(9000, 'x'), std::string(40, '\0'),
        std::string(40, '\xff')}) {
    auto ends = os::SocketPair();
    ASSERT_OK(ends);
    ASSERT_OK(os::SendMessage(ends->first, bytes, Deadline::Infinite()));
    ::testing::internal::CaptureStderr();
    const os::ExitFacts facts = RunAsChild({ends->second.get()});
    ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(facts.signal, 0);
    EXPECT_NE(facts.code, 0);
  }
}

TEST(InitTest, ChildOfADeadParentEndsQuietly) {
  auto ends = os::SocketPair();
  ASSERT_OK(ends);
  ends->first.Reset();
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(RunAsChild({ends->second.get()}).code, 1);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

// What a child says is read by a parent that does not trust it either.
TEST(ReportTest, TravelsWhole) {
  using process_internal::Report;
  const Report ended{Report::Kind::kEnded, absl::DataLossError("torn")};
  absl::StatusOr<Report> arrived =
      process_internal::DecodeReport(process_internal::EncodeReport(ended));
  ASSERT_OK(arrived);
  EXPECT_EQ(arrived->kind, Report::Kind::kEnded);
  EXPECT_EQ(arrived->status, ended.status);
}

TEST(ReportTest, IsCutToFit) {
  using process_internal::Report;
  absl::Status status = absl::DataLossError(std::string(1 << 20, 'm'));
  status.SetPayload("large", absl::Cord(std::string(1 << 20, 'p')));
  const std::string bytes =
      process_internal::EncodeReport({Report::Kind::kEnded, status});
  EXPECT_LE(bytes.size(), process_internal::kMostReportBytes);
  absl::StatusOr<Report> arrived = process_internal::DecodeReport(bytes);
  ASSERT_OK(arrived);
  EXPECT_THAT(arrived->status,
              cohort_testing::StatusIs(absl::StatusCode::kDataLoss,
                                       ::testing::HasSubstr("mmmm")));
}

TEST(ReportTest, OtherBytesAreDataLoss) {
  using process_internal::Report;
  const std::string whole = process_internal::EncodeReport(
      {Report::Kind::kEnded, absl::DataLossError("torn")});
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(process_internal::DecodeReport(whole.substr(0, size)).ok());
  }
  EXPECT_FALSE(process_internal::DecodeReport("z").ok());
  EXPECT_FALSE(process_internal::DecodeReport(whole + "x").ok());
}

}  // namespace
}  // namespace cohort
