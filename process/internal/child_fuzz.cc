// SPDX-License-Identifier: Apache-2.0
//
// What a parent and its child say to each other at a start, made up.

#include "cohort/process/internal/child.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cohort/os/check.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort::process_internal {
namespace {

void Read(std::string_view bytes) {
  // What is understood is what somebody could have said.
  if (absl::StatusOr<Report> report = DecodeReport(bytes); report.ok()) {
    absl::StatusOr<Report> again = DecodeReport(EncodeReport(*report));
    os::Check(again.ok() && again->kind == report->kind &&
                  again->status.code() == report->status.code(),
              "a report changed on its way");
  }
  absl::StatusOr<StartMessage> start = Decode<StartMessage>(bytes);
  if (start.ok()) {
    absl::StatusOr<Frame> again = Encode(*start);
    os::Check(again.ok() && again->bytes() == bytes,
              "a start message was accepted that nobody writes so");
  }
}

}  // namespace
}  // namespace cohort::process_internal

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  cohort::process_internal::Read({reinterpret_cast<const char*>(data), size});
  return 0;
}
