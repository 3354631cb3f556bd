// SPDX-License-Identifier: Apache-2.0
//
// Values to frames and back.
#ifndef COHORT_SERIALIZE_CODEC_H_
#define COHORT_SERIALIZE_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cereal/cereal.hpp"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/frame.h"

namespace cohort {

// What a type's save() or serialize() is handed while a value is written. A
// handle type writes its descriptors like any other member:
//   template <class Archive> void serialize(Archive& a) { a(memfd_, size_); }
// (os::Descriptor is encodable: save duplicates it, load takes it.)
class Encoder final
    : public cereal::OutputArchive<Encoder, cereal::AllowEmptyClassElision> {
 public:
  // Appends to `frame`, which outlives it.
  explicit Encoder(Frame& frame);
  Frame& frame();
  template <class... T>
  Encoder& operator()(T&&... values);
  // Adds a descriptor to the frame and returns its index, to be written.
  uint32_t AddDescriptor(os::Descriptor&& given);
  uint32_t AddDescriptor(const os::Descriptor& borrowed);  // duplicates
  // Ends the whole Encode() with `status`. For save() functions.
  [[noreturn]] void Fail(absl::Status status);
};

class Decoder final
    : public cereal::InputArchive<Decoder, cereal::AllowEmptyClassElision> {
 public:
  explicit Decoder(std::string_view bytes,
                   std::vector<os::Descriptor> descriptors = {});
  template <class... T>
  Decoder& operator()(T&&... values);
  // Hands over the descriptor, once; else ends the whole Decode().
  os::Descriptor TakeDescriptor(uint32_t index);
  [[noreturn]] void Fail(absl::Status status);
  size_t offset() const;
  size_t remaining() const;
};

template <class T>
absl::StatusOr<Frame> Encode(const T& value);
// Appends; on an error the frame is as it was.
template <class T>
absl::Status EncodeTo(Frame& frame, const T& value);
template <class T>
absl::Status EncodeTo(Encoder& encoder, const T& value);

template <class T>
absl::StatusOr<T> Decode(std::string_view bytes,
                         std::vector<os::Descriptor> descriptors = {});
template <class T>
absl::StatusOr<T> Decode(Frame frame);
// Reads one value and leaves the rest for the next.
template <class T>
absl::StatusOr<T> DecodeFrom(Decoder& decoder);

// True for types whose encoding is exactly their sizeof(T) bytes: a carrier may
// copy such a value in place.
template <class T>
inline constexpr bool kEncodesAsBytes = false;

}  // namespace cohort

#endif  // COHORT_SERIALIZE_CODEC_H_
