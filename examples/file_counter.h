// SPDX-License-Identifier: Apache-2.0
//
// The work of one call of the pool: counts the words of some files, or of parts
// of large ones.
//
//   BatchCount count = CountBatch({{.path = "a.txt"}, {.path = "b.txt"}});
//   count.AddTo(total);
//
// What is read counts, also of a file that has changed since it was listed. A
// file with a NUL byte among its first 8 KiB is binary and does not count.

#ifndef COHORT_EXAMPLES_FILE_COUNTER_H_
#define COHORT_EXAMPLES_FILE_COUNTER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "cohort/examples/word_counter.h"

namespace cohort_examples {

// The words that begin in [begin, end) of a file. Parts that cover the file
// without overlap have all its words, each once.
struct FilePart {
  static constexpr uint64_t kToTheEnd = std::numeric_limits<uint64_t>::max();

  std::string path;
  uint64_t begin = 0;
  uint64_t end = kToTheEnd;

  template <typename Archive>
  void serialize(Archive& archive) {
    archive(path, begin, end);
  }
};
using Batch = std::vector<FilePart>;

// What a worker sends back.
struct BatchCount {
  uint64_t files = 0;  // A file in parts counts in its first.
  uint64_t bytes = 0;
  std::string words;                // Each followed by a newline,
  std::vector<uint64_t> counts;     // and how often each was seen.
  std::vector<std::string> notes;   // "PATH: why", of what was left out,
  std::vector<std::string> errors;  // and of what could not be read.

  template <typename Archive>
  void serialize(Archive& archive) {
    archive(files, bytes, words, counts, notes, errors);
  }

  void AddTo(WordCounts& total) const;
};

// Counts parts, one after the other.
class FileCounter final {
 public:
  void Count(const FilePart& part);

  [[nodiscard]] const WordCounts& words() const { return words_; }
  // All but the words.
  [[nodiscard]] const BatchCount& rest() const { return rest_; }

  // All that was counted, ready to be sent.
  [[nodiscard]] BatchCount Finish() &&;

 private:
  void CountOpen(std::FILE* file, const FilePart& part);
  void ReadMore(std::FILE* file, size_t most);

  WordCounts words_;
  BatchCount rest_;
  std::vector<char> buffer_;
  size_t filled_ = 0;  // Of `buffer_`.
};

BatchCount CountBatch(const Batch& batch);

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_FILE_COUNTER_H_
