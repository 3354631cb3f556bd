// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/internal/starter.h"

#include <chrono>
#include <csignal>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cohort/os/deadline.h"
#include "cohort/os/socket.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort::pool_internal {
namespace {

ProcessOptions WorkerOptions(StartMethod method, uint32_t index) {
  ProcessOptions options;
  options.start_method = method;
  options.name = absl::StrCat("pool-worker-", index + 1);
  options.lifetime = Lifetime::kDieWithParent;
  // A worker whose pool is gone has nothing to tidy up.
  options.grace = absl::ZeroDuration();
  return options;
}

// A second descriptor of the process's pidfd.
absl::StatusOr<os::Descriptor> PidfdOf(const Process& process) {
  os::Descriptor borrowed(process.poll_handle());
  absl::StatusOr<os::Descriptor> copy = borrowed.Duplicate();
  (void)borrowed.Release();
  return copy;
}

ExitStatus Unknown(int pid, const absl::Status& why) {
  ExitStatus end;
  end.pid = pid;
  end.status = why;
  return end;
}

class SpawnStarter final : public Starter {
 public:
  absl::StatusOr<StartedWorker> Start(WorkerSeat seat) override {
    auto ends = os::SocketPair();
    if (!ends.ok()) return ends.status();
    seat.socket = std::move(ends->second);
    const ProcessOptions options =
        WorkerOptions(StartMethod::kSpawn, seat.index);
    absl::StatusOr<Process> process =
        Process::Start(options, WorkerMain, std::move(seat));
    if (!process.ok()) return process.status();
    absl::StatusOr<os::Descriptor> pidfd = PidfdOf(*process);
    if (!pidfd.ok()) return pidfd.status();
    StartedWorker worker;
    worker.pid = process->pid();
    worker.pidfd = *std::move(pidfd);
    worker.socket = std::move(ends->first);
    worker.process = *std::move(process);
    return worker;
  }

  ExitStatus Collect(StartedWorker& worker) override {
    absl::StatusOr<ExitStatus> end =
        worker.process->Join(absl::InfiniteDuration());
    worker.process.reset();
    return end.ok() ? *std::move(end) : Unknown(worker.pid, end.status());
  }
};

// What the pool and its seed say to each other, one frame in one message.
struct SeedRequest {
  bool start = false;  // Or collect `pid`.
  WorkerSeat seat;
  int pid = 0;

  template <class Archive>
  void serialize(Archive& archive) {
    archive(start);
    // An empty region has nothing to travel by.
    if (start) {
      archive(seat);
    } else {
      archive(pid);
    }
  }
};

struct SeedReply {
  absl::Status status;
  int pid = 0;
  os::Descriptor pidfd;
  int code = 0;
  int signal = 0;
  bool core_dumped = false;

  template <class Archive>
  void serialize(Archive& archive) {
    archive(status, pid, pidfd, code, signal, core_dumped);
  }
};

constexpr size_t kMostRequestBytes = 4096;
constexpr size_t kMostReplyBytes = 16'384;
constexpr size_t kMostDescriptors = 8;

template <typename T>
absl::Status Send(const os::Descriptor& socket, const T& value,
                  Deadline until) {
  absl::StatusOr<Frame> frame = Encode(value);
  if (!frame.ok()) return frame.status();
  return os::SendMessage(socket, frame->bytes(), frame->descriptors(), until);
}

template <typename T>
absl::StatusOr<T> Receive(const os::Descriptor& socket, size_t most_bytes,
                          Deadline until) {
  absl::StatusOr<os::Message> message =
      os::ReceiveMessage(socket, most_bytes, kMostDescriptors, until);
  if (!message.ok()) return message.status();
  return Decode<T>(message->bytes, std::move(message->descriptors));
}

// The seed: forks workers on request until the pool closes its end.
class Seed final {
 public:
  explicit Seed(os::Descriptor socket) : socket_(std::move(socket)) {}

  int Run() {
    for (;;) {
      absl::StatusOr<SeedRequest> request = Receive<SeedRequest>(
          socket_, kMostRequestBytes, Deadline::Infinite());
      if (absl::IsOutOfRange(request.status())) return 0;
      SeedReply reply;
      if (!request.ok()) {
        reply.status = request.status();
      } else if (request->start) {
        reply = Start(std::move(request->seat));
      } else {
        reply = Collect(request->pid);
      }
      if (!Send(socket_, reply, Deadline::Infinite()).ok()) return 0;
    }
  }

 private:
  SeedReply Start(WorkerSeat seat) {
    SeedReply reply;
    const ProcessOptions options =
        WorkerOptions(StartMethod::kFork, seat.index);
    seat.seeds_socket = socket_.get();
    absl::StatusOr<Process> process =
        Process::Start(options, WorkerMain, std::move(seat));
    reply.status = process.status();
    if (!process.ok()) return reply;
    absl::StatusOr<os::Descriptor> pidfd = PidfdOf(*process);
    reply.status = pidfd.status();
    if (!pidfd.ok()) return reply;
    reply.pid = process->pid();
    reply.pidfd = *std::move(pidfd);
    children_.emplace(reply.pid, *std::move(process));
    return reply;
  }

  SeedReply Collect(int pid) {
    SeedReply reply;
    reply.pid = pid;
    auto child = children_.find(pid);
    if (child == children_.end()) {
      reply.status = absl::NotFoundError("no such worker");
      return reply;
    }
    absl::StatusOr<ExitStatus> end =
        child->second.Join(absl::InfiniteDuration());
    children_.erase(child);
    reply.status = end.ok() ? end->status : end.status();
    if (end.ok()) {
      reply.code = end->code;
      reply.signal = end->signal;
      reply.core_dumped = end->core_dumped;
    }
    return reply;
  }

  os::Descriptor socket_;
  std::map<int, Process> children_;
};

// `pools_end` is the copy of the other end that the fork has made: with it open
// here, the seed would never see the pool go.
int SeedMain(os::Descriptor socket, int pools_end) {
  os::Descriptor(pools_end).Reset();
  std::signal(SIGINT, SIG_IGN);
  return Seed(std::move(socket)).Run();
}

class ForkStarter final : public Starter {
 public:
  ForkStarter(Process seed, os::Descriptor socket)
      : seed_(std::move(seed)), socket_(std::move(socket)) {}
  ~ForkStarter() override {
    // The seed leaves when this end is closed.
    socket_.Reset();
    (void)seed_.Join(absl::Seconds(1));
  }

  absl::StatusOr<StartedWorker> Start(WorkerSeat seat) override {
    auto ends = os::SocketPair();
    if (!ends.ok()) return ends.status();
    SeedRequest request;
    request.start = true;
    request.seat = std::move(seat);
    request.seat.socket = std::move(ends->second);
    absl::StatusOr<SeedReply> reply = Ask(request);
    if (!reply.ok()) return reply.status();
    if (!reply->status.ok()) return reply->status;
    StartedWorker worker;
    worker.pid = reply->pid;
    worker.pidfd = std::move(reply->pidfd);
    worker.socket = std::move(ends->first);
    return worker;
  }

  ExitStatus Collect(StartedWorker& worker) override {
    SeedRequest request;
    request.pid = worker.pid;
    absl::StatusOr<SeedReply> reply = Ask(request);
    if (!reply.ok()) return Unknown(worker.pid, reply.status());
    ExitStatus end;
    end.pid = worker.pid;
    end.code = reply->code;
    end.signal = reply->signal;
    end.core_dumped = reply->core_dumped;
    end.status = reply->status;
    return end;
  }

 private:
  absl::StatusOr<SeedReply> Ask(const SeedRequest& request) {
    const Deadline until = Deadline::After(std::chrono::seconds(60));
    absl::Status asked = socket_.valid()
                             ? Send(socket_, request, until)
                             : absl::UnavailableError("no line to the seed");
    absl::StatusOr<SeedReply> reply =
        asked.ok() ? Receive<SeedReply>(socket_, kMostReplyBytes, until)
                   : absl::StatusOr<SeedReply>(asked);
    if (absl::IsUnavailable(reply.status()) ||
        absl::IsOutOfRange(reply.status())) {
      return absl::UnavailableError(
          "the process from which this pool's workers are forked has ended; "
          "create a new pool");
    }
    if (asked.ok() && !reply.ok()) {
      // A worker that nobody knows may run now: no other may get its lane, and
      // an answer that comes late belongs to no later question. The seed ends
      // with this line, and its workers with it.
      socket_.Reset();
      return absl::UnavailableError(absl::StrCat(
          "the answer of the process from which this pool's workers are forked "
          "was lost (",
          reply.status().ToString(), "); create a new pool"));
    }
    return reply;
  }

  Process seed_;
  os::Descriptor socket_;
};

}  // namespace

std::unique_ptr<Starter> MakeSpawnStarter() {
  return std::make_unique<SpawnStarter>();
}

absl::StatusOr<std::unique_ptr<Starter>> MakeForkStarter() {
  auto ends = os::SocketPair();
  if (!ends.ok()) return ends.status();
  ProcessOptions options;
  options.start_method = StartMethod::kFork;
  options.name = "pool-seed";
  options.lifetime = Lifetime::kDieWithParent;
  options.grace = absl::ZeroDuration();
  absl::StatusOr<Process> seed = Process::Start(
      options, SeedMain, std::move(ends->second), ends->first.get());
  if (!seed.ok()) return seed.status();
  return std::make_unique<ForkStarter>(*std::move(seed),
                                       std::move(ends->first));
}

}  // namespace cohort::pool_internal
