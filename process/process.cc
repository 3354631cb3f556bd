// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/process.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/lifeline.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/poll.h"
#include "cohort/os/process_id.h"
#include "cohort/os/socket.h"
#include "cohort/os/spawn.h"
#include "cohort/process/exit_status.h"
#include "cohort/process/internal/child.h"
#include "cohort/process/this_process.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort {
namespace process_internal {

// What the parent holds of one child.
struct Control {
  const os::Creator creator;
  std::string name;
  Lifetime lifetime = Lifetime::kJoin;
  absl::Duration grace;
  int pid = 0;

  // Written under Watch::mu, so that a fork sees each either open or closed.
  os::Descriptor pidfd;     // Open until the end of this object.
  os::Descriptor report;    // Closed when the end is known.
  os::Descriptor lifeline;  // Likewise; write end. Invalid: none.
  Control* previous = nullptr;
  Control* next = nullptr;
  bool watched = false;

  std::mutex mu;
  // How it ended, once somebody has collected it.
  std::optional<absl::StatusOr<ExitStatus>> end;  // Guarded by mu.
};

namespace {

// Every child's control descriptors, so that a forked process can close its
// copies. With them open, a child of kDieWithParent would outlive its parent
// for as long as some sibling lives, and reports would never hang up. They must
// be found from a handler of fork(), hence one list for the whole process.
class Watch final {
 public:
  static Watch& Get() {
    // Never destroyed: processes may be started and joined from destructors of
    // static objects.
    static Watch& watch = *new Watch();
    return watch;
  }

  // Runs `change` on the descriptors of `control` in one piece, as seen by a
  // fork() in any other thread.
  template <typename Change>
  void Update(Control& control, Change change) {
    std::lock_guard<std::mutex> lock(mu_);
    if (!control.watched) {
      control.watched = true;
      control.previous = nullptr;
      control.next = first_;
      if (first_ != nullptr) first_->previous = &control;
      first_ = &control;
    }
    change(control);
  }

  void Remove(Control& control) {
    std::lock_guard<std::mutex> lock(mu_);
    if (!control.watched) return;
    control.watched = false;
    if (control.next != nullptr) control.next->previous = control.previous;
    (control.previous != nullptr ? control.previous->next : first_) =
        control.next;
  }

  // Takes over a child that runs on without its Process.
  void Detach(os::Descriptor pidfd) {
    std::lock_guard<std::mutex> lock(mu_);
    detached_.push_back(std::move(pidfd));
  }

  // Collects the detached children that have ended.
  void CollectDetached() {
    std::lock_guard<std::mutex> lock(mu_);
    std::erase_if(detached_, [](const os::Descriptor& pidfd) {
      return !absl::IsFailedPrecondition(os::ReapPidfd(pidfd).status());
    });
  }

 private:
  Watch() {
    pthread_atfork([] { Get().mu_.lock(); }, [] { Get().mu_.unlock(); },
                   [] {
                     Get().ForgetAll();
                     Get().mu_.unlock();
                   });
  }

  void ForgetAll() {
    while (first_ != nullptr) {
      Control& control = *first_;
      first_ = control.next;
      control.watched = false;
      control.pidfd.Reset();
      control.report.Reset();
      control.lifeline.Reset();
    }
    for (os::Descriptor& pidfd : detached_) pidfd.Reset();
    detached_.clear();
  }

  std::mutex mu_;
  Control* first_ = nullptr;  // Guarded by mu_, as is all of the list.
  std::vector<os::Descriptor> detached_;
};

std::string NextName() {
  static std::atomic<int> counter = 0;
  const int number = ++counter;
  if (!this_process::IsChild()) return absl::StrCat("process-", number);
  return absl::StrCat(this_process::Name(), ":", number);
}

std::string Who(const Control& control) {
  return absl::StrCat("process ", control.name, " (pid ", control.pid, ")");
}

absl::Status WithContext(const absl::Status& status, const std::string& who) {
  absl::Status named(status.code(), absl::StrCat(who, ": ", status.message()));
  status.ForEachPayload(
      [&named](absl::string_view type, const absl::Cord& payload) {
        named.SetPayload(type, payload);
      });
  return named;
}

// The next report, if one has arrived; OutOfRange after the last.
absl::StatusOr<Report> ReceiveReport(const os::Descriptor& socket,
                                     Deadline until) {
  absl::StatusOr<os::Message> message =
      os::ReceiveMessage(socket, kMostReportBytes, 0, until);
  if (!message.ok()) return message.status();
  return DecodeReport(message->bytes);
}

// Collects a child that has ended. FailedPrecondition: not to be had yet.
absl::StatusOr<ExitStatus> Collect(Control& control) {
  absl::StatusOr<os::ExitFacts> facts = os::ReapPidfd(control.pidfd);
  // A debugger has the first claim on the status of what it traces.
  if (absl::IsFailedPrecondition(facts.status())) return facts.status();
  absl::Status said;
  // What it sent stays readable after its end.
  if (absl::StatusOr<Report> report =
          ReceiveReport(control.report, Deadline::Now());
      report.ok()) {
    said = std::move(report->status);
  }
  Watch::Get().Update(control, [](Control& c) {
    c.report.Reset();
    c.lifeline.Reset();
  });
  if (absl::IsNotFound(facts.status())) {
    return absl::UnknownError(absl::StrCat(
        Who(control), " has ended, ", facts.status().message(),
        said.ok() ? "" : absl::StrCat("; its function: ", said.ToString())));
  }
  if (!facts.ok()) return facts.status();
  ExitStatus end;
  end.code = facts->code;
  end.signal = facts->signal;
  end.core_dumped = facts->core_dumped;
  end.status = std::move(said);
  end.name = control.name;
  end.pid = control.pid;
  return end;
}

absl::StatusOr<ExitStatus> End(Control& control) {
  std::lock_guard<std::mutex> lock(control.mu);
  if (!control.end.has_value()) {
    absl::StatusOr<ExitStatus> end = Collect(control);
    if (absl::IsFailedPrecondition(end.status())) return end;
    control.end = std::move(end);
  }
  return *control.end;
}

// Ends a child that never became ready and says how it had ended, or what this
// kill made of it.
absl::StatusOr<ExitStatus> EndNow(Control& control) {
  // A process that is ending already keeps the exit status that it has.
  if (absl::Status killed = os::SignalPidfd(control.pidfd, SIGKILL);
      !killed.ok()) {
    return killed;
  }
  absl::StatusOr<bool> ended =
      os::WaitPidfd(control.pidfd, Deadline::Infinite());
  if (!ended.ok()) return ended.status();
  return End(control);
}

absl::Status EndedEarly(Control& control) {
  absl::StatusOr<ExitStatus> end = EndNow(control);
  if (!end.ok()) {
    return WithContext(end.status(), "it ended before it was ready");
  }
  std::string text = absl::StrCat(end->ToString(), " before it was ready");
  if (end->signal == 0) {
    absl::StrAppend(&text,
                    "; is cohort::Init(argc, argv) the first line of main?");
  }
  // The payload of an ExitStatus, and always a failure: code 0 is one here.
  absl::Status failure = absl::AbortedError(text);
  ExitStatus payload = *end;
  payload.status = absl::AbortedError("");
  payload.ToStatus().ForEachPayload(
      [&failure](absl::string_view type, const absl::Cord& value) {
        failure.SetPayload(type, value);
      });
  return failure;
}

// Waits until the child is ready for its function. Otherwise says why not, and
// the child is gone.
absl::Status AwaitReady(Control& control, absl::Duration timeout) {
  const Deadline until = Deadline::After(timeout);
  absl::StatusOr<std::optional<size_t>> woken =
      os::PollAnyReadable({control.report.get(), control.pidfd.get()}, until);
  if (!woken.ok()) {
    (void)EndNow(control);
    return woken.status();
  }
  if (!woken->has_value()) {
    (void)EndNow(control);
    return absl::DeadlineExceededError(absl::StrCat(
        Who(control), " was not ready within ", absl::FormatDuration(timeout),
        " and was killed; it waited before cohort::Init in main, or in the "
        "decoding of its arguments"));
  }
  absl::StatusOr<Report> report =
      ReceiveReport(control.report, Deadline::Now());
  if (report.ok() && report->kind == Report::Kind::kReady) {
    return absl::OkStatus();
  }
  if (report.ok()) {
    (void)EndNow(control);
    return WithContext(report->status, Who(control));
  }
  return EndedEarly(control);
}

// Fills `message` and `request` with the call, and `memfd` where it is large.
absl::Status PackCall(Frame& call, StartMessage& message,
                      os::SpawnRequest& request, os::Descriptor& memfd) {
  if (call.size() <= kMostInlineBytes) {
    message.call = call.bytes();
  } else {
    absl::StatusOr<os::Descriptor> created =
        os::CreateSealedMemfd("cohort-arguments", call.size());
    if (!created.ok()) return created.status();
    absl::StatusOr<os::Mapping> mapping =
        os::Mapping::Map(*created, call.size());
    if (!mapping.ok()) return mapping.status();
    std::memcpy(mapping->data(), call.data(), call.size());
    memfd = *std::move(created);
    message.memfd_bytes = call.size();
    request.descriptors.push_back(memfd.get());
  }
  message.call_descriptors = static_cast<uint32_t>(call.descriptors().size());
  for (const os::Descriptor& descriptor : call.descriptors()) {
    request.descriptors.push_back(descriptor.get());
  }
  return absl::OkStatus();
}

absl::Status SpawnChild(Control& control, os::Descriptor theirs,
                        os::Descriptor lifeline, Frame call) {
  os::SpawnRequest request;
  request.arguments = {ProgramName(), std::string(kChildMarker), control.name};
  request.descriptors = {theirs.get()};
  StartMessage message;
  message.name = control.name;
  message.has_lifeline = lifeline.valid();
  if (lifeline.valid()) request.descriptors.push_back(lifeline.get());
  os::Descriptor memfd;
  if (absl::Status packed = PackCall(call, message, request, memfd);
      !packed.ok()) {
    return packed;
  }
  absl::StatusOr<Frame> start = Encode(message);
  if (!start.ok()) return start.status();
  absl::StatusOr<os::Child> child = os::Spawn(request);
  if (!child.ok()) return child.status();
  Watch::Get().Update(control,
                      [&](Control& c) { c.pidfd = std::move(child->pidfd); });
  control.pid = child->pid;
  // Only now, with the child being watched: one that has ended before would be
  // lost where SIGCHLD is ignored. A child that is dead by now is AwaitReady's
  // business.
  (void)os::SendMessage(control.report, start->bytes(), Deadline::Infinite());
  return absl::OkStatus();
}

absl::Status ForkChild(Control& control, os::Descriptor theirs,
                       os::Descriptor lifeline, Frame call) {
  ForkedStart start;
  start.report = std::move(theirs);
  start.lifeline = std::move(lifeline);
  start.name = control.name;
  start.call = std::move(call);
  absl::StatusOr<os::Child> child = os::Fork();
  if (!child.ok()) return child.status();
  if (child->pid == 0) RunForked(std::move(start));
  Watch::Get().Update(control,
                      [&](Control& c) { c.pidfd = std::move(child->pidfd); });
  control.pid = child->pid;
  (void)os::SendMessage(control.report, kGo, Deadline::Infinite());
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStart(const ProcessOptions& options) {
  if (IsBootstrapping()) {
    return absl::FailedPreconditionError(
        "a process cannot be started by a child that is still decoding its "
        "own arguments");
  }
  if (options.start_method != StartMethod::kFork && !InitWasCalled()) {
    return absl::FailedPreconditionError(
        "cohort::Init(argc, argv) must be the first line of main in a program "
        "that starts processes: without it, a child would run main again");
  }
  if (options.name.size() > kMostNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a process name of ", options.name.size(),
                     " bytes; at most ", kMostNameBytes, " are allowed"));
  }
  if (options.start_method == StartMethod::kFork && !options.allow_threads &&
      !os::IsSingleThreaded()) {
    return absl::FailedPreconditionError(
        "this process has other threads, and locks that they hold would stay "
        "locked in a forked child; use StartMethod::kSpawn, or set "
        "allow_threads where the function takes none of those locks");
  }
  return absl::OkStatus();
}

}  // namespace process_internal

using process_internal::Control;
using process_internal::Watch;

absl::StatusOr<Process> Process::StartEncoded(const ProcessOptions& options,
                                              Frame call) {
  Watch& watch = Watch::Get();
  watch.CollectDetached();
  // Its destructor, on every failure below, leaves nothing of the child.
  Process process(std::make_unique<Control>());
  Control& control = *process.control_;
  control.name =
      options.name.empty() ? process_internal::NextName() : options.name;
  control.lifetime = options.lifetime;
  control.grace = options.grace;

  os::Descriptor theirs;
  os::Descriptor lifeline;
  absl::Status made;
  watch.Update(control, [&](Control& c) {
    absl::StatusOr<std::pair<os::Descriptor, os::Descriptor>> ends =
        os::SocketPair();
    made = ends.status();
    if (!made.ok()) return;
    c.report = std::move(ends->first);
    theirs = std::move(ends->second);
    if (options.lifetime != Lifetime::kDieWithParent) return;
    absl::StatusOr<os::Lifeline> line = os::CreateLifeline();
    made = line.status();
    if (!made.ok()) return;
    c.lifeline = std::move(line->write_end);
    lifeline = std::move(line->read_end);
  });
  if (!made.ok()) return made;
  const absl::Status started =
      options.start_method == StartMethod::kFork
          ? process_internal::ForkChild(control, std::move(theirs),
                                        std::move(lifeline), std::move(call))
          : process_internal::SpawnChild(control, std::move(theirs),
                                         std::move(lifeline), std::move(call));
  if (!started.ok()) {
    return process_internal::WithContext(
        started, absl::StrCat("process ", control.name, " was not started"));
  }
  if (absl::Status ready =
          process_internal::AwaitReady(control, options.start_timeout);
      !ready.ok()) {
    return ready;
  }
  return process;
}

Process::Process(std::unique_ptr<Control> control)
    : control_(std::move(control)) {}

Process::Process(Process&& other) noexcept = default;

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    Dispose();
    control_ = std::move(other.control_);
  }
  return *this;
}

Process::~Process() { Dispose(); }

void Process::Dispose() {
  if (control_ == nullptr) return;
  if (!control_->creator.IsMe()) {
    // Where fork() ran our handler, nothing is left. Other ways to copy a
    // process skip it; there the list may not even be locked, so this entry
    // stays for good.
    if (control_->watched) (void)control_.release();
    control_.reset();
    return;
  }
  Watch& watch = Watch::Get();
  bool collected;
  {
    std::lock_guard<std::mutex> lock(control_->mu);
    collected = control_->end.has_value();
  }
  if (!collected && control_->pidfd.valid()) {
    const auto ended = [this](Deadline until) {
      absl::StatusOr<bool> result = os::WaitPidfd(control_->pidfd, until);
      return result.ok() && *result;
    };
    bool gone = ended(Deadline::Now());
    if (control_->lifetime != Lifetime::kDetach) {
      if (!gone && control_->grace > absl::ZeroDuration()) {
        Terminate();
        gone = ended(Deadline::After(control_->grace));
      }
      // Not to be killed (it has taken on another user's identity) means not to
      // be waited for.
      if (!gone && os::SignalPidfd(control_->pidfd, kKill).ok()) {
        gone = ended(Deadline::Infinite());
      }
    }
    if (gone) {
      gone = !absl::IsFailedPrecondition(
          process_internal::End(*control_).status());
    }
    if (!gone) {
      watch.Update(*control_, [&](Control& c) {
        c.report.Reset();
        c.lifeline.Reset();
      });
      watch.Remove(*control_);
      watch.Detach(std::move(control_->pidfd));
    }
  }
  watch.Remove(*control_);
  control_.reset();
}

int Process::pid() const { return control_ == nullptr ? 0 : control_->pid; }

const std::string& Process::name() const {
  static const std::string& none = *new std::string();
  return control_ == nullptr ? none : control_->name;
}

bool Process::is_alive() const {
  if (control_ == nullptr || !control_->creator.IsMe()) return false;
  absl::StatusOr<bool> ended = os::WaitPidfd(control_->pidfd, Deadline::Now());
  // What can't be known counts as alive.
  return !ended.ok() || !*ended;
}

int Process::poll_handle() const {
  if (control_ == nullptr || !control_->creator.IsMe()) return -1;
  return control_->pidfd.get();
}

Lifetime Process::lifetime() const {
  return control_ == nullptr ? Lifetime::kDetach : control_->lifetime;
}

absl::Duration Process::grace() const {
  return control_ == nullptr ? absl::ZeroDuration() : control_->grace;
}

absl::StatusOr<ExitStatus> Process::Join(absl::Duration timeout) const {
  return JoinUntil(Deadline::After(timeout));
}

absl::StatusOr<ExitStatus> Process::JoinUntil(Deadline until) const {
  if (control_ == nullptr || !control_->creator.IsMe()) {
    return absl::FailedPreconditionError(
        "this Process is moved from, or a copy made by fork(), and has no "
        "child");
  }
  absl::StatusOr<bool> ended = os::WaitPidfd(control_->pidfd, until);
  if (!ended.ok()) return ended.status();
  while (*ended) {
    absl::StatusOr<ExitStatus> end = process_internal::End(*control_);
    if (!absl::IsFailedPrecondition(end.status())) return end;
    if (until.Passed()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      process_internal::Who(*control_),
      *ended ? " has ended, but a debugger holds its status" : " still runs"));
}

absl::Status Process::Signal(int signal) const {
  if (control_ == nullptr || !control_->creator.IsMe()) {
    return absl::OkStatus();
  }
  return os::SignalPidfd(control_->pidfd, signal);
}

}  // namespace cohort
