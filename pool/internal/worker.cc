// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/internal/worker.h"

#include <csignal>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/cpu.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/socket.h"
#include "cohort/pool/internal/lane.h"
#include "cohort/serialize/callable.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace cohort::pool_internal {
namespace {

// How long a worker looks for the next task before it sleeps: about what a
// sleep and a wake cost, so that neither choice is ever twice as bad.
constexpr int64_t kSpinNanoseconds = 20'000;

class Worker final {
 public:
  explicit Worker(WorkerSeat seat)
      : seat_(std::move(seat)),
        bell_(*reinterpret_cast<Bell*>(Bytes(0))),
        lane_(
            *reinterpret_cast<Lane*>(Bytes(seat_.layout.LaneAt(seat_.index)))),
        tasks_(&lane_.down, Bytes(seat_.layout.DownAt(seat_.index)),
               seat_.layout.ring_bytes),
        results_(&lane_.up, Bytes(seat_.layout.UpAt(seat_.index)),
                 seat_.layout.ring_bytes),
        may_spin_(os::UsableCpus() > 1) {}

  int Run() {
    Frame message;
    Frame result;
    before_ = os::NowNanoseconds();
    for (;;) {
      const bool idle = !HasNews(lane_.down);
      if (idle && !AwaitNews()) return 0;  // Told to leave, and all is done.
      message.Clear();
      const absl::StatusOr<RecordHeader> head = ReadMessage(message);
      if (!head.ok()) return kBrokenLane;
      // Time spent waiting for the task is not the task's.
      if (idle) before_ = os::NowNanoseconds();
      // The parent reads this after our death: from here on the task is in our
      // hands, and user code may run (its arguments' load() functions do).
      lane_.started.store(head->sequence, std::memory_order_release);
      result.Clear();
      if ((head->flags & RecordHeader::kMap) != 0) {
        RunChunk(*head, message, result);
      } else {
        RunCall(*head, message, result);
      }
    }
  }

 private:
  static constexpr int kBrokenLane = 70;  // EX_SOFTWARE of sysexits.h

  char* Bytes(size_t offset) const {
    return reinterpret_cast<char*>(seat_.region.bytes().data()) + offset;
  }

  // Returns true when a task is there, false when the worker shall leave.
  bool AwaitNews() {
    if (may_spin_) {
      const int64_t until = os::NowNanoseconds() + kSpinNanoseconds;
      do {
        for (int i = 0; i < 64; ++i) {
          if (HasNews(lane_.down)) return true;
          os::CpuRelax();
        }
      } while (os::NowNanoseconds() < until);
    }
    os::Slices slices((Deadline()));
    while (!HasNews(lane_.down)) {
      if (lane_.leave.load(std::memory_order_acquire) != 0) return false;
      WorkerSleep(lane_, kTasks, slices.Next(), [this] {
        return HasNews(lane_.down) ||
               lane_.leave.load(std::memory_order_seq_cst) != 0;
      });
    }
    return true;
  }

  // Reads one message, all its records; waits for those that are to come.
  absl::StatusOr<RecordHeader> ReadMessage(Frame& message) {
    RecordHeader head;
    for (bool first = true;; first = false) {
      std::optional<Record> record = tasks_.Next();
      if (!record.has_value()) {
        if (tasks_.corrupt()) return absl::DataLossError("the lane is corrupt");
        AwaitNews();
        continue;
      }
      if (first) {
        head = record->header;
        if (absl::Status got = ReceiveDescriptors(head, message); !got.ok()) {
          return got;
        }
      }
      message.Append(record->first);
      message.Append(record->second);
      const bool more = (record->header.flags & RecordHeader::kMore) != 0;
      tasks_.Release();
      if (lane_.parent_wants_room.load(std::memory_order_seq_cst) != 0 &&
          lane_.parent_wants_room.exchange(0) != 0) {
        Ring(/*always=*/true);
      }
      if (!more) return head;
    }
  }

  absl::Status ReceiveDescriptors(const RecordHeader& head, Frame& message) {
    if (head.descriptors == 0) return absl::OkStatus();
    absl::StatusOr<os::Message> got =
        os::ReceiveMessage(seat_.socket, sizeof(head.sequence),
                           head.descriptors, Deadline::Infinite());
    // Without them the call cannot be decoded, which says so by itself.
    if (got.ok()) message.descriptors() = std::move(got->descriptors);
    return absl::IsOutOfRange(got.status()) ? got.status() : absl::OkStatus();
  }

  void RunCall(const RecordHeader& head, Frame& message, Frame& result) {
    RecordHeader done = Answer(head, RecordHeader::kLast);
    absl::StatusOr<BoundCall> call =
        DecodeCall(message.bytes(), std::move(message.descriptors()));
    if (call.ok()) {
      // What the function returned, or threw, is in the result either way.
      (void)std::move(*call).Run(result);
    } else {
      done.flags |= RecordHeader::kFailed;
      WriteError(call.status(), result);
    }
    done.nanoseconds = Lap();
    WriteMessage(done, result);
  }

  // Runs the elements of a chunk. Their results go up as open parts.
  void RunChunk(const RecordHeader& head, Frame& message, Frame& result) {
    Decoder decoder(message.bytes(), std::move(message.descriptors()));
    absl::StatusOr<BoundMap> map = DecodeFunction(decoder);
    size_t left = head.elements;
    absl::Status broken = map.status();
    if (map.ok()) {
      AwaitRoom(results_.LargestRecord());
      broken = map->Run(decoder, left, result,
                        [&] {
                          --left;
                          Publish(head, result);
                          return true;
                        })
                   .status();
    }
    RecordHeader done = Answer(head, RecordHeader::kMap | RecordHeader::kLast);
    done.nanoseconds = Lap();
    if (left == 0) {
      EndPart(done);
      return;
    }
    // Elements that could not be decoded: each has that error as its result.
    if (part_elements_ > 0) EndPart(Answer(head, RecordHeader::kMap));
    done.flags |= RecordHeader::kFailed;
    done.elements = static_cast<uint32_t>(left);
    WriteError(broken, result);
    WriteMessage(done, result);
  }

  static RecordHeader Answer(const RecordHeader& head, uint32_t flags) {
    RecordHeader answer;
    answer.sequence = head.sequence;
    answer.flags = flags;
    return answer;
  }

  static void WriteError(const absl::Status& error, Frame& result) {
    result.Clear();
    // A status always encodes.
    (void)EncodeTo(result, error);
  }

  // The time since the task began, or since the last lap.
  uint64_t Lap() {
    const int64_t now = os::NowNanoseconds();
    return static_cast<uint64_t>(now - std::exchange(before_, now));
  }

  // One more element's result is the content of `result`.
  void Publish(const RecordHeader& head, Frame& result) {
    const bool alone = !result.descriptors().empty() ||
                       result.size() > results_.LargestRecord();
    if (alone || part_elements_ == kMostOpenElements ||
        result.size() > results_.LargestRecord() - results_.open_bytes()) {
      if (part_elements_ > 0) EndPart(Answer(head, RecordHeader::kMap));
      if (alone) {
        RecordHeader one = Answer(head, RecordHeader::kMap);
        one.elements = 1;
        WriteMessage(one, result);
      }
      AwaitRoom(results_.LargestRecord());
    }
    if (!alone) {
      results_.AppendOpen(result.bytes());
      ++part_elements_;
      // The commit of this element.
      lane_.open.store(
          OpenWord(results_.tail(), part_elements_, results_.open_bytes()),
          std::memory_order_release);
    }
    result.Clear();
  }

  void EndPart(RecordHeader part) {
    part.elements = static_cast<uint32_t>(part_elements_);
    results_.CommitOpen(part);
    lane_.open.store(0, std::memory_order_release);
    part_elements_ = 0;
    Ring(/*always=*/false);
  }

  // Writes a message as one record or several, and tells the parent.
  void WriteMessage(RecordHeader header, Frame& message) {
    if (!message.descriptors().empty()) SendDescriptors(header, message);
    std::string_view rest = message.bytes();
    do {
      const std::string_view piece = rest.substr(0, results_.LargestRecord());
      rest.remove_prefix(piece.size());
      AwaitRoom(piece.size());
      RecordHeader record = header;
      if (!rest.empty()) record.flags |= RecordHeader::kMore;
      results_.Put(record, piece);
      results_.Commit();
      header.descriptors = 0;  // They came before the first record.
      Ring(/*always=*/false);
    } while (!rest.empty());
  }

  void SendDescriptors(RecordHeader& header, Frame& message) {
    absl::Status sent;
    os::Slices slices((Deadline()));
    for (;;) {
      const Deadline slice = slices.Next();
      sent = os::SendMessage(seat_.socket,
                             {reinterpret_cast<const char*>(&header.sequence),
                              sizeof(header.sequence)},
                             message.descriptors(), slice);
      // The socket is full, or too many descriptors are under way. Nobody may
      // be looking: ask for some to be read.
      const bool under_way = absl::IsResourceExhausted(sent);
      if (!absl::IsDeadlineExceeded(sent) && !under_way) break;
      Ring(/*always=*/true);
      if (under_way) WorkerSleep(lane_, kRoom, slice, [] { return false; });
    }
    if (sent.ok()) {
      header.descriptors = static_cast<uint32_t>(message.descriptors().size());
    } else {
      header.flags |= RecordHeader::kFailed;
      WriteError(sent, message);
    }
  }

  void AwaitRoom(size_t bytes) {
    os::Slices slices((Deadline()));
    while (!results_.HasRoom(bytes)) {
      // Nobody may be looking: ask for it.
      Ring(/*always=*/true);
      WorkerSleep(lane_, kRoom, slices.Next(),
                  [&] { return results_.HasRoom(bytes); });
    }
  }

  void Ring(bool always) {
    const bool poller = RingBell(bell_);
    if (!poller && !always) return;
    // A full socket has the poller awake already; a closed one means that the
    // parent is gone, and the kernel ends this process with it.
    (void)os::SendMessage(seat_.doorbell, "!", Deadline::Now());
  }

  WorkerSeat seat_;
  Bell& bell_;
  Lane& lane_;
  RingReader tasks_;
  RingWriter results_;
  const bool may_spin_;
  size_t part_elements_ = 0;  // Results in the open part.
  int64_t before_ = 0;
};

}  // namespace

size_t Layout::LaneAt(uint32_t index) const {
  return sizeof(Bell) + index * sizeof(Lane);
}

size_t Layout::DownAt(uint32_t index) const {
  constexpr size_t kLine = 128;
  const size_t words = (LaneAt(workers) + kLine - 1) / kLine * kLine;
  return words + size_t{2} * index * ring_bytes;
}

size_t Layout::UpAt(uint32_t index) const { return DownAt(index) + ring_bytes; }

size_t Layout::Size() const { return DownAt(workers); }

int WorkerMain(WorkerSeat seat) {
  os::Descriptor(std::exchange(seat.seeds_socket, -1)).Reset();
  // Ctrl-C reaches every process of the terminal; what it means is the
  // parent's to decide.
  std::signal(SIGINT, SIG_IGN);
  return Worker(std::move(seat)).Run();
}

}  // namespace cohort::pool_internal
