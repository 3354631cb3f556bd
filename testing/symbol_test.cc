// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/symbol.h"

#include <unistd.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

[[gnu::noinline]] int HiddenFunction(int x) {
  asm volatile("");
  return x + 1;
}

TEST(SymbolTest, NamesAFunctionOfThisFile) {
  const auto address = reinterpret_cast<uintptr_t>(&HiddenFunction);
  EXPECT_THAT(SymbolAt(address), HasSubstr("HiddenFunction(int)"));
  EXPECT_THAT(SymbolAt(address), EndsWith("+0x0"));
  EXPECT_THAT(SymbolAt(address + 1), EndsWith("+0x1"));
  EXPECT_EQ(HiddenFunction(1), 2);
}

TEST(SymbolTest, NamesAFunctionOfTheCLibrary) {
  // Reached through a pointer that the linker fills in, and perhaps an alias.
  EXPECT_THAT(SymbolAt(reinterpret_cast<uintptr_t>(&getpid)),
              HasSubstr("getpid"));
}

TEST(SymbolTest, SaysWhereWithoutAName) {
  const int on_the_stack = 0;
  EXPECT_THAT(SymbolAt(reinterpret_cast<uintptr_t>(&on_the_stack)),
              StartsWith("?+0x"));
}

}  // namespace
}  // namespace cohort_testing
