// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/shareable_list.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/check.h"
#include "cohort/shm/region.h"
#include "cohort/shm/type_tag.h"

namespace cohort {
namespace {

using Value = ShareableList::Value;
using Bytes = ShareableList::Bytes;
using None = ShareableList::None;

// The layout: docs/formats/shareable_list.md.
constexpr size_t kWord = 8;
// Count and offsets stand before the data, one offset more than elements.
constexpr size_t DataStart(size_t count) { return (count + 2) * kWord; }

// How an element is to be turned into a value.
constexpr int8_t kNumber = 0;  // int, float, bool.
constexpr int8_t kStr = 1;
constexpr int8_t kBytes = 2;
constexpr int8_t kNone = 3;
// Ours: somebody is in the middle of Set(), or died there.
constexpr int8_t kTorn = -1;

// A format is text of up to 8 characters, filled up with zeros.
constexpr uint64_t FormatWord(std::string_view format) {
  uint64_t word = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    word |= uint64_t{static_cast<unsigned char>(format[i])} << (8 * i);
  }
  return word;
}
std::string FormatText(uint64_t word) {
  std::string text(kWord, '\0');
  std::memcpy(text.data(), &word, kWord);
  text.resize(text.find_last_not_of('\0') + 1);
  return text;
}
static_assert(std::endian::native == std::endian::little,
              "formats are words with the first character lowest");

constexpr uint64_t kIntFormat = FormatWord("q");
constexpr uint64_t kFloatFormat = FormatWord("d");
constexpr uint64_t kBoolFormat = FormatWord("xxxxxxx?");
constexpr uint64_t kNoneFormat = FormatWord("xxxxxx?x");

// The format of a text is its room in decimal and "s": seven digits at most.
constexpr size_t kMostRoom = 9'999'992;
// What is beyond, in a list that is not ours, stays unused.
uint64_t TextFormat(size_t room) {
  return FormatWord(absl::StrCat(std::min(room, kMostRoom), "s"));
}

// The room in the format of a text; nothing if it is not one.
std::optional<size_t> ParseTextFormat(uint64_t word) {
  const std::string text = FormatText(word);
  if (text.size() < 2 || text.back() != 's') return std::nullopt;
  size_t room = 0;
  for (const char digit : std::string_view(text).substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    room = 10 * room + static_cast<size_t>(digit - '0');
  }
  return room;
}

// As Python's decoder has it: nothing overlong, no surrogates, nothing beyond
// U+10FFFF.
bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto byte = [&](size_t i) -> unsigned {
      return static_cast<unsigned char>(text[at + i]);
    };
    const unsigned first = byte(0);
    const size_t length = first < 0x80   ? 1
                          : first < 0xc2 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf5 ? 4
                                         : 0;
    if (length == 0 || length > text.size() - at) return false;
    for (size_t i = 1; i < length; ++i) {
      if (byte(i) >> 6 != 2) return false;
    }
    if ((first == 0xe0 && byte(1) < 0xa0) ||
        (first == 0xed && byte(1) >= 0xa0) ||
        (first == 0xf0 && byte(1) < 0x90) ||
        (first == 0xf4 && byte(1) >= 0x90)) {
      return false;
    }
    at += length;
  }
  return true;
}

// The text of a str or bytes; null for the others.
const std::string* TextOf(const Value& value) {
  if (const auto* bytes = std::get_if<Bytes>(&value)) return &bytes->data;
  return std::get_if<std::string>(&value);
}

// The room that an element is given if it is made with `value`.
size_t RoomFor(const Value& value) {
  const std::string* const text = TextOf(value);
  return text == nullptr ? kWord : (text->size() / kWord + 1) * kWord;
}

struct Kind {
  uint64_t format;
  int8_t code;
};

Kind KindOf(const Value& value, size_t room) {
  struct {
    size_t room;
    Kind operator()(None) const { return {kNoneFormat, kNone}; }
    Kind operator()(bool) const { return {kBoolFormat, kNumber}; }
    Kind operator()(int64_t) const { return {kIntFormat, kNumber}; }
    Kind operator()(double) const { return {kFloatFormat, kNumber}; }
    Kind operator()(const std::string&) const {
      return {TextFormat(room), kStr};
    }
    Kind operator()(const Bytes&) const { return {TextFormat(room), kBytes}; }
  } kind_of{room};
  return std::visit(kind_of, value);
}

// The 8 bytes of an element that is no text.
uint64_t NumberOf(const Value& value) {
  struct {
    uint64_t operator()(None) const { return 0; }
    // The last of the 8 bytes.
    uint64_t operator()(bool b) const { return uint64_t{b} << 56; }
    uint64_t operator()(int64_t i) const { return static_cast<uint64_t>(i); }
    uint64_t operator()(double d) const { return std::bit_cast<uint64_t>(d); }
    uint64_t operator()(const std::string&) const { return 0; }
    uint64_t operator()(const Bytes&) const { return 0; }
  } number_of;
  return std::visit(number_of, value);
}

absl::Status CheckText(const Value& value) {
  const std::string* const text = TextOf(value);
  if (text == nullptr) return absl::OkStatus();
  if (std::holds_alternative<std::string>(value) && !IsUtf8(*text)) {
    return absl::InvalidArgumentError(
        "shareable list: the str is not UTF-8, so Python could not read it; "
        "make it ShareableList::Bytes");
  }
  if (RoomFor(value) > kMostRoom) {
    return absl::InvalidArgumentError(
        absl::StrCat("shareable list: a text of ", text->size(),
                     " bytes; the layout ends at ", kMostRoom - 1,
                     "; put it into a Region of its own"));
  }
  return absl::OkStatus();
}

// An int is compared with a float exactly, not rounded to one.
bool EqualNumbers(int64_t i, double d) {
  constexpr double kEnd = 9223372036854775808.0;  // 2^63
  return -kEnd <= d && d < kEnd && static_cast<int64_t>(d) == i &&
         static_cast<double>(static_cast<int64_t>(d)) == d;
}

bool EqualAsInPython(const Value& a, const Value& b) {
  const auto whole = [](const Value& value) -> std::optional<int64_t> {
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
    if (const auto* i = std::get_if<int64_t>(&value)) return *i;
    return std::nullopt;
  };
  const std::optional<int64_t> i = whole(a);
  const std::optional<int64_t> j = whole(b);
  const auto* const d = std::get_if<double>(&a);
  const auto* const e = std::get_if<double>(&b);
  if (i && j) return *i == *j;
  if (i && e != nullptr) return EqualNumbers(*i, *e);
  if (d != nullptr && j) return EqualNumbers(*j, *d);
  return a == b;
}

absl::Status Damaged(size_t index, const char* what) {
  return absl::DataLossError(
      absl::StrCat("shareable list: element ", index, " ", what));
}

uint64_t Tag() { return TypeTag<ShareableList>("shareable_list"); }

}  // namespace

// Each word is read and written as a whole, once: a peer may write meanwhile.
std::atomic<uint64_t>& ShareableList::Word(size_t offset) const {
  return *reinterpret_cast<std::atomic<uint64_t>*>(base_ + offset);
}
std::atomic<uint64_t>& ShareableList::FormatOf(size_t index) const {
  return Word(DataStart(count_) + data_size_ + index * kWord);
}
std::atomic<int8_t>& ShareableList::CodeOf(size_t index) const {
  return *reinterpret_cast<std::atomic<int8_t>*>(
      base_ + DataStart(count_) + data_size_ + count_ * kWord + index);
}

absl::StatusOr<size_t> ShareableList::SizeFor(
    const std::vector<Value>& values) {
  size_t size = DataStart(values.size()) + values.size() * (kWord + 1);
  for (const Value& value : values) {
    absl::Status valid = CheckText(value);
    if (!valid.ok()) return valid;
    size += RoomFor(value);
  }
  return size;
}

void ShareableList::Lay(const std::vector<Value>& values,
                        std::span<std::byte> memory) {
  ShareableList list;
  list.base_ = memory.data();
  list.count_ = values.size();
  list.data_size_ =
      memory.size() - DataStart(list.count_) - list.count_ * (kWord + 1);
  list.Word(0).store(list.count_, std::memory_order_relaxed);
  size_t offset = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t room = RoomFor(values[i]);
    list.Word((i + 1) * kWord).store(offset, std::memory_order_relaxed);
    list.Store({i, DataStart(list.count_) + offset, room}, values[i]);
    offset += room;
  }
  list.Word((list.count_ + 1) * kWord).store(offset, std::memory_order_relaxed);
}

absl::StatusOr<ShareableList> ShareableList::Create(
    const std::vector<Value>& values) {
  const absl::StatusOr<size_t> size = SizeFor(values);
  if (!size.ok()) return size.status();
  absl::StatusOr<Region> region =
      Region::Create({.size = *size, .type_tag = Tag()});
  if (!region.ok()) return region.status();
  Lay(values, region->bytes());
  return Attach(*std::move(region));
}

absl::StatusOr<ShareableList> ShareableList::CreateNamed(
    std::string_view name, const std::vector<Value>& values) {
  const absl::StatusOr<size_t> size = SizeFor(values);
  if (!size.ok()) return size.status();
  absl::StatusOr<Region> region = Region::CreateNamed(
      name, {.size = *size, .type_tag = Tag()},
      [&](std::span<std::byte> memory) { Lay(values, memory); });
  if (!region.ok()) return region.status();
  return Attach(*std::move(region));
}

absl::StatusOr<ShareableList> ShareableList::Open(std::string_view name) {
  absl::StatusOr<Region> region = Region::Open(name);
  if (!region.ok()) return region.status();
  return Attach(*std::move(region));
}

absl::StatusOr<ShareableList> ShareableList::Attach(Region region) {
  if (region.type_tag() != 0 && region.type_tag() != Tag()) {
    return absl::FailedPreconditionError(
        "shareable list: the region received holds something else; hand it to "
        "the type that it was created for");
  }
  const absl::Status refusal = absl::DataLossError(
      "shareable list: the memory holds no list, or was overwritten");
  const size_t size = region.size();
  if (size < DataStart(0)) return refusal;
  ShareableList list;
  list.base_ = region.bytes().data();
  list.region_ = std::move(region);
  const uint64_t count = list.Word(0).load(std::memory_order_acquire);
  // An element takes at least an offset, a format and a code.
  if (count > (size - DataStart(0)) / (2 * kWord + 1)) return refusal;
  const uint64_t data_size =
      list.Word((count + 1) * kWord).load(std::memory_order_acquire);
  const size_t rest = size - DataStart(count) - count * (kWord + 1);
  if (data_size > rest || data_size % kWord != 0) return refusal;
  list.count_ = count;
  list.data_size_ = data_size;
  return list;
}

absl::StatusOr<ShareableList::Place> ShareableList::Find(
    int64_t position) const {
  os::Check(!empty_handle(),
            "a ShareableList that was never created or received was used");
  const auto count = static_cast<int64_t>(count_);
  if (position < -count || position >= count) {
    return absl::OutOfRangeError(absl::StrCat("shareable list: position ",
                                              position, " in a list of ",
                                              count_, " elements"));
  }
  const auto index =
      static_cast<size_t>(position < 0 ? position + count : position);
  const uint64_t begin =
      Word((index + 1) * kWord).load(std::memory_order_relaxed);
  const uint64_t end =
      Word((index + 2) * kWord).load(std::memory_order_relaxed);
  if (begin % kWord != 0 || end % kWord != 0 || begin >= end ||
      end > data_size_) {
    return Damaged(index, "has offsets that no list has: overwritten");
  }
  return Place{index, DataStart(count_) + begin, end - begin};
}

// Without the zero bytes at its end, which are room that was not used.
std::string ShareableList::Text(const Place& place, size_t length) const {
  std::string text((length + kWord - 1) / kWord * kWord, '\0');
  for (size_t at = 0; at < text.size(); at += kWord) {
    const uint64_t word = Word(place.data + at).load(std::memory_order_relaxed);
    std::memcpy(text.data() + at, &word, kWord);
  }
  text.resize(length);
  text.resize(text.find_last_not_of('\0') + 1);
  return text;
}

absl::StatusOr<Value> ShareableList::Get(int64_t position) const {
  const absl::StatusOr<Place> place = Find(position);
  if (!place.ok()) return place.status();
  const size_t index = place->index;
  const int8_t code = CodeOf(index).load(std::memory_order_acquire);
  const uint64_t format = FormatOf(index).load(std::memory_order_relaxed);
  if (code == kTorn) {
    return Damaged(index,
                   "is half-written: a process is just setting it, or died "
                   "in the middle; set it again");
  }
  if (code == kStr || code == kBytes) {
    const std::optional<size_t> room = ParseTextFormat(format);
    if (!room || *room > place->room) {
      return Damaged(index, "is a text of impossible length; set it again");
    }
    std::string text = Text(*place, *room);
    if (code == kBytes) return Bytes{std::move(text)};
    if (!IsUtf8(text)) {
      return Damaged(index, "is a str, but no UTF-8; set it again");
    }
    return text;
  }
  const uint64_t number = Word(place->data).load(std::memory_order_relaxed);
  if (code == kNumber) {
    if (format == kIntFormat) return static_cast<int64_t>(number);
    if (format == kFloatFormat) return std::bit_cast<double>(number);
    if (format == kBoolFormat) return number >> 56 != 0;
  }
  if (code == kNone && format == kNoneFormat) return None();
  return Damaged(index, "has a type that no list has; set it again");
}

// An element becomes what it is to be by one store: of the number where its
// type stays, else of the code, which says "torn" until then. Each store is a
// release, so that none precedes an earlier one.
void ShareableList::Store(const Place& place, const Value& value) const {
  const Kind kind = KindOf(value, place.room);
  std::atomic<uint64_t>& format = FormatOf(place.index);
  std::atomic<int8_t>& code = CodeOf(place.index);
  const std::string* const text = TextOf(value);
  if (text == nullptr &&
      format.load(std::memory_order_relaxed) == kind.format &&
      code.load(std::memory_order_relaxed) == kind.code) {
    Word(place.data).store(NumberOf(value), std::memory_order_release);
    return;
  }
  code.store(kTorn, std::memory_order_relaxed);
  format.store(kind.format, std::memory_order_release);
  if (text == nullptr) {
    Word(place.data).store(NumberOf(value), std::memory_order_release);
  } else {
    for (size_t at = 0; at < place.room; at += kWord) {
      uint64_t word = 0;
      if (at < text->size()) {
        std::memcpy(&word, text->data() + at,
                    std::min(kWord, text->size() - at));
      }
      Word(place.data + at).store(word, std::memory_order_release);
    }
  }
  code.store(kind.code, std::memory_order_release);
}

absl::Status ShareableList::Set(int64_t position, const Value& value) const {
  absl::Status valid = CheckText(value);
  if (!valid.ok()) return valid;
  const absl::StatusOr<Place> place = Find(position);
  if (!place.ok()) return place.status();
  const std::string* const text = TextOf(value);
  if (text != nullptr && text->size() > place->room) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "shareable list: ", text->size(), " bytes for element ", place->index,
        ", which has room for ", place->room,
        "; create the list with a text of the greatest length there"));
  }
  Store(*place, value);
  return absl::OkStatus();
}

absl::StatusOr<size_t> ShareableList::Count(const Value& value) const {
  size_t found = 0;
  for (const absl::StatusOr<Value>& element : *this) {
    if (!element.ok()) return element.status();
    if (EqualAsInPython(*element, value)) ++found;
  }
  return found;
}

absl::StatusOr<size_t> ShareableList::Index(const Value& value) const {
  for (size_t index = 0; index < count_; ++index) {
    const absl::StatusOr<Value> element = Get(static_cast<int64_t>(index));
    if (!element.ok()) return element.status();
    if (EqualAsInPython(*element, value)) return index;
  }
  return absl::NotFoundError("shareable list: no element equals this value");
}

absl::StatusOr<std::vector<Value>> ShareableList::Values() const {
  std::vector<Value> values;
  values.reserve(count_);
  for (absl::StatusOr<Value> element : *this) {
    if (!element.ok()) return element.status();
    values.push_back(*std::move(element));
  }
  return values;
}

absl::StatusOr<std::string> ShareableList::Format() const {
  std::string formats;
  for (size_t index = 0; index < count_; ++index) {
    const uint64_t format = FormatOf(index).load(std::memory_order_relaxed);
    if (format != kIntFormat && format != kFloatFormat &&
        format != kBoolFormat && format != kNoneFormat &&
        !ParseTextFormat(format)) {
      return Damaged(index, "has a type that no list has; set it again");
    }
    formats += FormatText(format);
  }
  return formats;
}

}  // namespace cohort
