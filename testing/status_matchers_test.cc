// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/status_matchers.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pointee;

const absl::Status kNoFile = absl::NotFoundError("no such file");

TEST(StatusMatchersTest, IsOkMatchesStatusAndStatusOr) {
  EXPECT_THAT(absl::OkStatus(), IsOk());
  EXPECT_THAT(kNoFile, Not(IsOk()));
  EXPECT_THAT(absl::StatusOr<int>(1), IsOk());
  EXPECT_THAT(absl::StatusOr<int>(kNoFile), Not(IsOk()));
}

TEST(StatusMatchersTest, StatusIsLooksAtCodeAndMessage) {
  EXPECT_THAT(kNoFile, StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(kNoFile, StatusIs(absl::StatusCode::kNotFound, "no such file"));
  EXPECT_THAT(kNoFile, StatusIs(AnyOf(absl::StatusCode::kNotFound,
                                      absl::StatusCode::kUnknown),
                                HasSubstr("such")));
  EXPECT_THAT(kNoFile, Not(StatusIs(absl::StatusCode::kAborted)));
  EXPECT_THAT(kNoFile,
              Not(StatusIs(absl::StatusCode::kNotFound, HasSubstr("x"))));
  EXPECT_THAT(absl::StatusOr<std::unique_ptr<int>>(kNoFile),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST(StatusMatchersTest, IsOkAndHoldsLooksAtTheValue) {
  EXPECT_THAT(absl::StatusOr<int>(3), IsOkAndHolds(3));
  EXPECT_THAT(absl::StatusOr<int>(3), IsOkAndHolds(Gt(2)));
  EXPECT_THAT(absl::StatusOr<int>(3), Not(IsOkAndHolds(4)));
  EXPECT_THAT(absl::StatusOr<int>(kNoFile), Not(IsOkAndHolds(3)));
  EXPECT_THAT(absl::StatusOr<std::string>("text"), IsOkAndHolds("text"));
  EXPECT_THAT(absl::StatusOr<std::vector<int>>({1, 2}),
              IsOkAndHolds(ElementsAre(1, 2)));
  EXPECT_THAT(absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(5)),
              IsOkAndHolds(Pointee(5)));
}

TEST(StatusMatchersTest, AssertOkAndAssignDeclaresAndAssigns) {
  ASSERT_OK_AND_ASSIGN(const int one, absl::StatusOr<int>(1));
  EXPECT_EQ(one, 1);
  std::unique_ptr<int> two;
  ASSERT_OK_AND_ASSIGN(
      two, absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(2)));
  EXPECT_THAT(two, Pointee(2));
}

TEST(StatusMatchersTest, ExpectAndAssertPass) {
  EXPECT_OK(absl::OkStatus());
  ASSERT_OK(absl::StatusOr<int>(1));
}

TEST(StatusMatchersTest, FailuresNameTheStatus) {
  EXPECT_NONFATAL_FAILURE(EXPECT_OK(kNoFile), "NOT_FOUND: no such file");
  EXPECT_FATAL_FAILURE(
      {
        ASSERT_OK_AND_ASSIGN(int x, absl::StatusOr<int>(kNoFile));
        (void)x;
      },
      "NOT_FOUND: no such file");
  EXPECT_NONFATAL_FAILURE(EXPECT_THAT(absl::StatusOr<int>(3), IsOkAndHolds(4)),
                          "which holds 3");
}

}  // namespace
}  // namespace cohort_testing
