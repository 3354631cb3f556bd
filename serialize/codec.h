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
// is written down in docs/formats/wire.md.

#ifndef COHORT_SERIALIZE_CODEC_H_
#define COHORT_SERIALIZE_CODEC_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <valarray>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "cereal/cereal.hpp"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/encodable.h"
#include "cohort/serialize/frame.h"
#include "cohort/serialize/internal/split.h"

namespace cohort {

static_assert(std::endian::native == std::endian::little,
              "the wire format is little-endian and not converted");

// Values within values, counted at types with a serialize(): as deep as a
// reader follows, and hence as a writer writes.
inline constexpr int kMaxDepth = 64;

// Objects that own each other, one behind the other, whether they were written
// within each other or not: so deep does their destruction nest.
inline constexpr int kMaxChain = 1024;

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

class Reader;
// Likewise DataLoss, with where `reader` stands.
absl::Status StatusOfException(const Reader& reader);

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
  if (text.size() < 0x80) [[likely]] {
    char* const to = frame.Extend(1 + text.size());
    *to = static_cast<char>(text.size());
    if (!text.empty()) std::memcpy(to + 1, text.data(), text.size());
  } else {
    PutLongVarint(frame, text.size());
    frame.Append(text);
  }
}

// Who owns whom among the shared objects of a message. A chain of objects is
// destroyed by as many nested destructors, so chains are as short for readers
// as they are for writers; and a ring of them would never be destroyed.
class Owners final {
 public:
  // Where in the message something stands.
  struct Place {
    uint32_t object = 0;  // The innermost shared object, counted from 1.
    int depth = 0;        // Below the outermost value, through deferments too.
    int at = 0;           // Of which `object` is so deep.
    int movable = 0;      // Values around it that are moved when complete.
  };

  // A new object, owned by nobody yet. The first is number 1.
  void Add() { objects_.emplace_back(); }

  // Says that what stands at `place` owns `object`. Returns whether it may.
  [[nodiscard]] bool Own(const Place& place, uint32_t object);

 private:
  struct Object {
    int height = 0;   // Of the chains that begin here.
    uint32_t by = 0;  // The first of `links_` to it, plus one.
  };
  struct Link {
    uint32_t owner;
    int length;
    uint32_t next;  // Likewise.
  };
  bool Raise(uint32_t object, int height, int64_t& work);

  std::vector<Object> objects_;
  std::vector<Link> links_;
};

void PutDuration(Frame& frame, absl::Duration value);
void PutCivil(Frame& frame, absl::CivilSecond value);
void PutCord(Frame& frame, const absl::Cord& value);
void PutStatus(Frame& frame, const absl::Status& value);
absl::Duration GetDuration(Reader& reader);
absl::Status GetStatus(Reader& reader);
absl::CivilSecond GetCivil(Reader& reader);

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

  // Writes what cereal::defer() put off, and what that puts off. EncodeTo()
  // calls it.
  void serializeDeferments();

  // For serialize_internal::Put().
  template <class T>
  void PutByCereal(const T& value);
  template <class T>
  void PutMovable(const T& value) {
    ++place_.movable;
    serialize_internal::Put(*this, value);
    --place_.movable;
  }
  // Writes a key as a message of its own to the end of `keys`.
  template <class T>
  void PutKey(Frame& keys, const T& key);

 private:
  using Base = cereal::OutputArchive<Encoder, cereal::AllowEmptyClassElision>;

  uint32_t Share(std::shared_ptr<const void> pointer,
                 const std::type_info& type);
  void Defer(std::function<void()> write);
  [[noreturn]] void TooDeep();

  Frame& frame_;
  int depth_ = 0;
  serialize_internal::Owners owners_;
  serialize_internal::Owners::Place place_;
  bool weak_ = false;  // The next pointer to be written owns nothing.
  std::deque<
      std::pair<serialize_internal::Owners::Place, std::function<void()>>>
      deferred_;
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

  // Reads what cereal::defer() put off. Decode() calls it.
  void serializeDeferments();

  // For serialize_internal::Get().
  serialize_internal::Reader& reader() { return reader_; }
  template <class T>
  void GetByCereal(T& value);
  template <class T>
  void GetMovable(T& value) {
    ++place_.movable;
    serialize_internal::Get(*this, value);
    --place_.movable;
  }
  template <class T>
  void GetKey(T& key);
  // For the functions below by which cereal reads: what it calls so, it does
  // not check.
  void CheckNamed(const char* name, uint32_t value);
  void CheckNamed(const char* name, const std::string& value);

 private:
  using Base = cereal::InputArchive<Decoder, cereal::AllowEmptyClassElision>;

  struct Shared {
    std::shared_ptr<void> object;
    const std::type_info* type;
    bool whole;  // Constructed; by load_and_construct() only when it returns.
  };

  void AddShared(uint32_t id, std::shared_ptr<void> object,
                 const std::type_info& type, bool whole);
  void Own(uint32_t id);
  void Defer(std::function<void()> read);
  [[noreturn]] void TooDeep();

  serialize_internal::Reader reader_;
  int depth_ = 0;
  serialize_internal::Owners owners_;
  serialize_internal::Owners::Place place_;
  bool weak_ = false;  // The next pointer to be read owns nothing.
  std::deque<
      std::pair<serialize_internal::Owners::Place, std::function<void()>>>
      deferred_;
  std::vector<std::string> names_;  // Of polymorphic types.
  std::vector<os::Descriptor> own_;
  std::vector<os::Descriptor>* descriptors_;
  Decoder* outer_ = nullptr;
  std::vector<Shared> shared_;
  const std::type_info* wanted_ = nullptr;  // By the pointer being read.
};

// Returns `value` as a frame. InvalidArgument where it is too deep, where
// objects own each other in a ring, or a serialize() function throws;
// ResourceExhausted where memory or descriptors run out; whatever a save()
// function passed to Encoder::Fail().
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

// A member that stands first in a message between programs that might not be of
// one build: reading it fails with FailedPrecondition, and says so, where the
// sender's format is another one (kWireVersion, serialize/frame.h) or its byte
// order is.
struct WireVersion {
  void save(Encoder& encoder) const;
  void load(Decoder& decoder);
};

// Implementation only below.

namespace serialize_internal {

// Runs `write`, and takes back what it wrote if it throws. Not inlined, for the
// sake of EncodeTo(), which is.
template <class Write>
[[gnu::noinline]] absl::Status WriteOrUndo(Frame& frame, Write write) {
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
inline constexpr bool kIsUniqueWrapper = false;
template <class T, class D>
inline constexpr bool kIsUniqueWrapper<
    cereal::memory_detail::PtrWrapper<std::unique_ptr<T, D>&>> = true;

// As they are written.
template <class T>
inline constexpr bool kIsOwnerWrapper = false;
template <class T>
inline constexpr bool kIsOwnerWrapper<
    cereal::memory_detail::PtrWrapper<const std::shared_ptr<T>&>> = true;
template <class T, class D>
inline constexpr bool kIsOwnerWrapper<
    cereal::memory_detail::PtrWrapper<const std::unique_ptr<T, D>&>> = true;

template <class T>
inline constexpr bool kIsWeak = false;
template <class T>
inline constexpr bool kIsWeak<std::weak_ptr<T>> = true;

template <class T>
inline constexpr bool kIsDeferred = false;
template <class T>
inline constexpr bool kIsDeferred<cereal::DeferredData<T>> = true;

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

// The container in an adaptor, which is a protected member of it.
template <class A>
struct Opened : A {
  static auto& Container(A& adaptor) { return adaptor.*&Opened::c; }
  static const auto& Container(const A& adaptor) { return adaptor.*&Opened::c; }
  static bool InOrder(const A& adaptor) {
    if constexpr (requires { &Opened::comp; }) {
      const auto& all = Container(adaptor);
      return std::is_heap(all.begin(), all.end(), adaptor.*&Opened::comp);
    } else {
      return true;
    }
  }
};

// Whether all members of an aggregate have an address in it. If there are bit
// fields, it is read and written as it stands.
template <class T, class... M>
bool AllWithin(const T& value, const M&... member) {
  const auto from = reinterpret_cast<uintptr_t>(std::addressof(value));
  return ((reinterpret_cast<uintptr_t>(std::addressof(member)) - from <
           sizeof(T)) &&
          ...);
}

// Zeroes the bytes at `to`, a copy of `value`, in which no member lies: they
// have no meaning, but differ from process to process.
template <class T>
void ClearPadding(char* to, const T& value) {
  if constexpr (std::is_same_v<T, long double>) {
    if constexpr (std::numeric_limits<long double>::digits == 64) {
      std::memset(to + 10, 0, sizeof(T) - 10);
    }
  } else if constexpr (std::is_array_v<T>) {
    for (const auto& element : value) {
      ClearPadding(to, element);
      to += sizeof(element);
    }
  } else if constexpr (CountMembers<T>() != 0) {
    Split(value, [to, &value](const auto&... member) {
      if (!AllWithin(value, member...)) return;
      const char* const from =
          reinterpret_cast<const char*>(std::addressof(value));
      size_t end = 0;
      auto clear = [&](const auto& one) {
        const auto at = static_cast<size_t>(
            reinterpret_cast<const char*>(std::addressof(one)) - from);
        if (at > end) std::memset(to + end, 0, at - end);
        ClearPadding(to + at, one);
        end = std::max(end, at + sizeof(one));
      };
      (clear(member), ...);
      if (end < sizeof(T)) std::memset(to + end, 0, sizeof(T) - end);
    });
  }
}
// A float has more than one representation, but no padding.
template <class T>
constexpr bool MayHavePadding() {
  using E = std::remove_all_extents_t<T>;
  if constexpr (std::is_same_v<E, long double>) {
    return true;
  } else if constexpr (std::is_floating_point_v<E> || !std::is_class_v<E>) {
    return false;
  } else if constexpr (std::has_unique_object_representations_v<E> ||
                       CountMembers<E>() == 0) {
    return false;
  } else {
    return []<class... M>(Types<M...>) {
      return (sizeof(M) + ... + 0) != sizeof(E) || (MayHavePadding<M>() || ...);
    }(decltype(Split(std::declval<const E&>(),
                     []<class... M>(const M&...) { return Types<M...>(); }))());
  }
}

template <class T>
void PutBytes(Frame& frame, const T* values, size_t count) {
  if (count == 0) return;
  char* to = frame.Extend(count * sizeof(T));
  std::memcpy(to, values, count * sizeof(T));
  if constexpr (MayHavePadding<T>()) {
    for (size_t i = 0; i < count; ++i) {
      ClearPadding(to + i * sizeof(T), values[i]);
    }
  }
}

template <class E, class T>
void PutAll(E& encoder, const T& values) {
  for (const auto& value : values) Put(encoder, value);
}
template <class E, class T>
void PutMovable(E& encoder, const T& value) {
  if constexpr (IsFlat<T>()) {
    Put(encoder, value);
  } else {
    encoder.PutMovable(value);
  }
}
template <class E, class T>
void PutAllMovable(E& encoder, const T& values) {
  for (const auto& value : values) PutMovable(encoder, value);
}

// How the keys of an unordered container are put in order: by their bytes, and
// entries with equal keys by those of their values. A key that is written with
// the help of tables becomes a message of its own, so that its bytes do not
// depend on where it stands; pointers have no order at all.
template <class T>
inline constexpr bool kIsOwner = kShape<T> == Shape::kOwner;
template <class T>
constexpr bool SortsByValue() {
  if constexpr (kShape<T> == Shape::kMap && Repeating<T>) {
    return IsFlat<typename T::mapped_type>();
  } else {
    return false;
  }
}

template <class E, class K>
void PutKey(E& encoder, Frame& keys, const K& key) {
  if constexpr (IsFlat<K>()) {
    FlatEncoder flat(keys);
    Put(flat, key);
  } else {
    encoder.PutKey(keys, key);
  }
}

template <class E, class T>
void PutSorted(E& encoder, const T& values) {
  struct Entry {
    std::string_view bytes;
    const typename T::value_type* value;
  };
  Frame keys;
  std::vector<std::pair<size_t, const typename T::value_type*>> ends;
  ends.reserve(values.size());
  for (const auto& value : values) {
    if constexpr (kShape<T> == Shape::kMap) {
      PutKey(encoder, keys, value.first);
      if constexpr (SortsByValue<T>()) PutKey(encoder, keys, value.second);
    } else {
      PutKey(encoder, keys, value);
    }
    ends.emplace_back(keys.size(), std::addressof(value));
  }
  std::vector<Entry> entries;
  entries.reserve(ends.size());
  size_t begin = 0;
  for (const auto& [end, value] : ends) {
    entries.push_back({keys.bytes().substr(begin, end - begin), value});
    begin = end;
  }
  // Stable: the order of what has equal keys and unsorted values is kept.
  std::stable_sort(
      entries.begin(), entries.end(),
      [](const Entry& a, const Entry& b) { return a.bytes < b.bytes; });
  if constexpr (!Repeating<T>) {
    const auto same = [](const Entry& a, const Entry& b) {
      return a.bytes == b.bytes;
    };
    if (std::adjacent_find(entries.begin(), entries.end(), same) !=
        entries.end()) {
      throw Abandon{absl::InvalidArgumentError(
          "two keys of one container that differ, but not in their bytes, as "
          "NaN does from itself")};
    }
  }
  for (const Entry& entry : entries) {
    encoder.frame().Append(entry.bytes);
    if constexpr (kShape<T> == Shape::kMap && !SortsByValue<T>()) {
      PutMovable(encoder, entry.value->second);
    }
  }
}

template <class T>
void PutBits(Frame& frame, const T& value) {
  const size_t bytes = value.size() / 8 + (value.size() % 8 != 0);
  char* at = frame.Extend(bytes);
  std::memset(at, 0, bytes);
  for (size_t i = 0; i < value.size(); ++i) {
    at[i / 8] = static_cast<char>(at[i / 8] | (value[i] << i % 8));
  }
}
template <class T>
void GetBits(Reader& reader, size_t count, T& value) {
  const size_t bytes = count / 8 + (count % 8 != 0);
  const char* at = reader.Take(bytes);
  if (count % 8 != 0 &&
      static_cast<unsigned char>(at[bytes - 1]) >> count % 8 != 0) {
    reader.Malformed("zeroes after the last bit");
  }
  for (size_t i = 0; i < count; ++i) value[i] = (at[i / 8] >> i % 8 & 1) != 0;
}

// Sequences that, when they grow, move what they hold.
template <class T>
inline constexpr bool kMovesElements = requires(T& t) {
  t.reserve(1);
};
template <class T>
inline constexpr bool kMovesElements<std::valarray<T>> = true;

template <class E, class T>
void Put(E& encoder, const T& value) {
  CheckFlaw<T, true>();
  constexpr Shape shape = kShape<T>;
  if constexpr (FindFlaw<T, true>() != Flaw::kNone) {
    // Said already.
  } else if constexpr (IsBytes<T>()) {
    PutBytes(encoder.frame(), std::addressof(value), 1);
  } else if constexpr (shape == Shape::kBool) {
    *encoder.frame().Extend(1) = static_cast<bool>(value) ? 1 : 0;
  } else if constexpr (shape == Shape::kUnit) {
    *encoder.frame().Extend(1) = 0;
  } else if constexpr (shape == Shape::kString) {
    constexpr size_t kEach = sizeof(typename T::value_type);
    const char* const bytes = reinterpret_cast<const char*>(value.data());
    if constexpr (kEach == 1) {
      PutText(encoder.frame(), {bytes, value.size()});
    } else {
      PutVarint(encoder.frame(), value.size());
      encoder.frame().Append({bytes, value.size() * kEach});
    }
  } else if constexpr (shape == Shape::kPath) {
    PutText(encoder.frame(), value.native());
  } else if constexpr (shape == Shape::kCord) {
    PutCord(encoder.frame(), value);
  } else if constexpr (shape == Shape::kBits) {
    PutVarint(encoder.frame(), value.size());
    PutBits(encoder.frame(), value);
  } else if constexpr (shape == Shape::kBitset) {
    PutBits(encoder.frame(), value);
  } else if constexpr (shape == Shape::kForwardList) {
    PutVarint(encoder.frame(),
              static_cast<uint64_t>(std::distance(value.begin(), value.end())));
    PutAll(encoder, value);
  } else if constexpr (shape == Shape::kSequence || shape == Shape::kFixed ||
                       shape == Shape::kValarray) {
    PutVarint(encoder.frame(), value.size());
    using Element = typename T::value_type;
    if constexpr (IsBytes<Element>() && shape != Shape::kValarray &&
                  std::ranges::contiguous_range<T>) {
      PutBytes(encoder.frame(), value.data(), value.size());
    } else if constexpr (kMovesElements<T>) {
      PutAllMovable(encoder, value);
    } else {
      PutAll(encoder, value);
    }
  } else if constexpr (shape == Shape::kSet || shape == Shape::kMap) {
    PutVarint(encoder.frame(), value.size());
    if constexpr (Unordered<T> && !kIsOwner<typename T::key_type>) {
      PutSorted(encoder, value);
    } else if constexpr (shape == Shape::kSet) {
      PutAllMovable(encoder, value);
    } else {
      for (const auto& [key, mapped] : value) {
        PutMovable(encoder, key);
        PutMovable(encoder, mapped);
      }
    }
  } else if constexpr (shape == Shape::kAdaptor) {
    Put(encoder, Opened<T>::Container(value));
  } else if constexpr (shape == Shape::kArray) {
    PutAll(encoder, value);
  } else if constexpr (shape == Shape::kTuple) {
    std::apply([&](const auto&... part) { (Put(encoder, part), ...); }, value);
  } else if constexpr (shape == Shape::kMembers) {
    Split(value, [&](const auto&... member) {
      if (AllWithin(value, member...)) {
        (Put(encoder, member), ...);
      } else {
        std::memcpy(encoder.frame().Extend(sizeof(T)), std::addressof(value),
                    sizeof(T));
      }
    });
  } else if constexpr (shape == Shape::kOptional) {
    Put(encoder, value.has_value());
    if (value.has_value()) Put(encoder, *value);
  } else if constexpr (shape == Shape::kVariant) {
    if (value.valueless_by_exception()) {
      throw Abandon{absl::InvalidArgumentError("a variant without a value")};
    }
    PutVarint(encoder.frame(), value.index());
    visit([&](const auto& held) { Put(encoder, held); }, value);
  } else if constexpr (shape == Shape::kDuration) {
    PutDuration(encoder.frame(), value);
  } else if constexpr (shape == Shape::kTime) {
    PutDuration(encoder.frame(), value - absl::UnixEpoch());
  } else if constexpr (shape == Shape::kCivil) {
    PutCivil(encoder.frame(), absl::CivilSecond(value));
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
void GetMovable(D& decoder, T& value) {
  if constexpr (IsFlat<T>()) {
    Get(decoder, value);
  } else {
    decoder.GetMovable(value);
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
    if constexpr (kMovesElements<T>) {
      GetMovable(decoder, values.back());
    } else {
      Get(decoder, values.back());
    }
  }
}

template <class... T>
constexpr size_t CountTypes(Types<T...>) {
  return sizeof...(T);
}
template <class D, class T, size_t... I>
void GetAlternative(D& decoder, uint64_t index, T& value,
                    std::index_sequence<I...>) {
  (void)((index == I && (Get(decoder, value.template emplace<I>()), true)) ||
         ...);
}

// Reads what a T in a container is to be constructed from: text is copied
// straight to where it stays.
template <class T, class D>
auto GetArguments(D& decoder) {
  if constexpr (std::is_same_v<T, std::string>) {
    const size_t size = decoder.reader().ReadCount();
    return std::tuple(decoder.reader().Take(size), size);
  } else {
    std::tuple<T> value;
    GetMovable(decoder, std::get<0>(value));
    return value;
  }
}
// Likewise a key, which is a message of its own where it has tables.
template <class T, class D>
auto GetKeyArguments(D& decoder) {
  if constexpr (IsFlat<T>()) {
    return GetArguments<T>(decoder);
  } else {
    std::tuple<T> key;
    decoder.GetKey(std::get<0>(key));
    return key;
  }
}

template <class D, class T>
void GetEntries(D& decoder, T& values) {
  constexpr bool kMap = kShape<T> == Shape::kMap;
  using Key = std::remove_const_t<typename T::key_type>;
  // By their bytes.
  constexpr bool kSorted = Unordered<T> && !kIsOwner<Key>;
  values.clear();
  [[maybe_unused]] std::string_view last;
  const size_t count = decoder.reader().ReadCount(kMap ? 2 : 1);
  if constexpr (requires { values.reserve(count); }) {
    values.reserve(std::min(
        count, decoder.reader().remaining() / sizeof(typename T::value_type)));
  }
  for (size_t i = 0; i < count; ++i) {
    [[maybe_unused]] const char* const begin = decoder.reader().at();
    auto key = [&] {
      if constexpr (kSorted) {
        return GetKeyArguments<Key>(decoder);
      } else {
        return GetArguments<Key>(decoder);
      }
    }();
    [[maybe_unused]] const char* end = decoder.reader().at();
    const size_t before = values.size();
    typename T::iterator added;
    if constexpr (kMap) {
      auto mapped = GetArguments<typename T::mapped_type>(decoder);
      if constexpr (SortsByValue<T>()) end = decoder.reader().at();
      added = values.emplace_hint(values.end(), std::piecewise_construct,
                                  std::move(key), std::move(mapped));
    } else {
      added = std::apply(
          [&values](auto&&... part) {
            return values.emplace_hint(values.end(), std::move(part)...);
          },
          std::move(key));
    }
    if (values.size() == before) [[unlikely]]
      decoder.reader().Malformed("another key");
    if constexpr (Ordered<T>) {
      if (added != std::prev(values.end())) [[unlikely]]
        decoder.reader().Malformed("a key that is not below the one before");
    } else if constexpr (kSorted) {
      const std::string_view bytes(begin, static_cast<size_t>(end - begin));
      if (i != 0 && (Repeating<T> ? bytes < last : bytes <= last)) [[unlikely]]
        decoder.reader().Malformed("a key whose bytes are not below the last");
      last = bytes;
    }
  }
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
  } else if constexpr (shape == Shape::kPath) {
    const size_t count = decoder.reader().ReadCount();
    value = std::string(decoder.reader().Take(count), count);
  } else if constexpr (shape == Shape::kCord) {
    const size_t count = decoder.reader().ReadCount();
    value = absl::string_view(decoder.reader().Take(count), count);
  } else if constexpr (shape == Shape::kBits) {
    const uint64_t count = decoder.reader().ReadVarint();
    const uint64_t bytes = count / 8 + (count % 8 != 0);
    if (bytes > decoder.reader().remaining()) decoder.reader().Overlong(bytes);
    value.resize(count);
    GetBits(decoder.reader(), count, value);
  } else if constexpr (shape == Shape::kBitset) {
    GetBits(decoder.reader(), value.size(), value);
  } else if constexpr (shape == Shape::kSequence) {
    using Element = typename T::value_type;
    if constexpr (IsBytes<Element>() && std::ranges::contiguous_range<T>) {
      const size_t count = decoder.reader().ReadCount(sizeof(Element));
      GetBytesInto(decoder.reader(), count, value);
    } else {
      GetElements(decoder, decoder.reader().ReadCount(), value);
    }
  } else if constexpr (shape == Shape::kFixed) {
    if (decoder.reader().ReadVarint() != value.size()) {
      decoder.reader().Malformed("as many elements as the array has");
    }
    for (auto& element : value) Get(decoder, element);
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
  } else if constexpr (shape == Shape::kSet || shape == Shape::kMap) {
    GetEntries(decoder, value);
  } else if constexpr (shape == Shape::kAdaptor) {
    Get(decoder, Opened<T>::Container(value));
    if (!Opened<T>::InOrder(value)) {
      decoder.reader().Malformed("a heap, as a priority queue holds one");
    }
  } else if constexpr (shape == Shape::kArray) {
    for (auto& element : value) Get(decoder, element);
  } else if constexpr (shape == Shape::kTuple) {
    std::apply([&](auto&... part) { (Get(decoder, part), ...); }, value);
  } else if constexpr (shape == Shape::kMembers) {
    Split(value, [&](const auto&... member) {
      if (AllWithin(value, member...)) {
        // Members of a value that is not const.
        (Get(decoder,
             const_cast<std::remove_cvref_t<decltype(member)>&>(member)),
         ...);
      } else {
        decoder.reader().Read(static_cast<void*>(std::addressof(value)),
                              sizeof(T));
      }
    });
  } else if constexpr (shape == Shape::kOptional) {
    if (decoder.reader().ReadBool()) {
      Get(decoder, value.emplace());
    } else {
      value.reset();
    }
  } else if constexpr (shape == Shape::kVariant) {
    const uint64_t index = decoder.reader().ReadVarint();
    constexpr size_t kSize = CountTypes(typename Known<T>::Parts());
    if (index >= kSize) {
      decoder.reader().Malformed("the index of an alternative of the variant");
    }
    GetAlternative(decoder, index, value, std::make_index_sequence<kSize>());
  } else if constexpr (shape == Shape::kDuration) {
    value = GetDuration(decoder.reader());
  } else if constexpr (shape == Shape::kTime) {
    value = absl::UnixEpoch() + GetDuration(decoder.reader());
  } else if constexpr (shape == Shape::kCivil) {
    const absl::CivilSecond second = GetCivil(decoder.reader());
    value = T(second);
    if (absl::CivilSecond(value) != second) {
      decoder.reader().Malformed("the beginning of a day, an hour or the like");
    }
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

// Becomes a T where a T is initialized with it: StatusOr::emplace() would zero
// the memory first.
template <class T>
struct FromBytes {
  const char* bytes;
  operator T() const {  // NOLINT: converting is what it is for.
    T value;
    std::memcpy(static_cast<void*>(std::addressof(value)), bytes, sizeof(T));
    return value;
  }
};

// Not inlined, for the sake of Decode(), which is.
template <class T>
[[gnu::noinline]] absl::StatusOr<T> DecodeFlat(std::string_view bytes) {
  try {
    Reader reader(bytes);
    FlatDecoder decoder(reader);
    absl::StatusOr<T> result;
    result.emplace();
    Get(decoder, *result);
    if (reader.remaining() != 0) return TrailingBytes(reader);
    return result;
  } catch (...) {
    return StatusOfException(absl::StatusCode::kDataLoss);
  }
}

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
  if constexpr (serialize_internal::kShape<T> ==
                serialize_internal::Shape::kCereal) {
    if (depth_ == kMaxDepth) TooDeep();
    ++depth_;
    ++place_.depth;
    const size_t before = frame_.size();
    Base::operator()(value);
    // Every value takes a byte at least: so a count of values can be compared
    // with the bytes left before anything is allocated for them.
    if (frame_.size() == before) *frame_.Extend(1) = 0;
    --depth_;
    --place_.depth;
  } else if constexpr (serialize_internal::kIsDeferred<T>) {
    Defer([this, value] { (*this)(value.value); });
  } else if constexpr (serialize_internal::kIsWeak<T>) {
    weak_ = true;
    Base::operator()(value);
    weak_ = false;
  } else if constexpr (serialize_internal::kIsOwnerWrapper<T>) {
    // What a pointer refers to stays where it is, whoever holds the pointer.
    const serialize_internal::Owners::Place place = place_;
    place_.movable = 0;
    Base::operator()(value);
    place_ = place;
  } else {
    Base::operator()(value);
  }
}

template <class T>
void Encoder::PutKey(Frame& keys, const T& key) {
  Encoder alone(keys);
  alone.depth_ = depth_;
  alone.place_.depth = place_.depth;
  alone.place_.movable = 1;
  alone(key);
  alone.serializeDeferments();
  if (!keys.descriptors().empty()) {
    Fail(absl::InvalidArgumentError(
        "a key with a descriptor in it, by which nothing can be ordered"));
  }
}

template <class T>
void Decoder::GetKey(T& key) {
  Decoder alone(this);
  alone.depth_ = depth_;
  alone.place_.depth = place_.depth;
  alone.place_.movable = 1;
  alone(key);
  alone.serializeDeferments();
}

template <class T>
void Decoder::GetByCereal(T& value) {
  constexpr serialize_internal::Shape shape = serialize_internal::kShape<T>;
  if constexpr (shape == serialize_internal::Shape::kCereal ||
                serialize_internal::kIsConstructWrapper<T>) {
    if (depth_ == kMaxDepth) TooDeep();
    ++depth_;
    ++place_.depth;
    const size_t before = offset();
    Base::operator()(value);
    if (offset() == before && *reader_.Take(1) != 0) {
      reader_.Malformed("a zero, the value of an empty type");
    }
    --depth_;
    --place_.depth;
  } else if constexpr (serialize_internal::kIsDeferred<T>) {
    Defer([this, value]() mutable { (*this)(value.value); });
  } else if constexpr (serialize_internal::kIsWeak<T>) {
    weak_ = true;
    Base::operator()(value);
    weak_ = false;
  } else if constexpr (serialize_internal::kIsSharedWrapper<T>) {
    using Target = typename serialize_internal::SharedTarget<T>::type;
    const serialize_internal::Owners::Place place = place_;
    place_.movable = 0;
    const size_t slot = shared_.size();
    wanted_ = &typeid(Target);
    Base::operator()(value);
    if (shared_.size() > slot) shared_[slot].whole = true;
    place_ = place;
  } else if constexpr (serialize_internal::kIsUniqueWrapper<T>) {
    const serialize_internal::Owners::Place place = place_;
    place_.movable = 0;
    if (reader_.remaining() != 0 && (*reader_.at() & ~1) != 0) {
      reader_.Malformed("a bool of 0 or 1");
    }
    Base::operator()(value);
    place_ = place;
  } else {
    Base::operator()(value);
  }
}

template <class T>
inline absl::Status EncodeTo(Frame& frame, const T& value) {
  CheckEncodable<T>();
  if constexpr (kEncodesAsBytes<T>) {
    if (frame.capacity() - frame.size() >= sizeof(T)) [[likely]] {
      serialize_internal::PutBytes(frame, std::addressof(value), 1);
      return absl::OkStatus();
    }
  }
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
    if constexpr (Encodable<T>) {
      encoder(value);
      encoder.serializeDeferments();
    }
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
  } else if constexpr (serialize_internal::IsFlat<T>()) {
    if constexpr (kEncodesAsBytes<T> &&
                  (std::is_aggregate_v<T> || std::is_scalar_v<T>)) {
      if (bytes.size() == sizeof(T)) [[likely]] {
        return serialize_internal::FromBytes<T>{bytes.data()};
      }
    }
    return serialize_internal::DecodeFlat<T>(bytes);
  } else {
    Decoder decoder(bytes, std::move(descriptors));
    try {
      absl::StatusOr<T> result;
      result.emplace();
      decoder(*result);
      decoder.serializeDeferments();
      absl::Status whole = decoder.Finish();
      if (!whole.ok()) return whole;
      return result;
    } catch (...) {
      return serialize_internal::StatusOfException(decoder.reader());
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
      decoder.serializeDeferments();
      return result;
    } catch (...) {
      return serialize_internal::StatusOfException(decoder.reader());
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
  if constexpr (std::is_same_v<T, uint32_t&> ||
                std::is_same_v<T, std::string&>) {
    decoder.CheckNamed(pair.name, pair.value);
  }
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
