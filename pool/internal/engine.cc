// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/internal/engine.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstring>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/os/cpu.h"
#include "cohort/os/futex.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/signals.h"
#include "cohort/os/socket.h"
#include "cohort/serialize/codec.h"

namespace cohort::pool_internal {
namespace {

// How long a waiting thread looks for results before it sleeps: about what a
// sleep and a wake cost.
constexpr int64_t kSpinNanoseconds = 20'000;
// A task is handed to a worker that still runs another one only while tasks are
// this short, so that none is stuck behind a long one.
constexpr double kShort = 50'000;
constexpr double kMiddling = 1'000'000;
// Of short tasks, as many are handed out as take about this long.
constexpr double kAheadNanoseconds = 500'000;
constexpr size_t kMostAhead = 1024;
// Starts that fail one after another before the pool gives up, and the pause
// after the first; it doubles.
constexpr int kMostStartsInVain = 8;
constexpr int64_t kFirstPause = 10'000'000;
// The longest sleep of the control thread.
constexpr std::chrono::seconds kControlSlice(1);
constexpr uint64_t kDoorbellTag = 1ull << 32;
constexpr const char* kDeathPayload = "cohort/worker_death";

// Workers that may die with a task that none of them has begun: by chance they
// died there, or reading it kills.
constexpr int kMostDeathsBefore = 100;

std::string HowItEnded(const ExitStatus& end) {
  if (end.signal == 0) return absl::StrCat("ended with exit code ", end.code);
  return absl::StrCat("was killed by signal ", end.signal, " (",
                      os::SignalName(end.signal), ")");
}

int64_t PauseAfter(int starts_in_vain) {
  return kFirstPause << std::min(starts_in_vain - 1, kMostStartsInVain);
}

}  // namespace

absl::StatusOr<std::shared_ptr<Engine>> Engine::Create(
    const EngineOptions& options) {
  // A forked copy of the program never touches its copy of the engine: locks
  // and waiting threads of the original would be left in it for ever.
  std::shared_ptr<Engine> engine(new Engine(options), [](Engine* mine) {
    if (mine->creator_.IsMe()) delete mine;
  });
  if (absl::Status started = engine->Start(); !started.ok()) return started;
  return engine;
}

Engine::Engine(const EngineOptions& options)
    : options_(options), may_spin_(os::UsableCpus() > 1) {}

Engine::~Engine() { Terminate(); }

absl::Status Engine::Start() {
  layout_.workers = static_cast<uint32_t>(options_.workers);
  layout_.ring_bytes = static_cast<uint32_t>(options_.ring_bytes);
  // First, before there is anything else that a fork could copy.
  if (options_.fork) {
    absl::StatusOr<std::unique_ptr<Starter>> starter = MakeForkStarter();
    if (!starter.ok()) return starter.status();
    starter_ = *std::move(starter);
  } else {
    starter_ = MakeSpawnStarter();
  }
  absl::StatusOr<Region> region = Region::Create(layout_.Size());
  if (!region.ok()) return region.status();
  region_ = *std::move(region);
  bell_ = new (region_.bytes().data()) Bell;
  auto doorbell = os::SocketPair();
  if (!doorbell.ok()) return doorbell.status();
  doorbell_ = std::move(doorbell->first);
  doorbell_push_ = std::move(doorbell->second);
  absl::StatusOr<os::Poller> poller = os::Poller::Create();
  if (!poller.ok()) return poller.status();
  poller_ = *std::move(poller);
  if (absl::Status ok = poller_->Add(doorbell_, kDoorbellTag); !ok.ok()) {
    return ok;
  }
  seats_.resize(layout_.workers);
  for (uint32_t i = 0; i < layout_.workers; ++i) {
    OpenLane(seats_[i], i);
    absl::StatusOr<StartedWorker> worker = StartWorker(i);
    if (!worker.ok()) return worker.status();
    seats_[i].process = *std::move(worker);
    seats_[i].alive = true;
    absl::Status watched = poller_->Add(seats_[i].process.pidfd, i);
    if (!watched.ok()) return watched;
  }
  // Signals are for the threads that the program knows.
  const os::BlockedSignals blocked;
  try {
    control_ = std::make_unique<std::thread>([this] { Control(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the pool's thread cannot be started: ", error.what()));
  }
  return absl::OkStatus();
}

void Engine::OpenLane(Seat& seat, uint32_t index) {
  char* const bytes = reinterpret_cast<char*>(region_.bytes().data());
  // Other threads look at the words of a lane without the mutex, at any time.
  if (seat.lane == nullptr) {
    seat.lane = new (bytes + layout_.LaneAt(index)) Lane;
  } else {
    seat.lane->Clear();
  }
  seat.down = RingWriter(&seat.lane->down, bytes + layout_.DownAt(index),
                         layout_.ring_bytes);
  seat.up = RingReader(&seat.lane->up, bytes + layout_.UpAt(index),
                       layout_.ring_bytes);
  seat.finished = 0;
  seat.written = 0;
  seat.written_bytes = 0;
  seat.descriptors_sent = false;
  seat.incoming.Clear();
  seat.told_to_leave = false;
}

absl::StatusOr<StartedWorker> Engine::StartWorker(uint32_t index) {
  WorkerSeat seat;
  seat.region = region_;
  seat.layout = layout_;
  seat.index = index;
  absl::StatusOr<os::Descriptor> doorbell = doorbell_push_.Duplicate();
  if (!doorbell.ok()) return doorbell.status();
  seat.doorbell = *std::move(doorbell);
  return starter_->Start(std::move(seat));
}

// Submitting.

void Engine::Submit(std::shared_ptr<Task> task, absl::Status encoded) {
  if (!creator_.IsMe()) {
    task->status = WhyNotDone(*task);
    task->state.store(Task::kDone, std::memory_order_release);
    return;
  }
  const Lock lock(mutex_);
  task->number = next_number_++;
  ++unfinished_;
  if (task->timeout_nanoseconds > 0) ++with_time_limit_;
  if (encoded.ok() && closed_) {
    encoded = absl::FailedPreconditionError(
        "the pool is closed: submit before Close(), or create a new pool");
  }
  if (encoded.ok()) encoded = broken_;
  if (!encoded.ok()) {
    Finish(*task, std::move(encoded));
    return;
  }
  queue_.push_back(std::move(task));
  Dispatch();
  if (ArmPoller()) poller_->Kick();
}

size_t Engine::Depth(const Seat& seat, const Task& next) {
  if (seat.assigned.empty()) return 1;
  // The clock of a call with a limit starts when it is handed over.
  if (next.timeout_nanoseconds > 0 ||
      seat.assigned.back()->timeout_nanoseconds > 0) {
    return 1;
  }
  const double each = seat.nanoseconds_per_task;
  if (each < 0 || each > kMiddling) return 1;
  if (each > kShort) return 2;
  return std::clamp<size_t>(
      static_cast<size_t>(kAheadNanoseconds / std::max(each, 1.0)), 2,
      kMostAhead);
}

Engine::Seat* Engine::SeatWithRoom() {
  Seat* best = nullptr;
  const Task& next = *queue_.front();
  for (Seat& seat : seats_) {
    if (!seat.alive || seat.told_to_leave) continue;
    if (seat.written < seat.assigned.size()) continue;  // Its lane is full.
    if (seat.assigned.size() >= Depth(seat, next)) continue;
    if (best == nullptr || seat.assigned.size() < best->assigned.size()) {
      best = &seat;
    }
  }
  return best;
}

void Engine::Dispatch() {
  if (queue_.empty()) return;
  uint32_t count = 0;
  while (!queue_.empty()) {
    Seat* const seat = SeatWithRoom();
    if (seat == nullptr) break;
    std::shared_ptr<Task> task = std::move(queue_.front());
    queue_.pop_front();
    task->state.store(Task::kAssigned, std::memory_order_relaxed);
    if (task->timeout_nanoseconds > 0) {
      task->overdue =
          Deadline::After(std::chrono::nanoseconds(task->timeout_nanoseconds))
              .nanoseconds();
      poller_->Kick();
    }
    seat->assigned.push_back(std::move(task));
    Feed(*seat);
    ++count;
  }
  if (count == 0) return;
  for (Seat& seat : seats_) {
    if (!seat.alive) continue;
    seat.down.Commit();
    WakeWorker(*seat.lane, kTasks);
  }
}

void Engine::Feed(Seat& seat) {
  while (seat.written < seat.assigned.size()) {
    Task& task = *seat.assigned[seat.written];
    if (!FeedOne(seat, task, seat.finished + seat.written + 1)) {
      // The worker rings when it has taken a record; look again, in case it did
      // so before it could see the wish.
      seat.down.Commit();
      WakeWorker(*seat.lane, kTasks);
      seat.lane->parent_wants_room.store(1, std::memory_order_seq_cst);
      if (!FeedOne(seat, task, seat.finished + seat.written + 1)) return;
    }
    if (task.done()) {  // It could not be sent.
      seat.assigned.erase(seat.assigned.begin() +
                          static_cast<std::ptrdiff_t>(seat.written));
    } else {
      ++seat.written;
    }
    seat.written_bytes = 0;
    seat.descriptors_sent = false;
  }
}

// Writes the rest of `task`; false: not all of it had room.
bool Engine::FeedOne(Seat& seat, Task& task, uint64_t sequence) {
  RecordHeader header;
  header.sequence = sequence;
  const std::vector<os::Descriptor>& descriptors = task.call.descriptors();
  if (!descriptors.empty() && !seat.descriptors_sent) {
    const absl::Status sent = os::SendMessage(
        seat.process.socket,
        {reinterpret_cast<const char*>(&sequence), sizeof(sequence)},
        descriptors, Deadline::Now());
    // A full socket, or too many descriptors under way; not now.
    if (absl::IsDeadlineExceeded(sent) || absl::IsResourceExhausted(sent)) {
      return false;
    }
    // A worker that has just ended is the control thread's business.
    if (!sent.ok() && !absl::IsUnavailable(sent)) {
      Finish(task, sent);
      return true;
    }
    seat.descriptors_sent = true;
  }
  if (seat.written_bytes == 0) {
    header.descriptors = static_cast<uint32_t>(descriptors.size());
  }
  // The function, then what is left of the elements.
  std::string_view parts[2] = {task.call.bytes(), {}};
  if (!task.ends.empty()) {
    header.flags = RecordHeader::kMap;
    header.elements =
        static_cast<uint32_t>(task.ends.size() - task.elements_done);
    if (task.elements_done > 0) {
      parts[1] = parts[0].substr(task.ends[task.elements_done - 1]);
      parts[0] = parts[0].substr(0, task.function_bytes);
    }
  }
  size_t skip = seat.written_bytes;
  for (int i = 0; i < 2; ++i) {
    const size_t skipped = std::min(skip, parts[i].size());
    skip -= skipped;
    parts[i].remove_prefix(skipped);
    while (!parts[i].empty()) {
      const std::string_view piece =
          parts[i].substr(0, seat.down.LargestRecord());
      if (!seat.down.HasRoom(piece.size())) return false;
      parts[i].remove_prefix(piece.size());
      RecordHeader record = header;
      if (!parts[i].empty() || (i == 0 && !parts[1].empty())) {
        record.flags |= RecordHeader::kMore;
      }
      seat.down.Put(record, piece);
      seat.written_bytes += piece.size();
      header.descriptors = 0;
    }
  }
  return true;
}

// Results.

bool Engine::AnyNews() const {
  for (const Seat& seat : seats_) {
    if (HasNews(seat.lane->up)) return true;
  }
  return false;
}

// Where results are awaited and no waiter reads them, lets the bell ring for
// the control thread. Returns true iff one came before that: nobody rings.
bool Engine::ArmPoller() {
  if (!NeedsReader() || on_duty_) return false;
  if (bell_->mode.load(std::memory_order_relaxed) == Bell::kPoller) {
    return false;  // Whatever came since has rung, or will.
  }
  bell_->mode.store(Bell::kPoller, std::memory_order_seq_cst);
  return AnyNews();
}

void Engine::Drain() {
  for (Seat& seat : seats_) {
    if (HasNews(seat.lane->up)) Drain(seat);
  }
  for (Seat& seat : seats_) {
    if (seat.alive && seat.written < seat.assigned.size()) {
      Feed(seat);
      seat.down.Commit();
      WakeWorker(*seat.lane, kTasks);
    }
  }
  Dispatch();
}

void Engine::Drain(Seat& seat) {
  bool any = false;
  while (std::optional<Record> record = seat.up.Next()) {
    TakeRecord(seat, *record);
    seat.up.Release();
    any = true;
  }
  if (any) WakeWorker(*seat.lane, kRoom);
  if (seat.up.corrupt() && seat.alive) {
    // Somebody wrote over the lane. What the worker had is judged at its end.
    (void)os::SignalPidfd(seat.process.pidfd, SIGKILL);
  }
  // What is never read must not look like news for ever.
  if (seat.up.corrupt()) seat.up.Abandon();
}

void Engine::TakeDescriptors(Seat& seat, const RecordHeader& header,
                             Frame& frame) {
  absl::StatusOr<os::Message> message =
      os::ReceiveMessage(seat.process.socket, sizeof(header.sequence),
                         os::kMostDescriptorsPerMessage, Deadline::Now());
  // Without its descriptors a result does not decode, and says so.
  if (message.ok()) frame.descriptors() = std::move(message->descriptors);
}

void Engine::TakeRecord(Seat& seat, const Record& record) {
  RecordHeader header = record.header;
  // A cancelled task leaves the books while its worker lives on to be killed.
  if (seat.assigned.empty() || header.sequence != seat.finished + 1) return;
  Task& task = *seat.assigned.front();
  // No more than there are, whatever the lane says.
  header.elements = static_cast<uint32_t>(
      std::min<size_t>(header.elements, task.ends.size() - task.elements_done));
  if (header.descriptors > 0) TakeDescriptors(seat, header, seat.incoming);
  seat.incoming.Append(record.first);
  seat.incoming.Append(record.second);
  if ((header.flags & RecordHeader::kMore) != 0) return;
  absl::Status failed;
  if ((header.flags & RecordHeader::kFailed) != 0) {
    absl::StatusOr<absl::Status> told =
        DecodeResult<absl::Status>(seat.incoming.bytes());
    failed = told.ok() ? *told : told.status();
    if (failed.ok()) failed = absl::DataLossError("the lane is corrupt");
  }
  if ((header.flags & RecordHeader::kMap) == 0) {
    if (failed.ok()) std::swap(task.result, seat.incoming);
  } else if (!failed.ok()) {
    for (size_t i = 0; i < header.elements; ++i) {
      task.lost.emplace_back(task.elements_done++, failed);
    }
    failed = absl::OkStatus();
  } else if (header.elements > 0) {
    TakePart(task, header.elements, seat.incoming);
  }
  seat.incoming.Clear();
  if ((header.flags & RecordHeader::kLast) == 0) return;
  const double took = static_cast<double>(header.nanoseconds);
  seat.nanoseconds_per_task =
      seat.nanoseconds_per_task < 0
          ? took
          : 0.75 * seat.nanoseconds_per_task + 0.25 * took;
  const std::shared_ptr<Task> done = std::move(seat.assigned.front());
  seat.assigned.pop_front();
  ++seat.finished;
  --seat.written;
  starts_in_vain_ = 0;
  Finish(*done, std::move(failed));
}

void Engine::TakePart(Task& task, size_t elements, Frame& bytes) {
  if (!bytes.descriptors().empty() || task.parts.empty() ||
      !task.parts.back().descriptors().empty()) {
    task.parts.push_back(std::exchange(bytes, Frame()));
  } else {
    task.parts.back().Append(bytes.bytes());
  }
  task.elements_done += elements;
  task.deaths = 0;
}

void Engine::Finish(Task& task, absl::Status status) {
  task.status = std::move(status);
  if (task.timeout_nanoseconds > 0) --with_time_limit_;
  task.overdue = 0;
  // It is not sent again: what its arguments hold must not stay open for as
  // long as somebody keeps the future.
  task.call = Frame();
  if (task.group != nullptr) {
    task.group->indices.push_back(task.index_in_group);
  }
  task.state.store(Task::kDone, std::memory_order_release);
  --unfinished_;
  ++stats_.completed;
  endings_.fetch_add(1, std::memory_order_release);
  if (waiters_ > 0) changed_.notify_all();
  if (on_duty_) {
    bell_->rings.fetch_add(1);
    os::FutexWake(bell_->rings, INT_MAX);
  }
  if (closed_ && unfinished_ == 0) StopWorkersIfDone();
}

// Waiting.

bool Engine::NeedsReader() const {
  if (!queue_.empty()) return true;
  for (const Seat& seat : seats_) {
    if (seat.written < seat.assigned.size()) return true;
  }
  return false;
}

template <typename Ready>
bool Engine::AwaitReady(Deadline until, const Ready& ready) {
  if (!creator_.IsMe()) return false;
  os::Slices slices(until);
  bool may_spin = may_spin_;
  Lock lock(mutex_);
  bool in_time = true;
  for (;;) {
    Drain();
    if (ready()) break;
    if (until.Passed()) {
      in_time = false;
      break;
    }
    if (may_spin) {
      may_spin = false;
      const uint64_t endings = endings_.load(std::memory_order_relaxed);
      lock.unlock();
      const int64_t end = os::NowNanoseconds() + kSpinNanoseconds;
      do {
        for (int i = 0; i < 64 && !may_spin; ++i) {
          may_spin =
              AnyNews() || endings_.load(std::memory_order_acquire) != endings;
          os::CpuRelax();
        }
      } while (!may_spin && os::NowNanoseconds() < end);
      lock.lock();
      continue;
    }
    if (!on_duty_) {
      on_duty_ = true;
      const uint32_t seen = bell_->rings.load();
      bell_->mode.store(Bell::kFutex, std::memory_order_seq_cst);
      if (!AnyNews()) {
        lock.unlock();
        os::FutexWait(bell_->rings, seen, slices.Next());
        lock.lock();
      }
      bell_->mode.store(Bell::kAwake, std::memory_order_relaxed);
      on_duty_ = false;
    } else {
      ++waiters_;
      changed_.wait_for(lock, std::chrono::milliseconds(20));
      --waiters_;
    }
  }
  // Somebody else must read on: another waiter, or the control thread.
  if (waiters_ > 0) {
    changed_.notify_one();
  } else if (ArmPoller()) {
    poller_->Kick();
  }
  return in_time;
}

bool Engine::Await(const Task& task, Deadline until) {
  return AwaitReady(until, [&] { return task.done(); });
}

absl::Status Engine::WhyNotDone(const Task&) const {
  if (!creator_.IsMe()) {
    return absl::FailedPreconditionError(
        "this is a forked copy: results arrive only in the process that made "
        "the pool");
  }
  return absl::DeadlineExceededError("the result is not there yet");
}

void Engine::Join(const std::shared_ptr<Finished>& group, Task& task,
                  size_t index) {
  if (!creator_.IsMe()) return;
  const Lock lock(mutex_);
  if (task.done()) {
    group->indices.push_back(index);
    return;
  }
  task.group = group;
  task.index_in_group = index;
}

std::optional<size_t> Engine::AwaitNext(const Finished& group, size_t n,
                                        Deadline until) {
  std::optional<size_t> index;
  AwaitReady(until, [&] {
    if (n < group.indices.size()) index = group.indices[n];
    return index.has_value();
  });
  return index;
}

bool Engine::Cancel(Task& task) {
  if (!creator_.IsMe()) return false;
  const Lock lock(mutex_);
  if (task.state.load(std::memory_order_relaxed) != Task::kQueued) return false;
  const auto at =
      std::find_if(queue_.begin(), queue_.end(),
                   [&](const auto& queued) { return queued.get() == &task; });
  if (at == queue_.end()) return false;
  const std::shared_ptr<Task> taken = std::move(*at);
  queue_.erase(at);
  Finish(task, absl::CancelledError("the call was cancelled before it began"));
  return true;
}

// Deaths and replacements.

void Engine::WorkerEnded(uint32_t index, Lock& lock) {
  Seat& seat = seats_[index];
  poller_->Remove(seat.process.pidfd);
  Drain(seat);
  seat.alive = false;
  lock.unlock();
  const ExitStatus end = starter_->Collect(seat.process);
  lock.lock();
  seat.process = StartedWorker();
  if (!leaving_ && !seat.told_to_leave) ++stats_.worker_deaths;
  Judge(seat, end);
  OpenLane(seat, index);
}

void Engine::Judge(Seat& seat, const ExitStatus& end) {
  seat.incoming.Clear();
  const uint64_t running = seat.finished + 1;
  const bool began =
      seat.lane->started.load(std::memory_order_acquire) >= running;
  std::deque<std::shared_ptr<Task>> orphans = std::exchange(seat.assigned, {});
  // One that was killed for its time had its attempt, begun or not.
  if (!orphans.empty() && (began || orphans.front()->timed_out) && !leaving_) {
    std::shared_ptr<Task> task = orphans.front();
    orphans.pop_front();
    if (!task->ends.empty()) {
      const std::optional<Record> left =
          seat.up.Open(seat.lane->open.load(std::memory_order_acquire));
      if (left.has_value() &&
          left->header.elements <= task->ends.size() - task->elements_done) {
        Frame salvaged;
        salvaged.Append(left->first);
        salvaged.Append(left->second);
        TakePart(*task, left->header.elements, salvaged);
      }
    }
    if (!BlameFor(*task, end)) orphans.push_front(std::move(task));
  } else if (!orphans.empty() && !leaving_ &&
             ++orphans.front()->deaths_before == kMostDeathsBefore) {
    Finish(*orphans.front(),
           absl::AbortedError(absl::StrCat(
               "task ", orphans.front()->number, ": ", kMostDeathsBefore,
               " workers have died while they read it, the last of them, "
               "process ",
               end.pid, ", ", HowItEnded(end),
               "; is there memory for its arguments?")));
  }
  for (auto orphan = orphans.rbegin(); orphan != orphans.rend(); ++orphan) {
    if ((*orphan)->done()) continue;
    (*orphan)->overdue = 0;
    (*orphan)->state.store(Task::kQueued, std::memory_order_relaxed);
    queue_.push_front(std::move(*orphan));
  }
}

// The worker has died with `task` in its hands. Returns true where that ends
// the task, false where it shall run again.
bool Engine::BlameFor(Task& task, const ExitStatus& end) {
  const bool chunk = !task.ends.empty();
  if (chunk && task.elements_done == task.ends.size()) {
    Finish(task, absl::OkStatus());
    return true;
  }
  if (task.timed_out) {
    Finish(
        task,
        absl::DeadlineExceededError(absl::StrCat(
            "task ", task.number, " ran longer than its limit of ",
            absl::FormatDuration(absl::Nanoseconds(task.timeout_nanoseconds)),
            "; its worker, process ", end.pid, ", was killed")));
    return true;
  }
  ++task.deaths;
  if (task.deaths <= task.retries) {
    ++stats_.retried;
    return false;
  }
  const std::string how = HowItEnded(end);
  absl::Status lost = absl::AbortedError(
      absl::StrCat("task ", task.number,
                   chunk ? absl::StrCat(", element ", task.elements_done) : "",
                   ": its worker, process ", end.pid, ", ", how,
                   " while it ran; attempts: ", task.deaths));
  lost.SetPayload(
      kDeathPayload,
      absl::Cord(absl::StrCat("task=", task.number, " pid=", end.pid,
                              " code=", end.code, " signal=", end.signal)));
  if (!chunk) {
    Finish(task, std::move(lost));
    return true;
  }
  task.lost.emplace_back(task.elements_done++, std::move(lost));
  task.deaths = 0;
  if (task.elements_done < task.ends.size()) return false;
  Finish(task, absl::OkStatus());
  return true;
}

void Engine::FillSeats(Lock& lock) {
  for (uint32_t i = 0; i < seats_.size(); ++i) {
    Seat& seat = seats_[i];
    if (seat.alive || leaving_ || !broken_.ok()) continue;
    if (os::NowNanoseconds() < next_start_) continue;
    lock.unlock();
    absl::StatusOr<StartedWorker> worker = StartWorker(i);
    lock.lock();
    absl::Status started = worker.status();
    if (started.ok()) started = poller_->Add(worker->pidfd, i);
    if (started.ok()) {
      seat.process = *std::move(worker);
      seat.alive = true;
      // Terminate() may have come meanwhile; it kills what is alive.
      if (leaving_) (void)os::SignalPidfd(seat.process.pidfd, SIGKILL);
      continue;
    }
    if (worker.ok()) {  // One that is not watched must not keep the lane.
      (void)os::SignalPidfd(worker->pidfd, SIGKILL);
      lock.unlock();
      (void)starter_->Collect(*worker);
      lock.lock();
    }
    ++starts_in_vain_;
    next_start_ = os::NowNanoseconds() + PauseAfter(starts_in_vain_);
    if (absl::IsUnavailable(started) || starts_in_vain_ >= kMostStartsInVain) {
      Break(started);
    }
  }
}

void Engine::Break(const absl::Status& why) {
  broken_ = absl::UnavailableError(
      absl::StrCat("the pool can start no more workers: ", why.ToString()));
  FinishQueued(broken_);
}

void Engine::FinishQueued(const absl::Status& status) {
  const std::deque<std::shared_ptr<Task>> queue = std::exchange(queue_, {});
  for (const std::shared_ptr<Task>& task : queue) Finish(*task, status);
}

void Engine::KillOverdue() {
  if (with_time_limit_ == 0) return;
  const int64_t now = os::NowNanoseconds();
  for (Seat& seat : seats_) {
    if (!seat.alive || seat.assigned.empty()) continue;
    Task& task = *seat.assigned.front();
    if (task.overdue == 0 || task.overdue > now || task.timed_out) continue;
    task.timed_out = true;
    seat.told_to_leave = true;
    (void)os::SignalPidfd(seat.process.pidfd, SIGKILL);
  }
}

Deadline Engine::NextAppointment() const {
  Deadline next = Deadline::Infinite();
  for (const Seat& seat : seats_) {
    if (!seat.alive && !leaving_ && broken_.ok()) {
      next = next.Earlier(Deadline::AtNanoseconds(next_start_));
    }
    if (seat.assigned.empty()) continue;
    const Task& task = *seat.assigned.front();
    if (task.overdue != 0 && !task.timed_out) {
      next = next.Earlier(Deadline::AtNanoseconds(task.overdue));
    }
  }
  return next;
}

// Ends.

void Engine::Close() {
  if (!creator_.IsMe()) return;
  const Lock lock(mutex_);
  closed_ = true;
  StopWorkersIfDone();
}

bool Engine::closed() const {
  if (!creator_.IsMe()) return true;
  const Lock lock(mutex_);
  return closed_;
}

void Engine::StopWorkersIfDone() {
  if (!closed_ || unfinished_ > 0 || leaving_) return;
  leaving_ = true;
  for (Seat& seat : seats_) {
    if (!seat.alive) continue;
    seat.told_to_leave = true;
    seat.lane->leave.store(1, std::memory_order_seq_cst);
    WakeWorker(*seat.lane, kTasks);
  }
  if (poller_.has_value()) poller_->Kick();
}

absl::Status Engine::AwaitEnd(Deadline until) {
  if (!creator_.IsMe()) return absl::OkStatus();
  if (!AwaitReady(until, [&] { return control_ended_; })) {
    const Lock lock(mutex_);
    return absl::DeadlineExceededError(
        absl::StrCat(unfinished_, " calls of the pool are not done yet"));
  }
  std::unique_ptr<std::thread> control;
  {
    const Lock lock(mutex_);
    control = std::move(control_);
  }
  if (control != nullptr) control->join();
  return absl::OkStatus();
}

void Engine::CancelQueued() {
  if (!creator_.IsMe()) return;
  const Lock lock(mutex_);
  FinishQueued(absl::CancelledError("the pool was shut down before it began"));
}

void Engine::Terminate() {
  if (!creator_.IsMe()) return;
  {
    const Lock lock(mutex_);
    closed_ = true;
    leaving_ = true;
    const absl::Status cancelled =
        absl::CancelledError("the pool was terminated");
    FinishQueued(cancelled);
    for (Seat& seat : seats_) {
      for (const std::shared_ptr<Task>& task : seat.assigned) {
        if (!task->done()) Finish(*task, cancelled);
      }
      seat.assigned.clear();
      seat.written = 0;
      if (seat.alive) (void)os::SignalPidfd(seat.process.pidfd, SIGKILL);
    }
    if (control_ == nullptr) {
      control_ended_ = true;
      return;
    }
    poller_->Kick();
  }
  (void)AwaitEnd(Deadline::Infinite());
}

EngineStats Engine::Stats() const {
  if (!creator_.IsMe()) return {};
  const Lock lock(mutex_);
  EngineStats stats = stats_;
  stats.queued = queue_.size();
  for (const Seat& seat : seats_) {
    stats.workers_alive += seat.alive ? 1 : 0;
    stats.running += seat.assigned.size();
  }
  return stats;
}

std::vector<int> Engine::WorkerPids() const {
  if (!creator_.IsMe()) return {};
  const Lock lock(mutex_);
  std::vector<int> pids;
  for (const Seat& seat : seats_) {
    if (seat.alive) pids.push_back(seat.process.pid);
  }
  return pids;
}

void Engine::Control() {
  Lock lock(mutex_);
  for (;;) {
    Drain();
    KillOverdue();
    FillSeats(lock);
    Dispatch();
    StopWorkersIfDone();
    if (std::none_of(seats_.begin(), seats_.end(),
                     [](const Seat& seat) { return seat.alive; })) {
      if (leaving_) break;
      // Nobody is left to run what was queued again.
      if (!broken_.ok()) FinishQueued(broken_);
    }
    if (ArmPoller()) continue;
    // A worker that is stopped between taking the bell's mode down and ringing
    // is not dead, and nobody else rings for the others.
    const Deadline wake =
        NextAppointment().Earlier(Deadline::After(kControlSlice));
    lock.unlock();
    const std::vector<uint64_t> tags = poller_->Wait(wake);
    lock.lock();
    for (const uint64_t tag : tags) {
      if (tag == kDoorbellTag) {
        while (os::ReceiveMessage(doorbell_, 8, 0, Deadline::Now()).ok()) {
        }
      } else {
        WorkerEnded(static_cast<uint32_t>(tag), lock);
      }
    }
  }
  control_ended_ = true;
  endings_.fetch_add(1, std::memory_order_release);
  changed_.notify_all();
  bell_->rings.fetch_add(1);
  os::FutexWake(bell_->rings, INT_MAX);
}

}  // namespace cohort::pool_internal
