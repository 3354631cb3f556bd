// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/codec.h"

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace cohort {
namespace serialize_internal {
namespace {

// absl::Duration counts quarters of a nanosecond, and so does the wire.
constexpr uint32_t kTicksPerSecond = 4'000'000'000;
constexpr uint32_t kInfinite = ~uint32_t{0};

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

void PutStatus(Frame& frame, const absl::Status& value) {
  PutVarint(frame, static_cast<uint64_t>(value.raw_code()));
  if (value.ok()) return;
  PutText(frame, View(value.message()));
  uint64_t payloads = 0;
  value.ForEachPayload(
      [&](absl::string_view, const absl::Cord&) { ++payloads; });
  PutVarint(frame, payloads);
  value.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    PutText(frame, View(url));
    PutText(frame, std::string(payload));
  });
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
  for (size_t left = reader.ReadCount(2); left > 0; --left) {
    const absl::string_view url = text();
    status.SetPayload(url, absl::Cord(text()));
  }
  return status;
}

absl::Status TrailingBytes(const Reader& reader) {
  return At(reader, absl::StrCat("expected the end, but ", reader.remaining(),
                                 " bytes follow")
                        .c_str());
}

}  // namespace serialize_internal

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
  return added ? next | cereal::detail::msb_32bit : entry->second;
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
  return shared.object;
}

void Decoder::AddShared(uint32_t id, std::shared_ptr<void> object,
                        const std::type_info& type, bool whole) {
  if ((id & ~cereal::detail::msb_32bit) != shared_.size() + 1) {
    reader_.Malformed("the next id of a shared object");
  }
  shared_.push_back({std::move(object), &type, whole});
}

void Decoder::TooDeep() {
  Fail(absl::DataLossError(absl::StrCat("malformed message: at byte ", offset(),
                                        ": a value nested more than ",
                                        kMaxDepth, " deep")));
}

}  // namespace cohort
