// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/include_tree.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(IncludeTreeTest, ReadsWhatACompilerPrints) {
  EXPECT_THAT(ParseSearchList("Using built-in specs.\n"
                              "#include \"...\" search starts here:\n"
                              " /quoted\n"
                              "#include <...> search starts here:\n"
                              " /usr/include/c++/12\n"
                              " /usr/include\n"
                              "End of search list.\n"
                              " /later\n"),
              ElementsAre("/usr/include/c++/12", "/usr/include"));
  EXPECT_THAT(ParseSearchList("c++: not found\n"), IsEmpty());
  EXPECT_THAT(ParseSearchList("#include <...> search starts here:\n /torn"),
              ElementsAre("/torn"));
}

TEST(IncludeTreeTest, KeepsTheOutermostFolders) {
  const std::string root =
      std::filesystem::canonical(::testing::TempDir()).string() +
      "/include_tree_test";
  std::filesystem::create_directories(root + "/a/inner");
  std::filesystem::create_directories(root + "/a+/inner");
  std::filesystem::create_directories(root + "/empty");
  std::ofstream(root + "/a/inner/x.h") << "x";
  EXPECT_THAT(
      OutermostFolders({root + "/a/inner/../inner", root + "/a", root + "/a+",
                        root + "/empty", root + "/missing",
                        root + "/a/inner/x.h", root + "/a"}),
      ElementsAre(root + "/a", root + "/a+"));
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace cohort_examples
