// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/codec.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace cohort {
namespace serialize_internal {
namespace {

// absl::Duration counts quarters of a nanosecond, and so does the wire.
constexpr uint32_t kTicksPerSecond = 4'000'000'000;
constexpr uint32_t kInfinite = ~uint32_t{0};

// A status looks for each new payload among all that it has.
constexpr size_t kMostPayloads = 256;

std::string_view View(absl::string_view text) {
  return {text.data(), text.size()};
}

absl::Status At(const Reader& reader, std::string_view problem) {
  return absl::DataLossError(
      absl::StrCat("malformed message: at byte ", reader.offset(), " of ",
                   reader.offset() + reader.remaining(), ": ",
                   absl::string_view(problem.data(), problem.size())));
}

}  // namespace

std::string NameOfCurrentException() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "an unknown exception";
  int failed = 0;
  std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(type->name(), nullptr, nullptr, &failed), &std::free);
  return failed == 0 ? name.get() : type->name();
}

absl::Status StatusOfException(absl::StatusCode kind) {
  try {
    throw;
  } catch (abi::__forced_unwind&) {
    throw;  // The thread is being cancelled; stopping that would be fatal.
  } catch (Abandon& abandon) {
    return std::move(abandon.status);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory for a message");
  } catch (const std::length_error&) {
    return absl::ResourceExhaustedError("out of memory for a message");
  } catch (const cereal::Exception& e) {
    return absl::Status(kind, absl::StrCat("cereal: ", e.what()));
  } catch (const std::exception& e) {
    return absl::Status(
        kind, absl::StrCat("serialize() threw ", NameOfCurrentException(), ": ",
                           e.what()));
  } catch (...) {
    return absl::Status(
        kind, absl::StrCat("serialize() threw ", NameOfCurrentException()));
  }
}

absl::Status StatusOfException(const Reader& reader) {
  absl::Status status = StatusOfException(absl::StatusCode::kDataLoss);
  if (!absl::IsDataLoss(status) ||
      absl::StrContains(status.message(), "malformed message: ")) {
    return status;
  }
  const absl::string_view what = status.message();
  return At(reader, {what.data(), what.size()});
}

void Reader::Malformed(std::string_view expected) const {
  throw Abandon{At(
      *this, absl::StrCat("expected ",
                          absl::string_view(expected.data(), expected.size()))
                 .c_str())};
}

void Reader::Truncated(size_t count) const {
  throw Abandon{At(*this, absl::StrCat("expected ", count, " bytes, but ",
                                       remaining(), " are left")
                              .c_str())};
}

void Reader::Overlong(uint64_t count) const {
  throw Abandon{At(*this, absl::StrCat("a length of ", count, " where ",
                                       remaining(), " bytes are left")
                              .c_str())};
}

uint64_t Reader::ReadLongVarint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(*Take(1));
    const uint64_t bits = byte & 0x7f;
    if (shift == 63 && bits > 1) break;
    value |= bits << shift;
    if (byte < 0x80) {
      if (byte == 0 && shift != 0) break;  // One byte fewer would have done.
      return value;
    }
  }
  Malformed("a number in its shortest form");
}

void PutLongVarint(Frame& frame, uint64_t value) {
  char bytes[10];
  size_t size = 0;
  while (value >= 0x80) {
    bytes[size++] = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  bytes[size++] = static_cast<char>(value);
  frame.Append({bytes, size});
}

void PutDuration(Frame& frame, absl::Duration value) {
  int64_t seconds = 0;
  uint32_t ticks = kInfinite;
  if (value == absl::InfiniteDuration()) {
    seconds = 1;
  } else if (value == -absl::InfiniteDuration()) {
    seconds = -1;
  } else {
    absl::Duration rest;
    seconds = absl::IDivDuration(value, absl::Seconds(1), &rest);
    if (rest < absl::ZeroDuration()) {
      // Seconds(seconds - 1) may not exist, but is never needed: the whole
      // seconds of a negative duration with a rest are above the least.
      --seconds;
      rest += absl::Seconds(1);
    }
    ticks = static_cast<uint32_t>(
        absl::IDivDuration(rest, absl::Nanoseconds(1) / 4, &rest));
  }
  std::memcpy(frame.Extend(sizeof(seconds)), &seconds, sizeof(seconds));
  std::memcpy(frame.Extend(sizeof(ticks)), &ticks, sizeof(ticks));
}

absl::Duration GetDuration(Reader& reader) {
  int64_t seconds = 0;
  uint32_t ticks = 0;
  reader.Read(&seconds, sizeof(seconds));
  reader.Read(&ticks, sizeof(ticks));
  if (ticks == kInfinite && (seconds == 1 || seconds == -1)) {
    return seconds * absl::InfiniteDuration();
  }
  if (ticks >= kTicksPerSecond) reader.Malformed("a part of a second");
  return absl::Seconds(seconds) + ticks * (absl::Nanoseconds(1) / 4);
}

void PutCivil(Frame& frame, absl::CivilSecond value) {
  const int64_t year = value.year();
  std::memcpy(frame.Extend(sizeof(year)), &year, sizeof(year));
  for (const int part : {value.month(), value.day(), value.hour(),
                         value.minute(), value.second()}) {
    *frame.Extend(1) = static_cast<char>(part);
  }
}

absl::CivilSecond GetCivil(Reader& reader) {
  int64_t year = 0;
  signed char part[5];
  reader.Read(&year, sizeof(year));
  reader.Read(part, sizeof(part));
  const absl::CivilSecond value(year, part[0], part[1], part[2], part[3],
                                part[4]);
  if (value.year() != year || value.month() != part[0] ||
      value.day() != part[1] || value.hour() != part[2] ||
      value.minute() != part[3] || value.second() != part[4]) {
    reader.Malformed("a date and a time of day");
  }
  return value;
}

void PutCord(Frame& frame, const absl::Cord& value) {
  PutVarint(frame, value.size());
  for (const absl::string_view chunk : value.Chunks()) {
    frame.Append(View(chunk));
  }
}

void PutStatus(Frame& frame, const absl::Status& value) {
  PutVarint(frame, static_cast<uint64_t>(value.raw_code()));
  if (value.ok()) return;
  PutText(frame, View(value.message()));
  // A status hands them out in no order.
  std::map<std::string, std::string> payloads;
  value.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    payloads.emplace(url, payload);
  });
  if (payloads.size() > kMostPayloads) {
    throw Abandon{absl::InvalidArgumentError(
        absl::StrCat("a status with ", payloads.size(), " payloads; at most ",
                     kMostPayloads, " travel"))};
  }
  PutVarint(frame, payloads.size());
  for (const auto& [url, payload] : payloads) {
    PutText(frame, url);
    PutText(frame, payload);
  }
}

absl::Status GetStatus(Reader& reader) {
  const uint64_t code = reader.ReadVarint();
  if (code == 0) return absl::OkStatus();
  if (code > static_cast<uint64_t>(absl::StatusCode::kUnauthenticated)) {
    reader.Malformed("a status code");
  }
  auto text = [&reader] {
    const size_t size = reader.ReadCount();
    return absl::string_view(reader.Take(size), size);
  };
  absl::Status status(static_cast<absl::StatusCode>(code), text());
  const size_t payloads = reader.ReadCount(2);
  if (payloads > kMostPayloads) {
    reader.Malformed(absl::StrCat("at most ", kMostPayloads, " payloads"));
  }
  absl::string_view last;
  for (size_t i = 0; i < payloads; ++i) {
    const absl::string_view url = text();
    if (i != 0 && url <= last) {
      reader.Malformed("a payload whose name is not below the last");
    }
    last = url;
    status.SetPayload(url, absl::Cord(text()));
  }
  return status;
}

absl::Status TrailingBytes(const Reader& reader) {
  return At(reader, absl::StrCat("expected the end, but ", reader.remaining(),
                                 " bytes follow")
                        .c_str());
}

bool Owners::Own(const Place& place, uint32_t object) {
  if (place.object == 0) return true;
  // An owner is at least one above what it owns, even without a class between.
  const int length = std::max(1, place.depth - place.at);
  Object& owned = objects_[object - 1];
  links_.push_back({place.object, length, owned.by});
  owned.by = static_cast<uint32_t>(links_.size());
  // Each object rises kMaxChain times at most; nobody who is not up to mischief
  // comes near this.
  int64_t work = int64_t{kMaxChain} * 64 + 8 * int64_t(links_.size());
  return Raise(place.object, owned.height + length, work);
}

bool Owners::Raise(uint32_t object, int height, int64_t& work) {
  std::vector<std::pair<uint32_t, int>> todo = {{object, height}};
  while (!todo.empty()) {
    const auto [one, to] = todo.back();
    todo.pop_back();
    Object& raised = objects_[one - 1];
    if (to <= raised.height) continue;
    if (to > kMaxChain) return false;
    raised.height = to;
    for (uint32_t link = raised.by; link != 0; link = links_[link - 1].next) {
      if (--work < 0) return false;
      todo.emplace_back(links_[link - 1].owner, to + links_[link - 1].length);
    }
  }
  return true;
}

}  // namespace serialize_internal

namespace {

// The lower half is the version. The upper half stands in the lower one where
// the byte order is another.
constexpr uint32_t kWireMark = 0x57430000;

}  // namespace

void WireVersion::save(Encoder& encoder) const {
  encoder(kWireMark | kWireVersion);
}

void WireVersion::load(Decoder& decoder) {
  uint32_t mark = 0;
  decoder(mark);
  if (mark == (kWireMark | kWireVersion)) return;
  if ((mark & 0xffff0000) == kWireMark) {
    decoder.Fail(absl::FailedPreconditionError(
        absl::StrCat("the sender writes version ", mark & 0xffff,
                     " of the wire format, this program reads version ",
                     kWireVersion, "; build both from the same release")));
  }
  decoder.Fail(absl::FailedPreconditionError(
      "what arrived does not begin with a version of the wire format: the "
      "sender has another byte order, or is none of ours"));
}

uint32_t Encoder::AddDescriptor(os::Descriptor&& given) {
  frame_.descriptors().push_back(std::move(given));
  return static_cast<uint32_t>(frame_.descriptors().size() - 1);
}

uint32_t Encoder::AddDescriptor(const os::Descriptor& borrowed) {
  absl::StatusOr<os::Descriptor> twin = borrowed.Duplicate();
  if (!twin.ok()) Fail(twin.status());
  return AddDescriptor(*std::move(twin));
}

void Encoder::Fail(absl::Status status) {
  throw serialize_internal::Abandon{std::move(status)};
}

uint32_t Encoder::Share(std::shared_ptr<const void> pointer,
                        const std::type_info& type) {
  if (pointer == nullptr) return 0;
  const auto next = static_cast<uint32_t>(shared_.size() + 1);
  auto [entry, added] = shared_.try_emplace({std::move(pointer), type}, next);
  if (added) owners_.Add();
  if (!std::exchange(weak_, false) && !owners_.Own(place_, entry->second)) {
    Fail(absl::InvalidArgumentError(absl::StrCat(
        "shared objects own each other in a ring, or more than ", kMaxChain,
        " of them do one after the other; let some of the pointers be "
        "std::weak_ptr")));
  }
  if (added) {
    place_.object = next;
    place_.at = place_.depth;
  }
  return added ? next | cereal::detail::msb_32bit : entry->second;
}

void Encoder::Defer(std::function<void()> write) {
  if (place_.movable != 0) {
    Fail(absl::InvalidArgumentError(
        "cereal::defer() in an element of a container that moves its elements; "
        "let the container hold pointers to them"));
  }
  deferred_.emplace_back(place_, std::move(write));
}

void Encoder::serializeDeferments() {
  const serialize_internal::Owners::Place place = place_;
  const int depth = std::exchange(depth_, 0);
  while (!deferred_.empty()) {
    auto [its_place, write] = std::move(deferred_.front());
    deferred_.pop_front();
    place_ = its_place;
    if (place_.depth > kMaxChain) TooDeep();
    write();
  }
  depth_ = depth;
  place_ = place;
}

void Encoder::TooDeep() {
  Fail(absl::InvalidArgumentError(
      absl::StrCat("a value nested more than ", kMaxDepth, " deep")));
}

os::Descriptor Decoder::TakeDescriptor(uint64_t index) {
  if (index >= descriptors_->size()) {
    reader_.Malformed(absl::StrCat("one of the ", descriptors_->size(),
                                   " descriptors of the message, not number ",
                                   index)
                          .c_str());
  }
  if (!(*descriptors_)[index].valid()) {
    reader_.Malformed(absl::StrCat("a descriptor other than number ", index,
                                   ", which is invalid or was taken before")
                          .c_str());
  }
  return std::move((*descriptors_)[index]);
}

void Decoder::Fail(absl::Status status) {
  throw serialize_internal::Abandon{std::move(status)};
}

absl::Status Decoder::Finish() const {
  return reader_.remaining() == 0 ? absl::OkStatus()
                                  : serialize_internal::TrailingBytes(reader_);
}

std::shared_ptr<void> Decoder::getSharedPointer(uint32_t id) {
  if (id == 0) return nullptr;
  if (id > shared_.size()) reader_.Malformed("the id of a shared object");
  const Shared& shared = shared_[id - 1];
  if (*shared.type != *wanted_) {
    reader_.Malformed("a shared object of the pointer's type");
  }
  if (!shared.whole) reader_.Malformed("an object that is constructed");
  Own(id);
  return shared.object;
}

void Decoder::AddShared(uint32_t id, std::shared_ptr<void> object,
                        const std::type_info& type, bool whole) {
  if ((id & ~cereal::detail::msb_32bit) != shared_.size() + 1) {
    reader_.Malformed("the next id of a shared object");
  }
  shared_.push_back({std::move(object), &type, whole});
  owners_.Add();
  const auto number = static_cast<uint32_t>(shared_.size());
  Own(number);
  place_.object = number;
  place_.at = place_.depth;
}

void Decoder::Own(uint32_t id) {
  if (!std::exchange(weak_, false) && !owners_.Own(place_, id)) {
    reader_.Malformed(absl::StrCat("no ring and no chain of more than ",
                                   kMaxChain, " shared objects"));
  }
}

// The names that cereal gives to an id and to the name that may follow it. An
// id says: none (0), the pointer's own type, the next new name, or one of the
// names before.
void Decoder::CheckNamed(const char* name, uint32_t value) {
  if (std::strcmp(name, "polymorphic_id") != 0) return;
  constexpr uint32_t kOwnType = cereal::detail::msb2_32bit;
  const uint32_t known = static_cast<uint32_t>(names_.size());
  if (value <= known || value == kOwnType ||
      value == ((known + 1) | cereal::detail::msb_32bit)) {
    return;
  }
  reader_.Malformed("the id of a polymorphic type");
}

void Decoder::CheckNamed(const char* name, const std::string& value) {
  if (std::strcmp(name, "polymorphic_name") != 0) return;
  if (std::find(names_.begin(), names_.end(), value) != names_.end()) {
    reader_.Malformed("the name of a polymorphic type that has none yet");
  }
  names_.push_back(value);
}

void Decoder::Defer(std::function<void()> read) {
  if (place_.movable != 0) {
    Fail(absl::InvalidArgumentError(
        "cereal::defer() in an element of a container that moves its elements; "
        "let the container hold pointers to them"));
  }
  deferred_.emplace_back(place_, std::move(read));
}

void Decoder::serializeDeferments() {
  const serialize_internal::Owners::Place place = place_;
  const int depth = std::exchange(depth_, 0);
  while (!deferred_.empty()) {
    auto [its_place, read] = std::move(deferred_.front());
    deferred_.pop_front();
    place_ = its_place;
    if (place_.depth > kMaxChain) TooDeep();
    read();
  }
  depth_ = depth;
  place_ = place;
}

void Decoder::TooDeep() {
  Fail(absl::DataLossError(absl::StrCat("malformed message: at byte ", offset(),
                                        ": a value nested more than ",
                                        kMaxDepth, " deep")));
}

}  // namespace cohort
