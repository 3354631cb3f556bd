// SPDX-License-Identifier: Apache-2.0
//
// The far side of a start: what the child does, and the messages that it and
// its parent exchange over the socket between them.
//
//   parent                                   child
//     | -- start message (spawn) / go (fork) -> |  the parent watches the child
//     | <- ready, or refused and why ---------- |  arguments are decoded
//     |                                         |  the function runs
//     | <- ended and why ---------------------- |  where it failed with a
//     status | <- hang-up ---------------------------- |  the process has ended
//
// docs/design/process_start.md draws it with the crash cases.

#ifndef COHORT_PROCESS_INTERNAL_CHILD_H_
#define COHORT_PROCESS_INTERNAL_CHILD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort::process_internal {

// The whole command line of a spawned child, after the program's own name and
// before the child's name, which is for the eyes of ps(1) alone.
inline constexpr std::string_view kChildMarker = "--cohort_child";

// The index that each has among the listed descriptors. From kFirstOther on
// stand, where the start message says so, the lifeline and the memory file with
// the call, and then the descriptors of the call's frame.
inline constexpr int kReportIndex = 0;
inline constexpr int kFirstOther = 1;

// Calls of up to this many bytes travel in the start message itself.
inline constexpr size_t kMostInlineBytes = 7 << 10;
inline constexpr size_t kMostStartBytes = 8 << 10;
inline constexpr size_t kMostReportBytes = 16 << 10;
inline constexpr size_t kMostNameBytes = 200;

// Sent to a spawned child.
struct StartMessage {
  WireVersion wire_version;
  std::string name;
  bool has_lifeline = false;
  uint64_t memfd_bytes = 0;  // 0: the call stands in `call`.
  std::string call;
  uint32_t call_descriptors = 0;

  template <typename Archive>
  void serialize(Archive& archive) {
    archive(wire_version, name, has_lifeline, memfd_bytes, call,
            call_descriptors);
  }
};

// Sent to a forked child, which has all the rest in its memory, once it is
// watched.
inline constexpr std::string_view kGo = "go";

// Sent to the parent.
struct Report {
  enum class Kind : char { kReady = 'r', kRefused = 'f', kEnded = 'e' };
  Kind kind = Kind::kReady;
  absl::Status status;  // Not OK, unless `kind` is kReady.
};
// At most kMostReportBytes: payloads and then the message are cut to fit.
std::string EncodeReport(const Report& report);
absl::StatusOr<Report> DecodeReport(std::string_view bytes);

// Whether Init() was called here; if so, under which argv[0].
void NoteInit(const char* program);
bool InitWasCalled();
const std::string& ProgramName();

// Whether this is a child that has not begun its function.
bool IsBootstrapping();

// The life of a spawned child from Init() on. Leaves by exit().
[[noreturn]] void RunSpawned();

// The life of a forked child. Leaves by _Exit().
struct ForkedStart {
  os::Descriptor report;
  os::Descriptor lifeline;  // Invalid: none.
  std::string name;
  Frame call;
};
[[noreturn]] void RunForked(ForkedStart start) noexcept;

}  // namespace cohort::process_internal

#endif  // COHORT_PROCESS_INTERNAL_CHILD_H_
