// SPDX-License-Identifier: Apache-2.0
//
// Turns values into frames and frames into values. Writing is fast, with no
// streams in between; reading trusts nothing.
//
//   struct Job {
//     int id = 0;
//     std::string path;
//     template <class Archive>
//     void serialize(Archive& a) { a(id, path); }
//   };
//
//   absl::StatusOr<cohort::Frame> frame = cohort::Encode(Job{1, "/etc/hosts"});
//   if (!frame.ok()) return frame.status();
//   absl::StatusOr<Job> job = cohort::Decode<Job>(*std::move(frame));
//
// Which types travel, and how, is told by serialize/encodable.h; a type that
// does not is refused by the compiler. A type that owns descriptors encodes
// them as members, like anything else:
//
//   class Region {
//     os::Descriptor memory_;
//     uint64_t size_ = 0;
//    public:
//     template <class Archive>
//     void serialize(Archive& a) { a(memory_, size_); }
//   };
//
// The bytes are for processes of one build on one host. For files, or between
// programs that are updated separately, take a format with a schema. The format
// is written down in docs/design/serialize.md.

#ifndef COHORT_SERIALIZE_CODEC_H_
#define COHORT_SERIALIZE_CODEC_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cereal/cereal.hpp"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/encodable.h"
#include "cohort/serialize/frame.h"

namespace cohort {

static_assert(std::endian::native == std::endian::little,
              "the wire format is little-endian and not converted");

// Values within values, counted at types with a serialize(): as deep as a
// reader follows, and hence as a writer writes.
inline constexpr int kMaxDepth = 64;

namespace serialize_internal {

// Carries a status out of nested serialize() calls. Never leaves this room.
struct Abandon {
  absl::Status status;
};

// The type of the exception being handled.
std::string NameOfCurrentException();

// The status for the exception being handled; for use in catch (...).
// `kind` is the code for what cereal or a serialize() function threw.
absl::Status StatusOfException(absl::StatusCode kind);

// Reads from bytes that nobody vouches for.
class Reader final {
 public:
  explicit Reader(std::string_view bytes)
      : begin_(bytes.data()), at_(begin_), end_(begin_ + bytes.size()) {}

  size_t offset() const { return static_cast<size_t>(at_ - begin_); }
  size_t remaining() const { return static_cast<size_t>(end_ - at_); }
  const char* at() const { return at_; }

  // The next `count` bytes, which are thereby read.
  const char* Take(size_t count) {
    if (count > remaining()) [[unlikely]]
      Truncated(count);
    return std::exchange(at_, at_ + count);
  }
  void Read(void* to, size_t count) { std::memcpy(to, Take(count), count); }

  bool ReadBool() {
    const char byte = *Take(1);
    if ((byte & ~1) != 0) [[unlikely]]
      Malformed("a bool of 0 or 1");
    return byte != 0;
  }

  uint64_t ReadVarint() {
    if (at_ != end_ && *at_ >= 0) [[likely]] {
      return static_cast<uint64_t>(*at_++);
    }
    return ReadLongVarint();
  }

  // A count of things of which each takes `each` bytes or more.
  size_t ReadCount(size_t each = 1) {
    const uint64_t count = ReadVarint();
    if (count > remaining() / each) [[unlikely]]
      Overlong(count);
    return static_cast<size_t>(count);
  }

  // Each abandons the message: DataLoss, where, and what was expected there.
  [[noreturn]] void Malformed(std::string_view expected) const;
  [[noreturn]] void Truncated(size_t count) const;
  [[noreturn]] void Overlong(uint64_t count) const;

 private:
  uint64_t ReadLongVarint();

  const char* begin_;
  const char* at_;
  const char* end_;
};

void PutLongVarint(Frame& frame, uint64_t value);

inline void PutVarint(Frame& frame, uint64_t value) {
  if (value < 0x80) [[likely]] {
    *frame.Extend(1) = static_cast<char>(value);
  } else {
    PutLongVarint(frame, value);
  }
}
inline void PutText(Frame& frame, std::string_view text) {
  PutVarint(frame, text.size());
  frame.Append(text);
}

void PutDuration(Frame& frame, absl::Duration value);
void PutStatus(Frame& frame, const absl::Status& value);
absl::Duration GetDuration(Reader& reader);
absl::Status GetStatus(Reader& reader);

// Where flat values go to and come from: no tables, nothing to set up.
class FlatEncoder final {
 public:
  explicit FlatEncoder(Frame& frame) : frame_(frame) {}
  Frame& frame() { return frame_; }

 private:
  Frame& frame_;
};
class FlatDecoder final {
 public:
  explicit FlatDecoder(Reader& reader) : reader_(reader) {}
  Reader& reader() { return reader_; }

 private:
  Reader& reader_;
};

template <class E, class T>
void Put(E& encoder, const T& value);
template <class D, class T>
void Get(D& decoder, T& value);

}  // namespace serialize_internal

// Encoder
//
// What a save() or serialize() function is handed while a value is written. It
// serves one message: a new one is cheap, and the frame keeps the memory.
//
// Contract
//   Placement:      the stack, for one message.
//   Thread-safety:  none; one thread at a time.
//   Process-safety: none.
//   Fork-safety:    a child has a copy of its own.
//   Crash-safety:   nothing outlives the process.
//   Signal-safety:  none.
//   Errors:         abandon the message by an exception that EncodeTo() and its
//                   kin turn into a status; only they should be called from
//                   outside a save() function.
//   Ordering:       none.
//   Cost:           under 50 ns to set up; none for flat values, for which
//                   EncodeTo(Frame&) makes no Encoder at all.
//   Reference:      cereal's archives; docs/design/serialize.md.
class Encoder final
    : public cereal::OutputArchive<Encoder, cereal::AllowEmptyClassElision> {
 public:
  // Appends to `frame`, which must outlive it.
  explicit Encoder(Frame& frame) : Base(this), frame_(frame) {}
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  Frame& frame() { return frame_; }

  // Writes the values, one after another.
  template <class... T>
  Encoder& operator()(T&&... values) {
    (serialize_internal::Put(*this, values), ...);
    return *this;
  }
  template <class T>
  Encoder& operator&(T&& value) {
    return (*this)(value);
  }
  template <class T>
  Encoder& operator<<(T&& value) {
    return (*this)(value);
  }

  // Adds a descriptor to the frame, the given one or a duplicate of the
  // borrowed one, and returns its index: write that, for TakeDescriptor().
  uint32_t AddDescriptor(os::Descriptor&& given);
  uint32_t AddDescriptor(const os::Descriptor& borrowed);

  // Abandons the message; Encode() returns `status`, which is not OK.
  [[noreturn]] void Fail(absl::Status status);

  // For cereal, which asks on which pointers share an object. Objects of two
  // types at one address, a struct and its first member, are two.
  template <class T>
  uint32_t registerSharedPointer(const std::shared_ptr<T>& pointer) {
    return Share(pointer, typeid(T));
  }

  // For serialize_internal::Put().
  template <class T>
  void PutByCereal(const T& value);

 private:
  using Base = cereal::OutputArchive<Encoder, cereal::AllowEmptyClassElision>;

  uint32_t Share(std::shared_ptr<const void> pointer,
                 const std::type_info& type);
  [[noreturn]] void TooDeep();

  Frame& frame_;
  int depth_ = 0;
  // The objects written so far, kept alive so that no address is used twice.
  std::map<std::pair<std::shared_ptr<const void>, std::type_index>, uint32_t>
      shared_;
};

// Decoder
//
// What a load() or serialize() function is handed while a value is read.
//
// Contract: as Encoder's, and
//   Errors:         bytes that no Encoder wrote are DataLoss, with the offset
//                   and what was expected there. No length is believed before
//                   it is compared with the bytes left, and no memory beyond a
//                   small multiple of the input is taken.
class Decoder final
    : public cereal::InputArchive<Decoder, cereal::AllowEmptyClassElision> {
 public:
  // Reads `bytes`, which must outlive it. Closes at its end those of the
  // `descriptors` that no value has claimed.
  explicit Decoder(std::string_view bytes,
                   std::vector<os::Descriptor> descriptors = {})
      : Base(this),
        reader_(bytes),
        own_(std::move(descriptors)),
        descriptors_(&own_) {}

  // Reads a further message, with tables of its own, where `outer` stands, out
  // of the same bytes and descriptors; at its end `outer` stands behind it.
  explicit Decoder(Decoder* outer)
      : Base(this),
        reader_(outer->reader_),
        descriptors_(outer->descriptors_),
        outer_(outer) {}

  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() {
    if (outer_ != nullptr) outer_->reader_ = reader_;
  }

  // Reads the values, one after another.
  template <class... T>
  Decoder& operator()(T&&... values) {
    (serialize_internal::Get(*this, values), ...);
    return *this;
  }
  template <class T>
  Decoder& operator&(T&& value) {
    return (*this)(value);
  }
  template <class T>
  Decoder& operator>>(T&& value) {
    return (*this)(value);
  }

  // Hands over the descriptor with this index. Each can be had once; an index
  // that was never sent, or was taken before, abandons the message.
  os::Descriptor TakeDescriptor(uint64_t index);

  // Abandons the message; Decode() returns `status`, which is not OK. For
  // load() functions that find a value to be impossible.
  [[noreturn]] void Fail(absl::Status status);

  // Where it stands, and how much is left.
  size_t offset() const { return reader_.offset(); }
  size_t remaining() const { return reader_.remaining(); }

  // OK iff every byte has been read.
  absl::Status Finish() const;

  // For cereal. An id names an object of exactly the type it had when written:
  // cereal alone would cast whatever the bytes point at.
  template <class T>
  void registerSharedPointer(uint32_t id, const std::shared_ptr<T>& pointer) {
    constexpr bool kWhole =
        !cereal::traits::has_load_and_construct<T, Decoder>::value;
    AddShared(id, pointer, typeid(T), kWhole);
  }
  std::shared_ptr<void> getSharedPointer(uint32_t id);

  // For serialize_internal::Get().
  serialize_internal::Reader& reader() { return reader_; }
  template <class T>
  void GetByCereal(T& value);

 private:
  using Base = cereal::InputArchive<Decoder, cereal::AllowEmptyClassElision>;

  struct Shared {
    std::shared_ptr<void> object;
    const std::type_info* type;
    bool whole;  // Constructed; by load_and_construct() only when it returns.
  };

  void AddShared(uint32_t id, std::shared_ptr<void> object,
                 const std::type_info& type, bool whole);
  [[noreturn]] void TooDeep();

  serialize_internal::Reader reader_;
  int depth_ = 0;
  std::vector<os::Descriptor> own_;
  std::vector<os::Descriptor>* descriptors_;
  Decoder* outer_ = nullptr;
  std::vector<Shared> shared_;
  const std::type_info* wanted_ = nullptr;  // By the pointer being read.
};

// Returns `value` as a frame. InvalidArgument where it is too deep or a
// serialize() function throws; ResourceExhausted where memory or descriptors
// run out; whatever a save() function passed to Encoder::Fail().
template <class T>
absl::StatusOr<Frame> Encode(const T& value);

// Appends `value` to `frame`, or leaves the frame as it was. A frame that is
// cleared and filled again allocates nothing.
template <class T>
absl::Status EncodeTo(Frame& frame, const T& value);

// Appends `value` to the message that `encoder` is writing: objects shared with
// earlier values of the message are written once.
template <class T>
absl::Status EncodeTo(Encoder& encoder, const T& value);

// Returns the one value that `bytes` and `descriptors` hold. DataLoss for bytes
// that are cut short, too many or impossible; whatever a load() function passed
// to Decoder::Fail(). Descriptors that no value claims are closed.
template <class T>
absl::StatusOr<T> Decode(std::string_view bytes,
                         std::vector<os::Descriptor> descriptors = {});
template <class T>
absl::StatusOr<T> Decode(Frame frame);

// Returns the next of the values that `decoder` reads. After an error it is of
// no further use.
template <class T>
absl::StatusOr<T> DecodeFrom(Decoder& decoder);

// Implementation only below.

namespace serialize_internal {

// Runs `write`, and takes back what it wrote if it throws.
template <class Write>
absl::Status WriteOrUndo(Frame& frame, Write write) {
  const size_t size = frame.size();
  const size_t descriptors = frame.descriptors().size();
  try {
    write();
    return absl::OkStatus();
  } catch (...) {
    frame.Truncate(size);
    frame.descriptors().resize(descriptors);
    return StatusOfException(absl::StatusCode::kInvalidArgument);
  }
}

template <class T>
inline constexpr bool kIsSharedWrapper = false;
template <class T>
inline constexpr bool
    kIsSharedWrapper<cereal::memory_detail::PtrWrapper<std::shared_ptr<T>&>> =
        true;

template <class T>
struct SharedTarget;
template <class T>
struct SharedTarget<cereal::memory_detail::PtrWrapper<std::shared_ptr<T>&>> {
  using type = std::remove_const_t<T>;
};

// What load_and_construct() is called through: a value, like what a serialize()
// reads.
template <class T>
inline constexpr bool kIsConstructWrapper = false;
template <class A, class T>
inline constexpr bool kIsConstructWrapper<
    cereal::memory_detail::LoadAndConstructLoadWrapper<A, T>> = true;

template <class E, class T>
void PutAll(E& encoder, const T& values) {
  for (const auto& value : values) Put(encoder, value);
}

template <class E, class T>
void Put(E& encoder, const T& value) {
  CheckFlaw<T, true>();
  constexpr Shape shape = kShape<T>;
  if constexpr (FindFlaw<T, true>() != Flaw::kNone) {
    // Said already.
  } else if constexpr (IsBytes<T>()) {
    std::memcpy(encoder.frame().Extend(sizeof(T)), std::addressof(value),
                sizeof(T));
  } else if constexpr (shape == Shape::kBool) {
    *encoder.frame().Extend(1) = static_cast<bool>(value) ? 1 : 0;
  } else if constexpr (shape == Shape::kUnit) {
    *encoder.frame().Extend(1) = 0;
  } else if constexpr (shape == Shape::kString) {
    constexpr size_t kEach = sizeof(typename T::value_type);
    PutVarint(encoder.frame(), value.size());
    encoder.frame().Append(
        {reinterpret_cast<const char*>(value.data()), value.size() * kEach});
  } else if constexpr (shape == Shape::kBits) {
    PutVarint(encoder.frame(), value.size());
    const size_t bytes = value.size() / 8 + (value.size() % 8 != 0);
    char* at = encoder.frame().Extend(bytes);
    std::memset(at, 0, bytes);
    for (size_t i = 0; i < value.size(); ++i) {
      at[i / 8] = static_cast<char>(at[i / 8] | (value[i] << i % 8));
    }
  } else if constexpr (shape == Shape::kForwardList) {
    PutVarint(encoder.frame(),
              static_cast<uint64_t>(std::distance(value.begin(), value.end())));
    PutAll(encoder, value);
  } else if constexpr (shape == Shape::kSequence || shape == Shape::kSet ||
                       shape == Shape::kValarray) {
    PutVarint(encoder.frame(), value.size());
    using Element = typename T::value_type;
    if constexpr (IsBytes<Element>() && shape == Shape::kSequence &&
                  std::ranges::contiguous_range<T>) {
      encoder.frame().Append({reinterpret_cast<const char*>(value.data()),
                              value.size() * sizeof(Element)});
    } else {
      PutAll(encoder, value);
    }
  } else if constexpr (shape == Shape::kMap) {
    PutVarint(encoder.frame(), value.size());
    for (const auto& [key, mapped] : value) {
      Put(encoder, key);
      Put(encoder, mapped);
    }
  } else if constexpr (shape == Shape::kArray) {
    PutAll(encoder, value);
  } else if constexpr (shape == Shape::kTuple) {
    std::apply([&](const auto&... part) { (Put(encoder, part), ...); }, value);
  } else if constexpr (shape == Shape::kOptional) {
    Put(encoder, value.has_value());
    if (value.has_value()) Put(encoder, *value);
  } else if constexpr (shape == Shape::kVariant) {
    if (value.valueless_by_exception()) {
      throw Abandon{absl::InvalidArgumentError("a variant without a value")};
    }
    PutVarint(encoder.frame(), value.index());
    std::visit([&](const auto& held) { Put(encoder, held); }, value);
  } else if constexpr (shape == Shape::kDuration) {
    PutDuration(encoder.frame(), value);
  } else if constexpr (shape == Shape::kTime) {
    PutDuration(encoder.frame(), value - absl::UnixEpoch());
  } else if constexpr (shape == Shape::kStatus) {
    PutStatus(encoder.frame(), value);
  } else if constexpr (shape == Shape::kStatusOr) {
    Put(encoder, value.ok());
    if (value.ok()) {
      Put(encoder, *value);
    } else {
      Put(encoder, value.status());
    }
  } else if constexpr (shape == Shape::kDescriptor) {
    PutVarint(encoder.frame(),
              value.valid() ? uint64_t{encoder.AddDescriptor(value)} + 1 : 0);
  } else {
    encoder.PutByCereal(value);
  }
}

// Reads `count` values of a type that is its bytes into a std::vector or a
// likeness of one. In pieces: each is still in the cache when the zeroes that
// resize() put there are overwritten, and memory grows with what is read.
template <class T>
void GetBytesInto(Reader& reader, size_t count, T& values) {
  using Element = typename T::value_type;
  constexpr size_t kPiece = std::max<size_t>(1, 16384 / sizeof(Element));
  const char* from = reader.Take(count * sizeof(Element));
  values.clear();
  if constexpr (requires { values.reserve(count); }) values.reserve(count);
  for (size_t done = 0; done < count;) {
    const size_t piece = std::min(kPiece, count - done);
    values.resize(done + piece);
    std::memcpy(values.data() + done, from + done * sizeof(Element),
                piece * sizeof(Element));
    done += piece;
  }
}

template <class D, class T>
void GetElements(D& decoder, size_t count, T& values) {
  values.clear();
  if constexpr (requires { values.reserve(count); }) {
    // No more than the input could fill if elements were as large on the wire;
    // what is really there grows the rest.
    values.reserve(std::min(
        count,
        decoder.reader().remaining() / sizeof(typename T::value_type) + 1));
  }
  for (size_t i = 0; i < count; ++i) {
    values.emplace_back();
    Get(decoder, values.back());
  }
}

template <class D, class T, size_t... I>
void GetAlternative(D& decoder, uint64_t index, T& value,
                    std::index_sequence<I...>) {
  (void)((index == I && (Get(decoder, value.template emplace<I>()), true)) ||
         ...);
}

template <class D, class T>
void Get(D& decoder, T& value) {
  CheckFlaw<T, true>();
  constexpr Shape shape = kShape<T>;
  if constexpr (FindFlaw<T, true>() != Flaw::kNone) {
    // Said already.
  } else if constexpr (IsBytes<T>()) {
    decoder.reader().Read(static_cast<void*>(std::addressof(value)), sizeof(T));
  } else if constexpr (shape == Shape::kBool) {
    value = static_cast<T>(decoder.reader().ReadBool());
  } else if constexpr (shape == Shape::kUnit) {
    if (*decoder.reader().Take(1) != 0) {
      decoder.reader().Malformed("a zero, the value of an empty type");
    }
  } else if constexpr (shape == Shape::kString) {
    constexpr size_t kEach = sizeof(typename T::value_type);
    const size_t count = decoder.reader().ReadCount(kEach);
    if constexpr (kEach == 1) {
      value.assign(reinterpret_cast<const typename T::value_type*>(
                       decoder.reader().Take(count)),
                   count);
    } else {
      GetBytesInto(decoder.reader(), count, value);
    }
  } else if constexpr (shape == Shape::kBits) {
    const uint64_t count = decoder.reader().ReadVarint();
    const uint64_t bytes = count / 8 + (count % 8 != 0);
    if (bytes > decoder.reader().remaining()) decoder.reader().Overlong(bytes);
    const char* at = decoder.reader().Take(bytes);
    if (count % 8 != 0 &&
        static_cast<unsigned char>(at[bytes - 1]) >> count % 8 != 0) {
      decoder.reader().Malformed("zeroes after the last bit");
    }
    value.resize(count);
    for (size_t i = 0; i < count; ++i) value[i] = (at[i / 8] >> i % 8 & 1) != 0;
  } else if constexpr (shape == Shape::kSequence) {
    using Element = typename T::value_type;
    if constexpr (IsBytes<Element>() && std::ranges::contiguous_range<T>) {
      const size_t count = decoder.reader().ReadCount(sizeof(Element));
      GetBytesInto(decoder.reader(), count, value);
    } else {
      GetElements(decoder, decoder.reader().ReadCount(), value);
    }
  } else if constexpr (shape == Shape::kForwardList) {
    value.clear();
    auto last = value.before_begin();
    for (size_t left = decoder.reader().ReadCount(); left > 0; --left) {
      last = value.emplace_after(last);
      Get(decoder, *last);
    }
  } else if constexpr (shape == Shape::kValarray) {
    std::vector<typename T::value_type> elements;
    Get(decoder, elements);
    value.resize(elements.size());
    std::move(elements.begin(), elements.end(), std::begin(value));
  } else if constexpr (shape == Shape::kSet) {
    value.clear();
    for (size_t left = decoder.reader().ReadCount(); left > 0; --left) {
      auto key = typename T::value_type();
      Get(decoder, key);
      const size_t before = value.size();
      value.emplace_hint(value.end(), std::move(key));
      if (value.size() == before) decoder.reader().Malformed("another key");
    }
  } else if constexpr (shape == Shape::kMap) {
    value.clear();
    for (size_t left = decoder.reader().ReadCount(2); left > 0; --left) {
      auto key = typename T::key_type();
      auto mapped = typename T::mapped_type();
      Get(decoder, key);
      Get(decoder, mapped);
      const size_t before = value.size();
      value.emplace_hint(value.end(), std::move(key), std::move(mapped));
      if (value.size() == before) decoder.reader().Malformed("another key");
    }
  } else if constexpr (shape == Shape::kArray) {
    for (auto& element : value) Get(decoder, element);
  } else if constexpr (shape == Shape::kTuple) {
    std::apply([&](auto&... part) { (Get(decoder, part), ...); }, value);
  } else if constexpr (shape == Shape::kOptional) {
    if (decoder.reader().ReadBool()) {
      Get(decoder, value.emplace());
    } else {
      value.reset();
    }
  } else if constexpr (shape == Shape::kVariant) {
    const uint64_t index = decoder.reader().ReadVarint();
    if (index >= std::variant_size_v<T>) {
      decoder.reader().Malformed("the index of an alternative of the variant");
    }
    GetAlternative(decoder, index, value,
                   std::make_index_sequence<std::variant_size_v<T>>());
  } else if constexpr (shape == Shape::kDuration) {
    value = GetDuration(decoder.reader());
  } else if constexpr (shape == Shape::kTime) {
    value = absl::UnixEpoch() + GetDuration(decoder.reader());
  } else if constexpr (shape == Shape::kStatus) {
    value = GetStatus(decoder.reader());
  } else if constexpr (shape == Shape::kStatusOr) {
    if (decoder.reader().ReadBool()) {
      Get(decoder, value.emplace());
    } else {
      absl::Status error = GetStatus(decoder.reader());
      if (error.ok()) decoder.reader().Malformed("the status of an error");
      value = std::move(error);
    }
  } else if constexpr (shape == Shape::kDescriptor) {
    const uint64_t index = decoder.reader().ReadVarint();
    value = index == 0 ? os::Descriptor() : decoder.TakeDescriptor(index - 1);
  } else {
    decoder.GetByCereal(value);
  }
}

absl::Status TrailingBytes(const Reader& reader);

template <class T>
consteval void CheckDecodable() {
  CheckEncodable<T>();
  static_assert(!std::is_same_v<T, absl::Status>,
                "cohort: in a StatusOr<Status>, a status that arrived could "
                "not be told from an error on the way; decode it as part of "
                "something else, or with DecodeResult<void>");
}

}  // namespace serialize_internal

template <class T>
void Encoder::PutByCereal(const T& value) {
  constexpr serialize_internal::Shape shape = serialize_internal::kShape<T>;
  if constexpr (shape == serialize_internal::Shape::kCereal) {
    if (depth_ == kMaxDepth) TooDeep();
    ++depth_;
    const size_t before = frame_.size();
    Base::operator()(value);
    // Every value takes a byte at least: so a count of values can be compared
    // with the bytes left before anything is allocated for them.
    if (frame_.size() == before) *frame_.Extend(1) = 0;
    --depth_;
  } else {
    Base::operator()(value);
  }
}

template <class T>
void Decoder::GetByCereal(T& value) {
  constexpr serialize_internal::Shape shape = serialize_internal::kShape<T>;
  if constexpr (shape == serialize_internal::Shape::kCereal ||
                serialize_internal::kIsConstructWrapper<T>) {
    if (depth_ == kMaxDepth) TooDeep();
    ++depth_;
    const size_t before = offset();
    Base::operator()(value);
    if (offset() == before && *reader_.Take(1) != 0) {
      reader_.Malformed("a zero, the value of an empty type");
    }
    --depth_;
  } else if constexpr (serialize_internal::kIsSharedWrapper<T>) {
    using Target = typename serialize_internal::SharedTarget<T>::type;
    const size_t slot = shared_.size();
    wanted_ = &typeid(Target);
    Base::operator()(value);
    if (shared_.size() > slot) shared_[slot].whole = true;
  } else {
    Base::operator()(value);
  }
}

template <class T>
absl::Status EncodeTo(Frame& frame, const T& value) {
  CheckEncodable<T>();
  return serialize_internal::WriteOrUndo(frame, [&] {
    if constexpr (serialize_internal::IsFlat<T>()) {
      serialize_internal::FlatEncoder encoder(frame);
      serialize_internal::Put(encoder, value);
    } else if constexpr (Encodable<T>) {
      Encoder encoder(frame);
      encoder(value);
      encoder.serializeDeferments();
    }
  });
}

template <class T>
absl::Status EncodeTo(Encoder& encoder, const T& value) {
  CheckEncodable<T>();
  return serialize_internal::WriteOrUndo(encoder.frame(), [&] {
    if constexpr (Encodable<T>) encoder(value);
  });
}

template <class T>
absl::StatusOr<Frame> Encode(const T& value) {
  Frame frame;
  absl::Status status = EncodeTo(frame, value);
  if (!status.ok()) return status;
  return frame;
}

template <class T>
absl::StatusOr<T> Decode(std::string_view bytes,
                         std::vector<os::Descriptor> descriptors) {
  serialize_internal::CheckDecodable<T>();
  if constexpr (!Encodable<T>) {
    return absl::InternalError("");
  } else {
    try {
      if constexpr (serialize_internal::IsFlat<T>()) {
        serialize_internal::Reader reader(bytes);
        serialize_internal::FlatDecoder decoder(reader);
        absl::StatusOr<T> result;
        result.emplace();
        serialize_internal::Get(decoder, *result);
        if (reader.remaining() != 0) {
          return serialize_internal::TrailingBytes(reader);
        }
        return result;
      } else {
        Decoder decoder(bytes, std::move(descriptors));
        absl::StatusOr<T> result;
        result.emplace();
        decoder(*result);
        decoder.serializeDeferments();
        absl::Status whole = decoder.Finish();
        if (!whole.ok()) return whole;
        return result;
      }
    } catch (...) {
      return serialize_internal::StatusOfException(absl::StatusCode::kDataLoss);
    }
  }
}

template <class T>
absl::StatusOr<T> Decode(Frame frame) {
  return Decode<T>(frame.bytes(), std::move(frame.descriptors()));
}

template <class T>
absl::StatusOr<T> DecodeFrom(Decoder& decoder) {
  serialize_internal::CheckDecodable<T>();
  if constexpr (!Encodable<T>) {
    return absl::InternalError("");
  } else {
    try {
      absl::StatusOr<T> result;
      result.emplace();
      decoder(*result);
      return result;
    } catch (...) {
      return serialize_internal::StatusOfException(absl::StatusCode::kDataLoss);
    }
  }
}

}  // namespace cohort

// The functions by which cereal's own code reaches the archives.
namespace cereal {

template <class T>
std::enable_if_t<std::is_arithmetic_v<T>> CEREAL_SAVE_FUNCTION_NAME(
    cohort::Encoder& encoder, const T& value) {
  cohort::serialize_internal::Put(encoder, value);
}
template <class T>
std::enable_if_t<std::is_arithmetic_v<T>> CEREAL_LOAD_FUNCTION_NAME(
    cohort::Decoder& decoder, T& value) {
  cohort::serialize_internal::Get(decoder, value);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(cohort::Encoder& encoder,
                               const NameValuePair<T>& pair) {
  encoder(pair.value);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(cohort::Decoder& decoder,
                               NameValuePair<T>& pair) {
  decoder(pair.value);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(cohort::Encoder& encoder,
                               const SizeTag<T>& tag) {
  cohort::serialize_internal::PutVarint(encoder.frame(), tag.size);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(cohort::Decoder& decoder, SizeTag<T>& tag) {
  tag.size = decoder.reader().ReadCount();
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(cohort::Encoder& encoder,
                               const BinaryData<T>& data) {
  encoder.frame().Append({reinterpret_cast<const char*>(data.data), data.size});
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(cohort::Decoder& decoder, BinaryData<T>& data) {
  decoder.reader().Read(data.data, data.size);
}

}  // namespace cereal

CEREAL_REGISTER_ARCHIVE(cohort::Encoder)
CEREAL_REGISTER_ARCHIVE(cohort::Decoder)

#endif  // COHORT_SERIALIZE_CODEC_H_
