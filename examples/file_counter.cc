// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/file_counter.h"

#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

namespace cohort_examples {
namespace {

constexpr size_t kProbe = size_t{8} << 10;    // Where a NUL byte means binary.
constexpr size_t kBlock = size_t{256} << 10;  // Read at a time.

struct CloseFile {
  void operator()(std::FILE* file) const { (void)std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

// The first byte at or after `from` that is in no word.
size_t SkipWord(std::string_view text, size_t from) {
  while (from < text.size() && IsWordByte(text[from])) ++from;
  return from;
}

}  // namespace

void BatchCount::AddTo(WordCounts& total) const {
  std::string_view left = words;
  for (const uint64_t count : counts) {
    const size_t length = left.find('\n');
    total.Add(left.substr(0, length), count);
    left.remove_prefix(length + 1);
  }
}

void FileCounter::Count(const FilePart& part) {
  const File file(std::fopen(part.path.c_str(), "rbe"));
  if (file != nullptr) {
    (void)std::setvbuf(file.get(), nullptr, _IONBF, 0);
    CountOpen(file.get(), part);
  }
  if (file == nullptr || std::ferror(file.get()) != 0) {
    rest_.errors.push_back(part.path + ": " + std::strerror(errno));
  }
}

void FileCounter::CountOpen(std::FILE* file, const FilePart& part) {
  filled_ = 0;
  ReadMore(file, part.begin > 0 ? kProbe : kBlock);
  if (std::memchr(buffer_.data(), 0, std::min(filled_, kProbe)) != nullptr) {
    if (part.begin == 0) {
      rest_.notes.push_back(part.path + ": binary file, not counted");
    }
    return;
  }
  uint64_t offset = 0;  // In the file, of buffer_[0].
  bool skipping = part.begin > 0;
  if (skipping) {
    // From one byte earlier, to see whether a word runs into this part. That
    // one belongs to the part before.
    offset = part.begin - 1;
    if (fseeko(file, static_cast<off_t>(offset), SEEK_SET) != 0) return;
    filled_ = 0;
    ReadMore(file, kBlock);
  }
  for (bool last = false; !last;) {
    const std::string_view text(buffer_.data(), filled_);
    const bool at_end = std::feof(file) != 0 || std::ferror(file) != 0;
    size_t from = 0;
    if (skipping) {
      from = SkipWord(text, 0);
      skipping = from == text.size();
    }
    // Words before `cut` are whole and begin in the part.
    size_t cut = text.size();
    if (part.end <= offset + text.size()) {
      cut = std::max(from, static_cast<size_t>(part.end - 1 - offset));
      if (!skipping) cut = SkipWord(text, cut);
      last = skipping || cut < text.size();
    }
    last = last || at_end;
    if (!last) {
      while (cut > from && IsWordByte(text[cut - 1])) --cut;
    }
    CountWords(text.substr(from, cut - from), words_);
    if (last) break;
    std::memmove(buffer_.data(), buffer_.data() + cut, filled_ - cut);
    filled_ -= cut;
    offset += cut;
    // Twice as much for a word that fills it, lest that be looked at too often.
    ReadMore(file, std::max(kBlock, filled_));
  }
  const uint64_t end = std::min(part.end, offset + filled_);
  if (end > part.begin) rest_.bytes += end - part.begin;
  if (part.begin == 0 && std::ferror(file) == 0) ++rest_.files;
}

void FileCounter::ReadMore(std::FILE* file, size_t most) {
  if (buffer_.size() < filled_ + most) buffer_.resize(filled_ + most);
  filled_ += std::fread(buffer_.data() + filled_, 1, most, file);
}

BatchCount FileCounter::Finish() && {
  rest_.counts.reserve(words_.table().size());
  for (const auto& [word, times] : words_.table()) {
    rest_.words.append(word).push_back('\n');
    rest_.counts.push_back(times);
  }
  return std::move(rest_);
}

BatchCount CountBatch(const Batch& batch) {
  FileCounter counter;
  for (const FilePart& part : batch) counter.Count(part);
  return std::move(counter).Finish();
}

}  // namespace cohort_examples
