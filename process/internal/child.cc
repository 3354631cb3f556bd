// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/internal/child.h"

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/lifeline.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/os/socket.h"
#include "cohort/os/spawn.h"
#include "cohort/process/this_process.h"
#include "cohort/serialize/callable.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort::process_internal {
namespace {

constexpr int kFailed = 1;  // The function failed, or never began.
constexpr int kMisused = 2;

// Room for the message once payloads are gone; the rest is framing.
constexpr size_t kMostMessageBytes = kMostReportBytes - 64;

bool init_was_called = false;
bool is_bootstrapping = false;

struct WireStatus {
  absl::Status status;

  template <typename Archive>
  void serialize(Archive& archive) {
    archive(status);
  }
};

std::string Encoded(const Report& report) {
  std::string bytes(1, static_cast<char>(report.kind));
  if (report.kind == Report::Kind::kReady) return bytes;
  absl::StatusOr<Frame> frame = Encode(WireStatus{report.status});
  if (frame.ok()) bytes.append(frame->bytes());
  return bytes;
}

// Of the kernel's kind: what is not 0 must not become 0 when it loses its upper
// bits.
int ExitCode(int returned) {
  const int code = returned & 0xff;
  return code == 0 && returned != 0 ? kFailed : code;
}

// False where the parent is gone.
bool Send(const os::Descriptor& report, Report::Kind kind,
          absl::Status status = absl::OkStatus()) {
  return os::SendMessage(report, EncodeReport({kind, std::move(status)}),
                         Deadline::Infinite())
      .ok();
}

// A failure that nobody may be there to read from the exit status.
void PrintException(const absl::Status& outcome) {
  if (!outcome
           .GetPayload(absl::string_view(kExceptionPayload.data(),
                                         kExceptionPayload.size()))
           .has_value()) {
    return;
  }
  std::cerr << "cohort: process " << this_process::Name() << ": "
            << outcome.message() << std::endl;
}

// What a child does from the moment it has its descriptors; returns its exit
// code. An error in `call` says why the child cannot be ready.
int Live(os::Descriptor report, absl::StatusOr<BoundCall> call) {
  if (!call.ok()) {
    Send(report, Report::Kind::kRefused, call.status());
    std::_Exit(kFailed);
  }
  // A parent that is gone will not miss the child.
  if (!Send(report, Report::Kind::kReady)) std::_Exit(kFailed);
  is_bootstrapping = false;
  absl::StatusOr<int> returned = (*std::move(call)).RunForExitCode();
  if (returned.ok()) return ExitCode(*returned);
  PrintException(returned.status());
  Send(report, Report::Kind::kEnded, returned.status());
  return kFailed;
}

absl::Status Arm(os::Descriptor lifeline) {
  if (!lifeline.valid()) return absl::OkStatus();
  if (absl::Status armed = os::ArmLifeline(lifeline); !armed.ok()) return armed;
  // Held until the kernel closes it: an end to the descriptor would be an end
  // to the watch.
  (void)lifeline.Release();
  return absl::OkStatus();
}

// Everything between the start message and the call: adopts what is listed,
// arms the lifeline, decodes.
absl::StatusOr<BoundCall> Prepare(const StartMessage& start) {
  int index = kFirstOther;
  if (start.has_lifeline) {
    absl::StatusOr<os::Descriptor> lifeline = os::AdoptListed(index++);
    if (!lifeline.ok()) return lifeline.status();
    if (absl::Status armed = Arm(*std::move(lifeline)); !armed.ok()) {
      return armed;
    }
  }
  os::Mapping large;
  std::string_view bytes = start.call;
  if (start.memfd_bytes != 0) {
    absl::StatusOr<os::Descriptor> memfd = os::AdoptListed(index++);
    if (!memfd.ok()) return memfd.status();
    absl::StatusOr<size_t> size = os::CheckSealedMemfd(*memfd);
    if (!size.ok()) return size.status();
    if (*size != start.memfd_bytes) {
      return absl::DataLossError("the arguments have another size than sent");
    }
    absl::StatusOr<os::Mapping> mapping =
        os::Mapping::Map(*memfd, *size, /*writable=*/false);
    if (!mapping.ok()) return mapping.status();
    large = *std::move(mapping);
    bytes = {reinterpret_cast<const char*>(large.data()), large.size()};
  }
  std::vector<os::Descriptor> descriptors;
  for (uint32_t i = 0; i < start.call_descriptors; ++i) {
    absl::StatusOr<os::Descriptor> descriptor = os::AdoptListed(index++);
    if (!descriptor.ok()) return descriptor.status();
    descriptors.push_back(*std::move(descriptor));
  }
  return DecodeCall(bytes, std::move(descriptors));
}

[[noreturn]] void RefuseToBeRunByHand(const absl::Status& why) {
  std::cerr << "cohort: " << kChildMarker
            << " is for processes that cohort::Process starts; run the program "
               "without it ("
            << why.ToString() << ")" << std::endl;
  std::_Exit(kMisused);
}

}  // namespace

std::string EncodeReport(const Report& report) {
  std::string bytes = Encoded(report);
  if (bytes.size() <= kMostReportBytes) return bytes;
  return Encoded({report.kind, absl::Status(report.status.code(),
                                            report.status.message().substr(
                                                0, kMostMessageBytes))});
}

absl::StatusOr<Report> DecodeReport(std::string_view bytes) {
  Report report;
  if (bytes.empty()) return absl::DataLossError("an empty report");
  report.kind = static_cast<Report::Kind>(bytes.front());
  switch (report.kind) {
    case Report::Kind::kReady:
      return report;
    case Report::Kind::kRefused:
    case Report::Kind::kEnded:
      break;
    default:
      return absl::DataLossError("a report of an unknown kind");
  }
  absl::StatusOr<WireStatus> wire = Decode<WireStatus>(bytes.substr(1));
  if (!wire.ok()) return wire.status();
  report.status = std::move(wire->status);
  if (report.status.ok()) return absl::DataLossError("a report of no failure");
  return report;
}

void NoteInit(const char* program) {
  init_was_called = true;
  const_cast<std::string&>(ProgramName()) = program;
}

bool InitWasCalled() { return init_was_called; }

const std::string& ProgramName() {
  static std::string& name = *new std::string("cohort");
  return name;
}

bool IsBootstrapping() { return is_bootstrapping; }

void RunSpawned() {
  is_bootstrapping = true;
  absl::StatusOr<os::Descriptor> report = os::AdoptListed(kReportIndex);
  if (!report.ok()) RefuseToBeRunByHand(report.status());
  absl::StatusOr<os::Message> message =
      os::ReceiveMessage(*report, kMostStartBytes, 0, Deadline::Infinite());
  if (absl::IsOutOfRange(message.status())) std::_Exit(kFailed);
  if (!message.ok()) RefuseToBeRunByHand(message.status());
  absl::StatusOr<StartMessage> start = Decode<StartMessage>(message->bytes);
  if (!start.ok()) RefuseToBeRunByHand(start.status());
  BecomeChild(start->name);
  absl::StatusOr<BoundCall> call = Prepare(*start);
  std::exit(Live(*std::move(report), std::move(call)));
}

void RunForked(ForkedStart start) noexcept {
  is_bootstrapping = true;
  BecomeChild(start.name);
  // Nothing of the call runs before the parent watches: where SIGCHLD is
  // ignored, a child that ended sooner would leave it nothing to open.
  if (!os::ReceiveMessage(start.report, kGo.size(), 0, Deadline::Infinite())
           .ok()) {
    std::_Exit(kFailed);
  }
  absl::StatusOr<BoundCall> call =
      absl::StatusOr<BoundCall>(absl::InternalError("never decoded"));
  if (absl::Status armed = Arm(std::move(start.lifeline)); !armed.ok()) {
    call = armed;
  } else {
    call = DecodeCall(start.call.bytes(), std::move(start.call.descriptors()));
  }
  start.call = Frame();
  const int code = Live(std::move(start.report), std::move(call));
  // Not exit(): what its handlers would end is the parent's.
  try {
    std::cout.flush();
    std::clog.flush();
    std::cerr.flush();
  } catch (...) {  // A stream that was told to throw.
  }
  (void)std::fflush(stdout);
  (void)std::fflush(stderr);
  std::_Exit(code);
}

}  // namespace cohort::process_internal
