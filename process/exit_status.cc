// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/exit_status.h"

#include <csignal>
#include <cstring>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace cohort {
namespace {

// "process ingest (pid 7)".
std::string Who(const ExitStatus& end) {
  return absl::StrCat("process ", end.name, " (pid ", end.pid, ")");
}

// "11 (SIGSEGV)".
std::string SignalText(int signal) {
  const char* const name = sigabbrev_np(signal);
  return name == nullptr ? absl::StrCat(signal)
                         : absl::StrCat(signal, " (SIG", name, ")");
}

}  // namespace

std::string ExitStatus::ToString() const {
  std::string text = Who(*this);
  if (signal != 0) {
    absl::StrAppend(&text, " was killed by signal ", SignalText(signal),
                    core_dumped ? ", core dumped" : "");
  } else {
    absl::StrAppend(&text, " exited with code ", code);
  }
  if (!status.ok()) absl::StrAppend(&text, ": ", status.ToString());
  return text;
}

absl::Status ExitStatus::ToStatus() const {
  if (ok()) return absl::OkStatus();
  // A signal is the later and the weightier news than what the function said.
  const bool speaks = !status.ok() && signal == 0;
  absl::Status failure =
      speaks ? absl::Status(status.code(),
                            absl::StrCat(Who(*this), ": ", status.message()))
             : absl::AbortedError(ToString());
  if (speaks) {
    status.ForEachPayload(
        [&failure](absl::string_view type, const absl::Cord& payload) {
          failure.SetPayload(type, payload);
        });
  }
  failure.SetPayload(
      absl::string_view(kExitStatusPayload.data(), kExitStatusPayload.size()),
      absl::Cord(absl::StrCat("name=", name, " pid=", pid, " code=", code,
                              " signal=", signal)));
  return failure;
}

std::ostream& operator<<(std::ostream& out, const ExitStatus& end) {
  return out << end.ToString();
}

}  // namespace cohort
