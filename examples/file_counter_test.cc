// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/file_counter.h"

#include <cstdint>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "cohort/examples/word_counter.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string WriteFile(std::string_view text) {
  const std::string path = ::testing::TempDir() + "/file_counter_test_file";
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  return path;
}

WordCounts Count(std::string_view text) {
  WordCounts counts;
  CountWords(text, counts);
  return counts;
}

// Counts `path` in parts that meet at `cuts`.
void ExpectSameInParts(const std::string& path, std::string_view text,
                       const std::vector<uint64_t>& cuts) {
  Batch batch;
  uint64_t begin = 0;
  for (const uint64_t cut : cuts) {
    batch.push_back({.path = path, .begin = begin, .end = cut});
    begin = cut;
  }
  batch.push_back({.path = path, .begin = begin});
  const BatchCount count = CountBatch(batch);
  WordCounts words;
  count.AddTo(words);
  EXPECT_TRUE(words == Count(text)) << ::testing::PrintToString(cuts);
  EXPECT_EQ(count.files, 1u);
  EXPECT_EQ(count.bytes, text.size());
  EXPECT_THAT(count.errors, IsEmpty());
  EXPECT_THAT(count.notes, IsEmpty());
}

TEST(FileCounterTest, PartsHaveEachWordOnce) {
  const std::string_view text = "ab  c d\n--efg h_i_j, \xc3\xa4 klm";
  const std::string path = WriteFile(text);
  for (uint64_t first = 1; first < text.size(); ++first) {
    ExpectSameInParts(path, text, {first});
    for (uint64_t second = first + 1; second < text.size(); ++second) {
      ExpectSameInParts(path, text, {first, second});
    }
  }
}

TEST(FileCounterTest, LargeFilesAreReadInBlocks) {
  std::minstd_rand random(1);
  std::string text;
  while (text.size() < 1'500'000) {
    text += std::string(random() % 12, static_cast<char>('a' + random() % 26));
    text += random() % 3 != 0 ? ' ' : '\n';
  }
  const std::string path = WriteFile(text);
  ExpectSameInParts(path, text, {});
  ExpectSameInParts(path, text, {262'143, 262'144, 262'145});
  for (int i = 0; i < 20; ++i) {
    const uint64_t cut = 1 + random() % (text.size() - 2);
    ExpectSameInParts(path, text, {cut, cut + 1});
  }
}

TEST(FileCounterTest, WordLongerThanABlock) {
  const std::string text =
      "before " + std::string(1'000'000, 'w') + " after after";
  const std::string path = WriteFile(text);
  ExpectSameInParts(path, text, {});
  ExpectSameInParts(path, text, {7, 300'000, 1'000'000, 1'000'008});
}

TEST(FileCounterTest, FileThatEndsBeforeAPart) {
  const std::string path = WriteFile("two words");
  const BatchCount count = CountBatch({{.path = path, .end = 100},
                                       {.path = path, .begin = 100, .end = 200},
                                       {.path = path, .begin = 200}});
  EXPECT_EQ(count.bytes, 9u);
  EXPECT_EQ(count.counts.size(), 2u);
  EXPECT_THAT(count.errors, IsEmpty());
}

TEST(FileCounterTest, EmptyFileIsAFile) {
  const BatchCount count = CountBatch({{.path = WriteFile("")}});
  EXPECT_EQ(count.files, 1u);
  EXPECT_EQ(count.bytes, 0u);
  EXPECT_THAT(count.counts, IsEmpty());
}

TEST(FileCounterTest, BinaryFileDoesNotCount) {
  std::string text(100'000, 'a');
  text[8191] = '\0';
  std::string path = WriteFile(text);
  const BatchCount count = CountBatch(
      {{.path = path, .end = 50'000}, {.path = path, .begin = 50'000}});
  EXPECT_EQ(count.files, 0u);
  EXPECT_EQ(count.bytes, 0u);
  EXPECT_THAT(count.counts, IsEmpty());
  EXPECT_THAT(count.errors, IsEmpty());
  EXPECT_THAT(count.notes, ElementsAre(path + ": binary file, not counted"));

  text[8191] = 'a';
  text[8192] = '\0';  // Too far behind to make it binary: it divides words.
  path = WriteFile(text);
  EXPECT_EQ(CountBatch({{.path = path}}).counts.size(), 2u);
}

TEST(FileCounterTest, WhatCannotBeReadIsTold) {
  const std::string readable = WriteFile("text");
  const BatchCount count =
      CountBatch({{.path = "/nowhere"},
                  {.path = readable},
                  {.path = "/proc/self/mem"},  // Opens, but reads fail at 0.
                  {.path = "/"}});
  EXPECT_EQ(count.files, 1u);
  EXPECT_THAT(count.errors, ElementsAre("/nowhere: No such file or directory",
                                        "/proc/self/mem: Input/output error",
                                        "/: Is a directory"));
}

}  // namespace
}  // namespace cohort_examples
