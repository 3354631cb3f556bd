// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/python.h"

#include <csignal>
#include <string>

#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using ::testing::HasSubstr;

TEST(PythonTest, RunsStatementsAndExpressionsInOneModule) {
  const LeakGuard guard;
  Python python;
  EXPECT_TRUE(python.Run("x = 1\ndef twice(y):\n  return 2 * y\n"));
  EXPECT_TRUE(python.Run("x = twice(x) + 1"));
  EXPECT_EQ(python.Eval("x"), "3");
  EXPECT_EQ(python.Eval("'grüße'"), "'grüße'");
  EXPECT_EQ(python.Eval("'x' * 100000").size(), 100'002u);
}

TEST(PythonTest, ShowsWhatItRaises) {
  Python python;
  const ::testing::AssertionResult result = python.Run("x = 1\ny = x['a']");
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message(), HasSubstr("line 2"));
  EXPECT_THAT(result.message(), HasSubstr("TypeError: 'int'"));
  EXPECT_EQ(python.Eval("{}['a']"), "KeyError: 'a'");
  EXPECT_EQ(python.Eval("1 + 1"), "2");  // It goes on.
}

TEST(PythonTest, EndsAsAScriptDoes) {
  Python python;
  EXPECT_TRUE(python.Run("import atexit, os\natexit.register(os._exit, 7)"));
  EXPECT_EQ(python.Exit(), Exited(7));
  EXPECT_EQ(Python().Exit(), Exited(0));
}

TEST(PythonTest, SaysThatItIsGone) {
  Python python;
  python.process().Kill(SIGKILL);
  EXPECT_EQ(python.process().Wait(), KilledBy(SIGKILL));
  EXPECT_FALSE(python.Run("pass"));
  EXPECT_THAT(python.Eval("1"), HasSubstr("python is gone"));
}

TEST(PythonTest, LiteralsAreReadBackAsTheyWere) {
  Python python;
  EXPECT_EQ(python.Eval("len(" + PythonLiteral("a'b\\n\n\"") + ")"), "7");
}

TEST(UniqueShmNameTest, IsAnotherEachTime) {
  EXPECT_NE(UniqueShmName(), UniqueShmName());
  EXPECT_THAT(UniqueShmName(), HasSubstr("cohort"));
}

}  // namespace
}  // namespace cohort_testing
