// SPDX-License-Identifier: Apache-2.0
//
// The workloads of the rows, once each: ours, the limits and the peers play the
// very same one.
//
//   row.ours = [] {
//     return NanosecondsEach<cohort::Mutex>(
//         3'000'000, [](cohort::Mutex& mu) { cohort::MutexLock lock(mu); });
//   };

#ifndef COHORT_BENCHMARKS_INTERNAL_PLAYS_H_
#define COHORT_BENCHMARKS_INTERNAL_PLAYS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/benchmarks/internal/stage.h"
#include "cohort/os/cpu.h"

namespace cohort_benchmarks {

// What the queue rows carry.
struct Message {
  uint64_t sequence = 0;
  char rest[56] = {};
};
static_assert(sizeof(Message) == 64);

// Nanoseconds per call of `act(object)`, on one processor: of 101 short
// stretches the median, so that one in which somebody else ran does not count.
// Each stretch has an object of its own, at a place of its own within a page:
// at a few places any two stores get into each other's way.
template <typename Object, typename Act>
double NanosecondsEach(int64_t times, Act act) {
  struct alignas(64) Place {
    Object object;
  };
  constexpr size_t kStretches = 101;
  SharedObject<std::array<Place, kStretches>> places;
  std::array<int64_t, kStretches> stretches;
  const int64_t length = times / int64_t{kStretches};
  PinTo(kFirstCpu);
  for (size_t k = 0; k < kStretches; ++k) {
    Object& object = (*places)[k].object;
    for (int64_t i = 0; i < 100; ++i) act(object);
    const int64_t begin = Now();
    for (int64_t i = 0; i < length; ++i) act(object);
    stretches[k] = Now() - begin;
  }
  const auto median = stretches.begin() + kStretches / 2;
  std::nth_element(stretches.begin(), median, stretches.end());
  return static_cast<double>(*median) / static_cast<double>(length);
}

// Nanoseconds per call of `act()`, the mean of as many as fit into `length`; it
// returns a status.
template <typename Act>
absl::StatusOr<double> NanosecondsPerCall(int64_t length, Act act) {
  const int64_t begin = Now();
  int64_t took = 0;
  int64_t calls = 0;
  while (took < length) {
    for (int k = 0; k < 64; ++k, ++calls) {
      if (absl::Status s = act(); !s.ok()) return s;
    }
    took = Now() - begin;
  }
  return static_cast<double>(took) / static_cast<double>(calls);
}

// Calls of `increment` per second, of two processes together, on two
// processors. `increment(counter)` adds one to a counter that must come out
// right.
template <typename Increment>
absl::StatusOr<double> RivalsPerSecond(Increment increment) {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  struct Ring {
    alignas(128) uint64_t counter = 0;
    alignas(128) std::atomic<int> present = 0;
    alignas(128) std::atomic<bool> stop = false;
    alignas(128) std::atomic<uint64_t> done = 0;
  };
  SharedObject<Ring> ring;
  constexpr int64_t kLength = 150'000'000;
  const auto take_part = [&](int cpu) {
    PinTo(cpu);
    ring->present.fetch_add(1);
    while (ring->present.load() < 2) cohort::os::CpuRelax();
    const int64_t begin = Now();
    uint64_t done = 0;
    while (!ring->stop.load(std::memory_order_relaxed)) {
      increment(ring->counter);
      if (++done % 1024 == 0 && Now() - begin > kLength) ring->stop = true;
    }
    ring->done.fetch_add(done);
    return Now() - begin;
  };
  Companion rival([&] { take_part(kSecondCpu); });
  const int64_t took = take_part(kFirstCpu);
  if (absl::Status s = rival.Join(); !s.ok()) return s;
  if (ring->counter != ring->done) {
    return absl::DataLossError("increments were lost: it does not exclude");
  }
  return static_cast<double>(ring->done) * 1e9 / static_cast<double>(took);
}

// Messages per second from one process to another. `put(message)` and
// `get(message)` block until done and return true, or false for a failure.
template <typename Put, typename Get>
absl::StatusOr<double> StreamPerSecond(uint64_t messages, Put put, Get get) {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  // Written beforehand: a copy of bytes that were stored a moment ago stalls
  // until the stores before them are done, whoever copies, and hides the rest.
  constexpr uint64_t kWritten = 256;
  SharedObject<std::array<Message, kWritten>> written;
  for (uint64_t i = 0; i < kWritten; ++i) (*written)[i].sequence = i;
  Companion producer([&] {
    PinTo(kSecondCpu);
    for (uint64_t i = 0; i < messages; ++i) {
      if (!put((*written)[i % kWritten])) abort();
    }
  });
  PinTo(kFirstCpu);
  Message message;
  int64_t begin = 0;
  for (uint64_t i = 0; i < messages; ++i) {
    if (!get(message)) return absl::InternalError("get failed");
    Keep(message);
    if (message.sequence != i % kWritten) {
      return absl::DataLossError("a message is lost, doubled or out of order");
    }
    if (i == 0) begin = Now();
  }
  const int64_t took = Now() - begin;
  if (absl::Status s = producer.Join(); !s.ok()) return s;
  return static_cast<double>(messages - 1) * 1e9 / static_cast<double>(took);
}

// Nanoseconds one way: half a round trip, the mean of as many as fit into a
// while. `ask(i)` sends the i-th question and awaits its answer, `answer(i)`
// the reverse, in another process; both return false for a failure.
template <typename Ask, typename Answer>
absl::StatusOr<double> OneWayNanoseconds(Ask ask, Answer answer) {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  constexpr int64_t kWarmUp = 20'000'000;
  constexpr int64_t kLength = 150'000'000;
  SharedObject<std::atomic<int64_t>> last;  // The question that ends it.
  last->store(std::numeric_limits<int64_t>::max());
  Companion echo([&] {
    PinTo(kSecondCpu);
    for (int64_t i = 0; i <= last->load(std::memory_order_relaxed); ++i) {
      if (!answer(i)) abort();
    }
  });
  PinTo(kFirstCpu);
  int64_t asked = 0;
  const auto round_trip = [&] {
    return ask(asked++) ? absl::OkStatus()
                        : absl::InternalError("the round trip failed");
  };
  if (auto warm = NanosecondsPerCall(kWarmUp, round_trip); !warm.ok()) {
    return warm;
  }
  const auto both_ways = NanosecondsPerCall(kLength, round_trip);
  if (!both_ways.ok()) return both_ways;
  last->store(asked);
  if (absl::Status s = round_trip(); !s.ok()) return s;
  if (absl::Status s = echo.Join(); !s.ok()) return s;
  return *both_ways / 2;
}

// Whose turn it is.
enum Turn : uint32_t { kNobodys, kFirsts, kSeconds };

// Two processes that hand each other the turn as one does it with a condition
// variable: each waits on one of its own, under one mutex.
template <typename Mutex, typename Condition, typename Lock>
class LockedTurns final {
 public:
  void Give(Turn to) {
    Lock lock(mutex_);
    turn_ = to;
    (to == kFirsts ? firsts_ : seconds_).notify_one();
  }
  void Take(Turn me) {
    Lock lock(mutex_);
    while (turn_ != me) (me == kFirsts ? firsts_ : seconds_).wait(lock);
  }

 private:
  Mutex mutex_;
  Condition firsts_;
  Condition seconds_;
  Turn turn_ = kNobodys;
};

// Nanoseconds from before `turns.Give()` to after the other's `turns.Take()`;
// both processes do nothing else, on two processors.
template <typename Turns>
absl::StatusOr<double> HandOffHotNanoseconds() {
  SharedObject<Turns> turns;
  return OneWayNanoseconds(
      [&](int64_t) {
        turns->Give(kSeconds);
        turns->Take(kFirsts);
        return true;
      },
      [&](int64_t) {
        turns->Take(kSeconds);
        turns->Give(kFirsts);
        return true;
      });
}

// Likewise, but the other sleeps when it is given the turn: each keeps it for
// 200 us, far longer than anybody spins. The median of 301. A player that was
// not asleep has no figure.
template <typename Turns>
absl::StatusOr<double> HandOffAsleepNanoseconds() {
  if (absl::Status s = NeedTwoCpus(); !s.ok()) return s;
  constexpr size_t kTimes = 301;
  constexpr int64_t kKept = 200'000;
  SharedObject<Turns> turns;
  SharedObject<std::atomic<int64_t>> given;  // When.
  const auto keep_and_give = [&](Turn to) {
    const int64_t begin = Now();
    while (Now() - begin < kKept) cohort::os::CpuRelax();
    given->store(Now());
    turns->Give(to);
  };
  Companion second([&] {
    PinTo(kSecondCpu);
    for (size_t k = 0; k < kTimes; ++k) {
      turns->Take(kSeconds);
      keep_and_give(kFirsts);
    }
  });
  PinTo(kFirstCpu);
  const int64_t slept_before = TimesAsleep();
  std::array<int64_t, kTimes> took;
  for (int64_t& t : took) {
    keep_and_give(kSeconds);
    turns->Take(kFirsts);
    t = Now() - given->load();
  }
  const int64_t slept = TimesAsleep() - slept_before;
  if (absl::Status s = second.Join(); !s.ok()) return s;
  if (slept < int64_t{kTimes} * 9 / 10) {
    return absl::FailedPreconditionError("the waiter was awake");
  }
  const auto median = took.begin() + kTimes / 2;
  std::nth_element(took.begin(), median, took.end());
  return static_cast<double>(*median);
}

// Nanoseconds per round of a barrier that two processes share, on two
// processors. `arrive()` returns when both have called it.
template <typename Arrive>
absl::StatusOr<double> RoundNanoseconds(Arrive arrive) {
  const auto arrive_once = [&](int64_t) {
    arrive();
    return true;
  };
  absl::StatusOr<double> half = OneWayNanoseconds(arrive_once, arrive_once);
  if (half.ok()) *half *= 2;
  return half;
}

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_INTERNAL_PLAYS_H_
