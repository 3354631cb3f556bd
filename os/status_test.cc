// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/status.h"

#include <cerrno>

#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ErrnoStatusTest, NamesTheCallTheObjectAndTheMend) {
  const absl::Status status = ErrnoStatus(EMFILE, "memfd_create", "queue");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               StartsWith("memfd_create(queue): ")));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("ulimit -n")));
}

TEST(ErrnoStatusTest, TheCodeTellsAProgramWhatToDo) {
  const struct {
    int error;
    absl::StatusCode code;
  } kCases[] = {
      {ENOMEM, absl::StatusCode::kResourceExhausted},
      {ENOSPC, absl::StatusCode::kResourceExhausted},
      {EAGAIN, absl::StatusCode::kResourceExhausted},
      {EPERM, absl::StatusCode::kPermissionDenied},
      {ENOENT, absl::StatusCode::kNotFound},
      {EEXIST, absl::StatusCode::kAlreadyExists},
      {EPIPE, absl::StatusCode::kUnavailable},
      {ETIMEDOUT, absl::StatusCode::kDeadlineExceeded},
      {ENOSYS, absl::StatusCode::kUnimplemented},
      {EINVAL, absl::StatusCode::kInvalidArgument},
      {EIO, absl::StatusCode::kInternal},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(ErrnoStatus(c.error, "call", "object").code(), c.code)
        << "errno " << c.error;
  }
}

}  // namespace
}  // namespace cohort::os
