// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/file_list.h"

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "cohort/examples/file_counter.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ListFilesTest : public ::testing::Test {
 protected:
  ListFilesTest() { std::filesystem::create_directories(root_ + "/sub"); }
  ~ListFilesTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& name, std::string_view text) const {
    std::ofstream(root_ + "/" + name) << text;
  }
  void Link(const std::string& to, const std::string& name) const {
    std::filesystem::create_symlink(to, root_ + "/" + name);
  }
  static std::vector<std::string> Paths(const FileList& list) {
    std::vector<std::string> paths;
    for (const ListedFile& file : list.files) paths.push_back(file.path);
    return paths;
  }

  const std::string root_ = ::testing::TempDir() + "/file_list_test_tree";
};

TEST_F(ListFilesTest, WalksFoldersByName) {
  Write("b", "12");
  Write("a", "");
  Write("sub/c", "123");
  const FileList list = ListFiles({root_});
  EXPECT_THAT(Paths(list),
              ElementsAre(root_ + "/a", root_ + "/b", root_ + "/sub/c"));
  EXPECT_EQ(list.files[2].size, 3u);
  EXPECT_THAT(list.notes, IsEmpty());
  EXPECT_THAT(list.errors, IsEmpty());
  EXPECT_THAT(Paths(ListFiles({root_ + "/sub/"})),
              ElementsAre(root_ + "/sub/c"));
}

TEST_F(ListFilesTest, MissingAndDanglingAreErrors) {
  Link("nothing", "dangling");
  Write("sub/c", "");
  const FileList list = ListFiles({root_ + "/missing", root_});
  EXPECT_THAT(list.errors,
              ElementsAre(root_ + "/missing: No such file or directory",
                          root_ + "/dangling: No such file or directory"));
  EXPECT_THAT(Paths(list), ElementsAre(root_ + "/sub/c"));
}

TEST_F(ListFilesTest, LoopsOfLinksAreErrors) {
  Write("a", "");
  Link("..", "sub/up");
  Link("self", "self");
  const FileList list = ListFiles({root_});
  EXPECT_THAT(
      list.errors,
      ElementsAre(root_ + "/self: Too many levels of symbolic links",
                  root_ + "/sub/up: symbolic link to a folder that it lies "
                          "in, not followed"));
  EXPECT_THAT(Paths(list), ElementsAre(root_ + "/a"));
}

TEST_F(ListFilesTest, WhatIsReachedTwiceIsListedOnce) {
  Write("a", "");
  Write("sub/c", "");
  Link("a", "b");
  Link("sub", "twin");
  const FileList list = ListFiles({root_ + "/sub", root_, root_ + "/a"});
  EXPECT_THAT(Paths(list), ElementsAre(root_ + "/sub/c", root_ + "/a"));
  EXPECT_THAT(list.errors, IsEmpty());
}

TEST_F(ListFilesTest, WhatHoldsNoTextIsNoted) {
  ASSERT_EQ(mkfifo((root_ + "/fifo").c_str(), 0600), 0);
  FileList list = ListFiles({root_});
  EXPECT_THAT(list.notes,
              ElementsAre(root_ + "/fifo: neither a file nor a folder, not "
                                  "counted",
                          root_ + "/sub: empty folder"));
  EXPECT_THAT(list.errors, IsEmpty());
  list = ListFiles({root_ + "/fifo"});
  EXPECT_THAT(list.errors,
              ElementsAre(root_ + "/fifo: neither a file nor a folder"));
}

// The parts of each file follow each other from 0 to its end.
void ExpectWhole(const std::vector<ListedFile>& files,
                 const std::vector<Batch>& batches) {
  size_t file = 0;
  uint64_t next = 0;
  for (const Batch& batch : batches) {
    EXPECT_THAT(batch, ::testing::Not(IsEmpty()));
    for (const FilePart& part : batch) {
      ASSERT_LT(file, files.size());
      EXPECT_EQ(part.path, files[file].path);
      EXPECT_EQ(part.begin, next);
      EXPECT_GT(part.end, part.begin);
      next = part.end;
      if (part.end == FilePart::kToTheEnd) {
        ++file;
        next = 0;
      }
    }
  }
  EXPECT_EQ(file, files.size());
  EXPECT_EQ(next, 0u);
}

TEST(MakeBatchesTest, SmallFilesTravelTogether) {
  const std::vector<ListedFile> files(100, {.path = "small", .size = 1000});
  const std::vector<Batch> batches = MakeBatches(files, 100'000);
  ExpectWhole(files, batches);
  EXPECT_THAT(batches, SizeIs(2));  // Each file costs something besides.
}

TEST(MakeBatchesTest, LargeFilesAreDivided) {
  const std::vector<ListedFile> files = {
      {"a", 10}, {"large", 1'000'000}, {"b", 10}, {"exact", 100'000}};
  const std::vector<Batch> batches = MakeBatches(files, 100'000);
  ExpectWhole(files, batches);
  EXPECT_GE(batches.size(), 10u);
  EXPECT_LE(batches.size(), 13u);
}

TEST(MakeBatchesTest, EmptyFilesAreSentToo) {
  const std::vector<ListedFile> files(3, {.path = "empty", .size = 0});
  ExpectWhole(files, MakeBatches(files, 1024));
  EXPECT_THAT(MakeBatches({}, 1024), IsEmpty());
}

}  // namespace
}  // namespace cohort_examples
