// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/exit_status.h"

#include <csignal>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/types/optional.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::StatusIs;

std::string Payload(const absl::Status& status) {
  absl::optional<absl::Cord> payload =
      status.GetPayload(std::string(kExitStatusPayload));
  return payload.has_value() ? std::string(*payload) : "none";
}

TEST(ExitStatusTest, SuccessIsOk) {
  const ExitStatus end{.name = "ingest", .pid = 7};
  EXPECT_TRUE(end.ok());
  EXPECT_OK(end.ToStatus());
  EXPECT_EQ(end.ToString(), "process ingest (pid 7) exited with code 0");
}

TEST(ExitStatusTest, CodeIsAborted) {
  const ExitStatus end{.code = 3, .name = "ingest", .pid = 7};
  EXPECT_FALSE(end.ok());
  EXPECT_THAT(end.ToStatus(),
              StatusIs(absl::StatusCode::kAborted,
                       "process ingest (pid 7) exited with code 3"));
  EXPECT_EQ(Payload(end.ToStatus()), "name=ingest pid=7 code=3 signal=0");
}

TEST(ExitStatusTest, SignalIsAbortedAndNamed) {
  const ExitStatus end{
      .signal = SIGSEGV, .core_dumped = true, .name = "ingest", .pid = 7};
  EXPECT_FALSE(end.ok());
  EXPECT_THAT(end.ToStatus(),
              StatusIs(absl::StatusCode::kAborted,
                       "process ingest (pid 7) was killed by signal 11 "
                       "(SIGSEGV), core dumped"));
  EXPECT_EQ(Payload(end.ToStatus()), "name=ingest pid=7 code=0 signal=11");
}

TEST(ExitStatusTest, SignalWithoutAName) {
  const ExitStatus end{.signal = 40, .name = "ingest", .pid = 7};
  EXPECT_EQ(end.ToString(), "process ingest (pid 7) was killed by signal 40");
}

TEST(ExitStatusTest, StatusOfTheFunctionKeepsCodeAndPayloads) {
  ExitStatus end{.code = 1,
                 .status = absl::NotFoundError("no such shard"),
                 .name = "ingest",
                 .pid = 7};
  end.status.SetPayload("shard", absl::Cord("12"));
  EXPECT_THAT(end.ToStatus(),
              StatusIs(absl::StatusCode::kNotFound,
                       "process ingest (pid 7): no such shard"));
  EXPECT_EQ(end.ToStatus().GetPayload("shard"), absl::Cord("12"));
  EXPECT_EQ(Payload(end.ToStatus()), "name=ingest pid=7 code=1 signal=0");
}

TEST(ExitStatusTest, SignalAfterAFailureIsTheNews) {
  const ExitStatus end{.signal = SIGABRT,
                       .status = absl::NotFoundError("no such shard"),
                       .name = "ingest",
                       .pid = 7};
  EXPECT_THAT(end.ToStatus(),
              StatusIs(absl::StatusCode::kAborted,
                       "process ingest (pid 7) was killed by signal 6 "
                       "(SIGABRT): NOT_FOUND: no such shard"));
}

TEST(ExitStatusTest, Prints) {
  std::ostringstream out;
  out << ExitStatus{.code = 2, .name = "a", .pid = 5};
  EXPECT_EQ(out.str(), "process a (pid 5) exited with code 2");
}

}  // namespace
}  // namespace cohort
