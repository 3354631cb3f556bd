// SPDX-License-Identifier: Apache-2.0

#include <cstdio>
#include <string>

#include "gtest/gtest.h"

namespace {

TEST(HelloTest, PrintsSquaresAndAGreeting) {
  std::FILE* const program = popen("examples/hello", "r");
  ASSERT_NE(program, nullptr);
  std::string out;
  for (int c; (c = std::fgetc(program)) != EOF;) out += static_cast<char>(c);
  EXPECT_EQ(pclose(program), 0);
  EXPECT_EQ(out, "1\n4\n9\nhello world\n");
}

}  // namespace
