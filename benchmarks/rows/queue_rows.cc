// SPDX-License-Identifier: Apache-2.0
//
// The rows queue/*: messages of 64 bytes from one process to another.

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/benchmarks/internal/guest.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/row.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/benchmarks/limits/lamport_ring.h"
#include "cohort/benchmarks/limits/spin_turns.h"
#include "cohort/benchmarks/peers/kernel_queue.h"
#include "cohort/ipc/queue.h"

namespace cohort_benchmarks {
namespace {

constexpr int kCapacity = 4096;

// One producer, one consumer, both at full speed.
absl::StatusOr<double> OurStream() {
  absl::StatusOr<cohort::Queue<Message>> queue =
      cohort::Queue<Message>::Create({.max_items = kCapacity});
  if (!queue.ok()) return queue.status();
  return StreamPerSecond(
      1'000'000,
      [&](const Message& message) { return queue->Put(message).ok(); },
      [&](Message& message) {
        absl::StatusOr<Message> got = queue->Get();
        if (got.ok()) message = *got;
        return got.ok();
      });
}

absl::StatusOr<double> RingStream() {
  SharedObject<LamportRing<Message, kCapacity>> ring;
  return StreamPerSecond(
      2'000'000,
      [&](const Message& message) {
        ring->Push(message);
        return true;
      },
      [&](Message& message) {
        ring->Pop(message);
        return true;
      });
}

template <typename Queue, uint64_t kMessages>
absl::StatusOr<double> KernelStream() {
  Queue queue;
  if (absl::Status s = queue.Ready(); !s.ok()) return s;
  return StreamPerSecond(
      kMessages, [&](const Message& message) { return queue.Put(message); },
      [&](Message& message) { return queue.Get(message); });
}

Row QueueStream() {
  Row row;
  row.unit = "1/s";
  row.better = Better::kHigher;
  row.ours = OurStream;
  row.limit_name = "Lamport ring, cached indices";
  row.limit = RingStream;
  row.peers = {
      {"Boost message_queue", Boost("queue_stream")},
      {"POSIX mq", KernelStream<PosixQueue, 100'000>},
      {"pipe", KernelStream<KernelPipe, 200'000>},
      {"Python Queue", Python("queue_stream")},
  };
  row.goals = {AtLeast(30e6, ""), AtLeast(5, "Boost message_queue")};
  return row;
}

// One message there, one back, on two queues.
absl::StatusOr<double> OurPingPong() {
  auto there = cohort::Queue<Message>::Create({.max_items = 16});
  if (!there.ok()) return there.status();
  auto back = cohort::Queue<Message>::Create({.max_items = 16});
  if (!back.ok()) return back.status();
  const Message message;
  return OneWayNanoseconds(
      [&](int64_t) { return there->Put(message).ok() && back->Get().ok(); },
      [&](int64_t) { return there->Get().ok() && back->Put(message).ok(); });
}

absl::StatusOr<double> SpinPingPong() {
  SharedObject<SpinTurns> turns;
  return OneWayNanoseconds([&](int64_t i) { return turns->Ask(i); },
                           [&](int64_t i) { return turns->Answer(i); });
}

template <typename Queue>
absl::StatusOr<double> KernelPingPong() {
  Queue there;
  if (absl::Status s = there.Ready(); !s.ok()) return s;
  Queue back;
  if (absl::Status s = back.Ready(); !s.ok()) return s;
  Message message;
  return OneWayNanoseconds(
      [&](int64_t) { return there.Put(message) && back.Get(message); },
      [&](int64_t) { return there.Get(message) && back.Put(message); });
}

Row QueuePingPong() {
  Row row;
  row.unit = "ns";
  row.better = Better::kLower;
  row.ours = OurPingPong;
  row.limit_name = "spin: one word each way";
  row.limit = SpinPingPong;
  row.peers = {
      {"Boost message_queue", Boost("queue_pingpong")},
      {"POSIX mq", KernelPingPong<PosixQueue>},
      {"pipe", KernelPingPong<KernelPipe>},
      {"Python Queue", Python("queue_pingpong")},
  };
  row.goals = {AtMost(2.5, "limit")};
  return row;
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return RunRows(argc, argv,
                 {{"queue/stream_64_1p1c", QueueStream},
                  {"queue/pingpong_64", QueuePingPong}});
}
