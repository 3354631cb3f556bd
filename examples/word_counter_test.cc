// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/word_counter.h"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

WordCounts Count(std::string_view text) {
  WordCounts counts;
  CountWords(text, counts);
  return counts;
}

TEST(WordCounterTest, SplitsAtWhatIsInNoWord) {
  EXPECT_THAT(
      Count("int main() { return a_1+b2; }").table(),
      UnorderedElementsAre(Pair("int", 1), Pair("main", 1), Pair("return", 1),
                           Pair("a_1", 1), Pair("b2", 1)));
  EXPECT_THAT(Count("").table(), IsEmpty());
  EXPECT_THAT(Count(" \t\n.,;").table(), IsEmpty());
  EXPECT_THAT(Count("alone").table(), UnorderedElementsAre(Pair("alone", 1)));
}

TEST(WordCounterTest, Utf8LettersAreWordBytes) {
  EXPECT_THAT(
      Count("gr\xc3\xbc\xc3\x9f dich").table(),
      UnorderedElementsAre(Pair("gr\xc3\xbc\xc3\x9f", 1), Pair("dich", 1)));
}

TEST(WordCounterTest, EveryByteIsInWordsOrBetweenThem) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string_view ascii =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    const char c = static_cast<char>(byte);
    EXPECT_EQ(IsWordByte(c),
              byte > 127 || (ascii.find(c) != std::string_view::npos))
        << byte;
  }
}

TEST(WordCounterTest, WordsOfAllLengthsAreKeptApart) {
  std::map<std::string, uint64_t> expected;
  std::string text;
  for (size_t length = 1; length < 100; ++length) {
    for (const char last : {'a', 'b'}) {
      const std::string word = std::string(length - 1, 'x') + last;
      expected[word] = length;
      for (size_t i = 0; i < length; ++i) text += word + ' ';
    }
  }
  const WordCounts counts = Count(text);
  EXPECT_EQ((std::map<std::string, uint64_t>(counts.table().begin(),
                                             counts.table().end())),
            expected);
  EXPECT_EQ(counts.total(), 99u * 100u);
}

TEST(WordCounterTest, WordsOutliveTheText) {
  WordCounts counts;
  {
    std::string text = "gone " + std::string(100'000, 'g');
    CountWords(text, counts);
    text.assign(text.size(), '!');
  }
  EXPECT_THAT(counts.table(),
              UnorderedElementsAre(Pair("gone", 1),
                                   Pair(std::string(100'000, 'g'), 1)));
}

TEST(WordCounterTest, TopIsSortedByCountThenByWord) {
  const WordCounts counts = Count("b a c c d b c");
  EXPECT_THAT(counts.Top(3),
              ElementsAre(Pair("c", 3), Pair("b", 2), Pair("a", 1)));
  EXPECT_THAT(counts.Top(0), IsEmpty());
  EXPECT_EQ(counts.Top(20).size(), 4u);
}

TEST(WordCounterTest, EqualityIsOfWordsAndCounts) {
  EXPECT_TRUE(Count("a b a") == Count("b a a"));
  EXPECT_FALSE(Count("a b a") == Count("b a b"));
  EXPECT_FALSE(Count("a") == Count("a b"));
}

}  // namespace
}  // namespace cohort_examples
