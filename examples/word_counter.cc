// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/word_counter.h"

#include <algorithm>
#include <array>

namespace cohort_examples {
namespace {

constexpr std::array<bool, 256> MakeWordBytes() {
  std::array<bool, 256> is_word = {};
  for (int byte = 0; byte < 256; ++byte) {
    is_word[byte] = (byte >= 'a' && byte <= 'z') ||
                    (byte >= 'A' && byte <= 'Z') ||
                    (byte >= '0' && byte <= '9') || byte == '_' || byte > 127;
  }
  return is_word;
}
constexpr std::array<bool, 256> kWordBytes = MakeWordBytes();

constexpr size_t kBlock = size_t{64} << 10;

}  // namespace

bool IsWordByte(char byte) {
  return kWordBytes[static_cast<unsigned char>(byte)];
}

void CountWords(std::string_view text, WordCounts& counts) {
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    while (at != end && !IsWordByte(*at)) ++at;
    if (at == end) return;
    const char* const word = at;
    while (at != end && IsWordByte(*at)) ++at;
    counts.Add({word, static_cast<size_t>(at - word)});
  }
}

std::vector<std::pair<std::string_view, uint64_t>> WordCounts::Top(
    size_t most) const {
  std::vector<std::pair<std::string_view, uint64_t>> top(table_.begin(),
                                                         table_.end());
  most = std::min(most, top.size());
  std::partial_sort(top.begin(), top.begin() + static_cast<ptrdiff_t>(most),
                    top.end(), [](const auto& a, const auto& b) {
                      return a.second != b.second ? a.second > b.second
                                                  : a.first < b.first;
                    });
  top.resize(most);
  return top;
}

std::string_view WordCounts::Keep(std::string_view word) {
  if (word.size() > left_) {
    left_ = std::max(kBlock, word.size());
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(left_));
    free_ = blocks_.back().get();
  }
  std::memcpy(free_, word.data(), word.size());
  const std::string_view kept(free_, word.size());
  free_ += word.size();
  left_ -= word.size();
  return kept;
}

}  // namespace cohort_examples
