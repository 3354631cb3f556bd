// SPDX-License-Identifier: Apache-2.0
//
// Counting words in text, and the table that holds the counts.
//
//   WordCounts counts;
//   CountWords("to be or not to be", counts);
//   for (const auto& [word, count] : counts.Top(2)) ...   // be 2, to 2
//
// A word is a longest run of word bytes: ASCII letters, digits, underscores and
// all bytes above 127, so that UTF-8 letters stay whole. Case matters.

#ifndef COHORT_EXAMPLES_WORD_COUNTER_H_
#define COHORT_EXAMPLES_WORD_COUNTER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace cohort_examples {

bool IsWordByte(char byte);

// Mixes eight bytes at a time: most words are no longer.
struct WordHash {
  size_t operator()(std::string_view word) const {
    constexpr uint64_t kMix = 0x9ddfea08eb382d69;
    uint64_t hash = word.size();
    size_t at = 0;
    for (; at + 8 < word.size(); at += 8) {
      uint64_t eight;
      std::memcpy(&eight, word.data() + at, 8);
      hash = (hash ^ eight) * kMix;
      hash ^= hash >> 32;
    }
    uint64_t rest = 0;
    for (size_t i = word.size(); i > at; --i) {
      rest = rest << 8 | static_cast<unsigned char>(word[i - 1]);
    }
    hash = (hash ^ rest) * kMix;
    return hash ^ hash >> 32;
  }
};

class WordCounts final {
 public:
  using Table = absl::flat_hash_map<std::string_view, uint64_t, WordHash>;

  // Copies the word where it is new.
  void Add(std::string_view word, uint64_t count = 1) {
    if (auto known = table_.find(word); known != table_.end()) [[likely]] {
      known->second += count;
    } else {
      table_.emplace(Keep(word), count);
    }
    total_ += count;
  }

  [[nodiscard]] uint64_t total() const { return total_; }
  [[nodiscard]] const Table& table() const { return table_; }

  // The `most` most frequent words, equally frequent ones by the alphabet.
  [[nodiscard]] std::vector<std::pair<std::string_view, uint64_t>> Top(
      size_t most) const;

  friend bool operator==(const WordCounts& a, const WordCounts& b) {
    return a.table_ == b.table_;
  }

 private:
  std::string_view Keep(std::string_view word);

  Table table_;  // Its keys lie in `blocks_`.
  std::vector<std::unique_ptr<char[]>> blocks_;
  size_t left_ = 0;  // Bytes of the last block that are free.
  char* free_ = nullptr;
  uint64_t total_ = 0;
};

// Adds the words of `text`.
void CountWords(std::string_view text, WordCounts& counts);

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_WORD_COUNTER_H_
