// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/process_group.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/poll.h"
#include "cohort/process/exit_status.h"
#include "cohort/process/process.h"

namespace cohort {

ProcessGroup::ProcessGroup(ProcessOptions defaults)
    : defaults_(std::move(defaults)) {}

ProcessGroup::~ProcessGroup() {
  // All are asked before any is waited for: one grace period serves all.
  std::vector<std::pair<Process*, Deadline>> asked;
  for (Process& process : processes_) {
    if (process.lifetime() == Lifetime::kDetach || !process.is_alive()) {
      continue;
    }
    if (process.grace() > absl::ZeroDuration()) {
      process.Terminate();
      asked.emplace_back(&process, Deadline::After(process.grace()));
    } else {
      process.Kill();
    }
  }
  for (auto& [process, until] : asked) {
    if (absl::IsDeadlineExceeded(process->JoinUntil(until).status())) {
      process->Kill();
    }
  }
}

void ProcessGroup::Note(const absl::Status& failure) {
  if (first_failure_.ok()) first_failure_ = failure;
}

void ProcessGroup::Add(absl::StatusOr<Process> started) {
  if (!started.ok()) {
    Note(started.status());
    return;
  }
  running_.push_back(processes_.size());
  processes_.push_back(*std::move(started));
}

absl::Status ProcessGroup::Join(absl::Duration timeout) {
  const Deadline until = Deadline::After(timeout);
  while (!running_.empty()) {
    std::vector<int> handles;
    for (size_t index : running_) {
      handles.push_back(processes_[index].poll_handle());
    }
    // In a forked copy there is nothing to wait for; Join() below says so.
    std::optional<size_t> ended = 0;
    if (std::ranges::find(handles, -1) == handles.end()) {
      absl::StatusOr<std::optional<size_t>> found =
          os::PollAnyReadable(handles, until);
      if (!found.ok()) return found.status();
      ended = *found;
    }
    if (!ended.has_value()) {
      const Process& slow = processes_[running_.front()];
      return absl::DeadlineExceededError(absl::StrCat(
          running_.size(), " of ", processes_.size(), " processes still run, ",
          slow.name(), " (pid ", slow.pid(), ") among them"));
    }
    const absl::StatusOr<ExitStatus> end =
        processes_[running_[*ended]].JoinUntil(until);
    if (absl::IsDeadlineExceeded(end.status())) return end.status();
    Note(end.ok() ? end->ToStatus() : end.status());
    running_.erase(running_.begin() + static_cast<ptrdiff_t>(*ended));
  }
  return first_failure_;
}

void ProcessGroup::Terminate() {
  for (const Process& process : processes_) process.Terminate();
}

void ProcessGroup::Kill() {
  for (const Process& process : processes_) process.Kill();
}

}  // namespace cohort
