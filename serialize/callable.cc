// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/callable.h"

#include <cxxabi.h>

#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace cohort {
namespace serialize_internal {

namespace {

absl::Status Thrown(const std::string& type, const std::string& message) {
  absl::Status status = absl::UnknownError(message);
  status.SetPayload(
      absl::string_view(kExceptionPayload.data(), kExceptionPayload.size()),
      absl::Cord(type));
  return status;
}

}  // namespace

absl::Status StatusOfFunction() {
  const std::string type = NameOfCurrentException();
  try {
    throw;
  } catch (abi::__forced_unwind&) {
    throw;  // The thread is being cancelled; stopping that would be fatal.
  } catch (const std::exception& e) {
    return Thrown(type,
                  absl::StrCat("the function threw ", type, ": ", e.what()));
  } catch (...) {
    return Thrown(type, absl::StrCat("the function threw ", type));
  }
}

void PutError(Frame& frame, const absl::Status& error, bool is_status_or) {
  (void)WriteOrUndo(frame, [&] {
    if (is_status_or) *frame.Extend(1) = 0;
    PutStatus(frame, error);
  });
}

namespace {

// Runs the entry that the next code reference names.
template <class Entry>
auto Enter(Decoder& decoder) {
  CodeRef ref;
  Get(decoder, ref);
  absl::StatusOr<Entry*> entry = cohort::ResolveCodeRef<Entry>(ref);
  if (!entry.ok()) decoder.Fail(entry.status());
  return (*entry)(decoder);
}

}  // namespace
}  // namespace serialize_internal

absl::StatusOr<BoundCall> DecodeCall(Decoder& decoder) {
  try {
    return BoundCall(
        serialize_internal::Enter<serialize_internal::CallEntry>(decoder));
  } catch (...) {
    return serialize_internal::StatusOfException(absl::StatusCode::kDataLoss);
  }
}

absl::StatusOr<BoundCall> DecodeCall(std::string_view bytes,
                                     std::vector<os::Descriptor> descriptors) {
  Decoder decoder(bytes, std::move(descriptors));
  absl::StatusOr<BoundCall> call = DecodeCall(decoder);
  if (!call.ok()) return call;
  absl::Status whole = decoder.Finish();
  if (!whole.ok()) return whole;
  return call;
}

absl::Status RunCall(Decoder& decoder, Frame& result) {
  absl::StatusOr<BoundCall> call = DecodeCall(decoder);
  if (!call.ok()) return call.status();
  // What became of it stands in `result`.
  (void)std::move(*call).Run(result);
  return absl::OkStatus();
}

absl::StatusOr<BoundMap> DecodeFunction(Decoder& decoder) {
  try {
    return BoundMap(
        serialize_internal::Enter<serialize_internal::MapEntry>(decoder));
  } catch (...) {
    return serialize_internal::StatusOfException(absl::StatusCode::kDataLoss);
  }
}

}  // namespace cohort
