// SPDX-License-Identifier: Apache-2.0
//
// `cohort_testing::RunAsOrdinaryUser` runs a function as a user whom the
// kernel's limits hold for. Most of them do not hold for root: how many
// descriptors may be under way in sockets, for one.
//
//   std::optional<End> end = RunAsOrdinaryUser([&] {
//     EXPECT_THAT(PutTooMany(), StatusIs(kDeadlineExceeded));
//   });
//   if (!end) GTEST_SKIP() << "this sandbox allows no change of the user";
//   EXPECT_EQ(*end, Exited(0));
//
// As a Child (testing/child.h), it may use EXPECT_ and ASSERT_, and returns int
// or void.

#ifndef COHORT_TESTING_ORDINARY_USER_H_
#define COHORT_TESTING_ORDINARY_USER_H_

#include <optional>
#include <type_traits>

#include "cohort/testing/child.h"

namespace cohort_testing {

// Turns this process into one of the user "nobody", without groups or
// capabilities, where it is root's. Returns false where that is refused.
bool BecomeOrdinaryUser();

// Runs `body` in a child that is not root, and says how it ended. Nothing where
// root's child may not become another user.
template <typename Body>
std::optional<End> RunAsOrdinaryUser(Body&& body) {
  constexpr int kRefused = 99;
  Child child = Child::Fork([&]() -> int {
    if (!BecomeOrdinaryUser()) return kRefused;
    if constexpr (std::is_void_v<std::invoke_result_t<Body&>>) {
      body();
      return 0;
    } else {
      return body();
    }
  });
  const End end = child.Wait();
  if (end == Exited(kRefused)) return std::nullopt;
  return end;
}

}  // namespace cohort_testing

#endif  // COHORT_TESTING_ORDINARY_USER_H_
