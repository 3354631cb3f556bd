// SPDX-License-Identifier: Apache-2.0
//
// Matchers and assertions for `absl::Status` and `absl::StatusOr`.
//
//   EXPECT_OK(queue.Put(1));
//   ASSERT_OK_AND_ASSIGN(Region region, Region::Create(4096));
//   EXPECT_THAT(queue.Get(), IsOkAndHolds(1));
//   EXPECT_THAT(queue.Get(absl::ZeroDuration()),
//               StatusIs(absl::StatusCode::kDeadlineExceeded));
//   EXPECT_THAT(Region::Create(0), StatusIs(absl::StatusCode::kInvalidArgument,
//                                           HasSubstr("size")));
//
// They work with every Abseil. A recent one has matchers of the same names in
// `absl_testing`; the two can stand in one file.

#ifndef COHORT_TESTING_STATUS_MATCHERS_H_
#define COHORT_TESTING_STATUS_MATCHERS_H_

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace testing_internal {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// Arg is (a reference to) a Status or a StatusOr.
template <typename Arg>
class StatusIsImpl final : public ::testing::MatcherInterface<Arg> {
 public:
  StatusIsImpl(::testing::Matcher<absl::StatusCode> code,
               ::testing::Matcher<const std::string&> message)
      : code_(std::move(code)), message_(std::move(message)) {}

  void DescribeTo(std::ostream* out) const override {
    *out << "has a code that ";
    code_.DescribeTo(out);
    *out << " and a message that ";
    message_.DescribeTo(out);
  }

  bool MatchAndExplain(Arg arg,
                       ::testing::MatchResultListener* why) const override {
    const absl::Status& status = StatusOf(arg);
    *why << "which is " << status.ToString();
    return code_.Matches(status.code()) &&
           message_.Matches(std::string(status.message()));
  }

 private:
  ::testing::Matcher<absl::StatusCode> code_;
  ::testing::Matcher<const std::string&> message_;
};

class StatusIsMatcher final {
 public:
  StatusIsMatcher(::testing::Matcher<absl::StatusCode> code,
                  ::testing::Matcher<const std::string&> message)
      : code_(std::move(code)), message_(std::move(message)) {}

  template <typename Arg>
  operator ::testing::Matcher<Arg>() const {  // NOLINT: that is how gmock asks.
    return ::testing::Matcher<Arg>(
        new StatusIsImpl<const Arg&>(code_, message_));
  }

 private:
  ::testing::Matcher<absl::StatusCode> code_;
  ::testing::Matcher<const std::string&> message_;
};

template <typename Arg>
class HoldsImpl final : public ::testing::MatcherInterface<Arg> {
 public:
  using Value = typename std::remove_cvref_t<Arg>::value_type;

  template <typename Inner>
  explicit HoldsImpl(const Inner& inner)
      : inner_(::testing::SafeMatcherCast<const Value&>(inner)) {}

  void DescribeTo(std::ostream* out) const override {
    *out << "is OK and holds a value that ";
    inner_.DescribeTo(out);
  }

  bool MatchAndExplain(Arg arg,
                       ::testing::MatchResultListener* why) const override {
    if (!arg.ok()) {
      *why << "which is " << arg.status().ToString();
      return false;
    }
    *why << "which holds " << ::testing::PrintToString(*arg) << " ";
    return inner_.MatchAndExplain(*arg, why);
  }

 private:
  ::testing::Matcher<const Value&> inner_;
};

template <typename Inner>
class HoldsMatcher final {
 public:
  explicit HoldsMatcher(Inner inner) : inner_(std::move(inner)) {}

  template <typename Arg>
  operator ::testing::Matcher<Arg>() const {  // NOLINT: that is how gmock asks.
    return ::testing::Matcher<Arg>(new HoldsImpl<const Arg&>(inner_));
  }

 private:
  Inner inner_;
};

}  // namespace testing_internal

// Matches a Status or StatusOr with this code; the code may be a matcher too.
template <typename Code>
testing_internal::StatusIsMatcher StatusIs(Code&& code) {
  return {::testing::MatcherCast<absl::StatusCode>(std::forward<Code>(code)),
          ::testing::_};
}

// Likewise, and its message matches `message`, a string or a matcher of
// strings.
template <typename Code, typename Message>
testing_internal::StatusIsMatcher StatusIs(Code&& code, Message&& message) {
  return {::testing::MatcherCast<absl::StatusCode>(std::forward<Code>(code)),
          ::testing::MatcherCast<const std::string&>(
              std::forward<Message>(message))};
}

// Matches an OK Status, or a StatusOr that holds a value.
inline testing_internal::StatusIsMatcher IsOk() {
  return StatusIs(absl::StatusCode::kOk);
}

// Matches a StatusOr that holds a value which equals or matches `inner`.
template <typename Inner>
testing_internal::HoldsMatcher<std::decay_t<Inner>> IsOkAndHolds(
    Inner&& inner) {
  return testing_internal::HoldsMatcher<std::decay_t<Inner>>(
      std::forward<Inner>(inner));
}

}  // namespace cohort_testing

// Other libraries use these names with this meaning; the first one wins.
#ifndef EXPECT_OK
#define EXPECT_OK(expression) EXPECT_THAT(expression, ::cohort_testing::IsOk())
#endif
#ifndef ASSERT_OK
#define ASSERT_OK(expression) ASSERT_THAT(expression, ::cohort_testing::IsOk())
#endif

// ASSERT_OK_AND_ASSIGN(auto value, Compute()): declares or assigns `value` from
// a StatusOr; ends the test where it holds none. Put commas in parentheses.
#ifndef ASSERT_OK_AND_ASSIGN
#define ASSERT_OK_AND_ASSIGN(target, expression)                         \
  COHORT_TESTING_ASSIGN_(COHORT_TESTING_JOIN_(cohort_result_, __LINE__), \
                         target, expression)
#define COHORT_TESTING_ASSIGN_(result, target, expression) \
  auto result = (expression);                              \
  ASSERT_THAT(result, ::cohort_testing::IsOk());           \
  target = *std::move(result)
#define COHORT_TESTING_JOIN_(a, b) COHORT_TESTING_JOIN_AGAIN_(a, b)
#define COHORT_TESTING_JOIN_AGAIN_(a, b) a##b
#endif

#endif  // COHORT_TESTING_STATUS_MATCHERS_H_
