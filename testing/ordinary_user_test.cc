// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/ordinary_user.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <optional>

#include "cohort/testing/child.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

TEST(OrdinaryUserTest, HasNoPowers) {
  const std::optional<End> end = RunAsOrdinaryUser([] {
    EXPECT_NE(geteuid(), 0u);
    EXPECT_NE(setuid(0), 0) << "the way back is open";
    rlimit limit;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max != RLIM_INFINITY) {
      ++limit.rlim_max;
      EXPECT_NE(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    // What is its own stays so.
    EXPECT_GE(open("/proc/self/mem", O_RDWR | O_CLOEXEC), 0);
  });
  if (!end) GTEST_SKIP() << "this sandbox allows no change of the user";
  EXPECT_EQ(*end, Exited(0));
}

TEST(OrdinaryUserTest, SaysHowItEnded) {
  const std::optional<End> end = RunAsOrdinaryUser([] { return 7; });
  if (!end) GTEST_SKIP() << "this sandbox allows no change of the user";
  EXPECT_EQ(*end, Exited(7));
}

}  // namespace
}  // namespace cohort_testing
