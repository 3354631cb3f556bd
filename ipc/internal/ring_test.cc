// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/internal/ring.h"

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/socket.h"
#include "cohort/shm/region.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::ipc_internal {

// Reaches what only a hostile or a dead process would leave behind.
struct RingTestPeer {
  static auto& Producers(const Ring& ring) { return ring.shared_->producers; }
  static auto& Consumers(const Ring& ring) { return ring.shared_->consumers; }
  static std::atomic<uint64_t>& Word(const Ring& ring, uint64_t position) {
    return ring.Word(position);
  }
};

namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Shared;
using cohort_testing::StatusIs;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kTag = 11;
constexpr uint64_t kCommitted = 1;

Ring NewRing(uint64_t capacity, uint64_t max_items = 0) {
  absl::StatusOr<Ring> ring = Ring::Create(
      {.capacity = capacity, .max_items = max_items, .type_tag = kTag});
  EXPECT_OK(ring);
  return *std::move(ring);
}

// To the n-th processor that this process may use, if there are so many.
void PinTo(int n) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  n %= CPU_COUNT(&all);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all) || n-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    return;
  }
}

// Bytes that differ from message to message and within one.
std::vector<unsigned char> Message(uint64_t id, size_t size) {
  std::vector<unsigned char> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<unsigned char>(id * 31 + i * 7 + i / 256);
  }
  return bytes;
}

RingEnd Put(const Ring& ring, const std::vector<unsigned char>& bytes,
            Deadline deadline = Deadline::Now()) {
  return ring.Put(bytes.data(), bytes.size(), deadline);
}

RingEnd Get(const Ring& ring, std::vector<unsigned char>& bytes,
            Deadline deadline = Deadline::Now()) {
  bytes.resize(ring.capacity());
  size_t size = 0;
  const RingEnd end =
      ring.Get(bytes.data(), bytes.size(), Larger::kCut, &size, deadline);
  bytes.resize(end == RingEnd::kDone ? size : 0);
  return end;
}

TEST(RingTest, CarriesEverySizeAcrossTheEnd) {
  for (const uint64_t capacity : {128, 256, 512, 1024, 4096}) {
    const Ring ring = NewRing(capacity);
    std::vector<unsigned char> got;
    uint64_t id = 0;
    for (int round = 0; round < 3; ++round) {
      for (uint64_t size = 0; size <= ring.max_size(); ++size, ++id) {
        ASSERT_EQ(Put(ring, Message(id, size)), RingEnd::kDone) << size;
        ASSERT_EQ(ring.ApproxSize(), 1u);
        ASSERT_EQ(Get(ring, got), RingEnd::kDone);
        ASSERT_EQ(got, Message(id, size));
      }
    }
    EXPECT_EQ(Get(ring, got), RingEnd::kLate);
    EXPECT_EQ(ring.rescues(), 0u);
  }
}

TEST(RingTest, KeepsOrderAndContentWhileItFillsAndDrains) {
  const Ring ring = NewRing(4096);
  std::mt19937 random(7);
  uint64_t put = 0;
  uint64_t taken = 0;
  std::vector<size_t> sizes;
  std::vector<unsigned char> got;
  while (taken < 20'000) {
    if (random() % 2 == 0) {
      const size_t size = random() % 700;
      if (Put(ring, Message(put, size)) == RingEnd::kDone) {
        sizes.push_back(size);
        ++put;
      }
    } else if (Get(ring, got) == RingEnd::kDone) {
      ASSERT_EQ(got, Message(taken, sizes[taken]));
      ++taken;
    }
    ASSERT_EQ(ring.ApproxSize(), put - taken);
  }
}

TEST(RingTest, RefusesWhatNeverFits) {
  const Ring ring = NewRing(256);
  EXPECT_EQ(Put(ring, Message(1, ring.max_size() + 1)), RingEnd::kTooLarge);
  EXPECT_EQ(Put(ring, Message(1, 1 << 20)), RingEnd::kTooLarge);
  EXPECT_EQ(Put(ring, Message(1, ring.max_size())), RingEnd::kDone);
}

TEST(RingTest, KeepsOrCutsAMessageLargerThanTheRoom) {
  const Ring ring = NewRing(256);
  ASSERT_EQ(Put(ring, Message(1, 100)), RingEnd::kDone);
  std::array<unsigned char, 10> room;
  size_t size = 0;
  EXPECT_EQ(ring.Get(room.data(), 10, Larger::kKeep, &size, Deadline::Now()),
            RingEnd::kTooLarge);
  EXPECT_EQ(size, 100u);
  EXPECT_EQ(ring.ApproxSize(), 1u);
  EXPECT_EQ(ring.Get(room.data(), 10, Larger::kCut, &size, Deadline::Now()),
            RingEnd::kDone);
  EXPECT_EQ(size, 100u);
  EXPECT_TRUE(std::equal(room.begin(), room.end(), Message(1, 100).begin()));
  EXPECT_EQ(ring.ApproxSize(), 0u);
}

TEST(RingTest, BoundsItemsBesidesBytes) {
  const Ring ring = NewRing(1 << 16, 3);
  std::vector<unsigned char> got;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 3; ++i) {
      ASSERT_EQ(Put(ring, Message(i, 8)), RingEnd::kDone);
    }
    ASSERT_EQ(Put(ring, Message(3, 8)), RingEnd::kLate);
    ASSERT_EQ(Get(ring, got), RingEnd::kDone);
    ASSERT_EQ(Put(ring, Message(3, 8)), RingEnd::kDone);
    ASSERT_EQ(Put(ring, Message(4, 8)), RingEnd::kLate);
    for (int i = 1; i <= 3; ++i) {
      ASSERT_EQ(Get(ring, got), RingEnd::kDone);
      ASSERT_EQ(got, Message(i, 8));
    }
  }
}

// Sequence numbers are 28 bits; the count must survive their wrap.
TEST(RingTest, CountsAcrossTheWrapOfSequenceNumbers) {
  const Ring ring = NewRing(1 << 12, 4);
  RingTestPeer::Producers(ring).sequence = 0x0ffffffe;
  RingTestPeer::Producers(ring).oldest = 0x0ffffffe;
  std::vector<unsigned char> got;
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(Put(ring, Message(i, 8)), RingEnd::kDone);
    ASSERT_EQ(ring.ApproxSize(), static_cast<uint64_t>(i) + 1);
  }
  ASSERT_EQ(Put(ring, Message(4, 8)), RingEnd::kLate);
  ASSERT_EQ(Get(ring, got), RingEnd::kDone);
  ASSERT_EQ(Put(ring, Message(4, 8)), RingEnd::kDone);
  ASSERT_EQ(Put(ring, Message(5, 8)), RingEnd::kLate);
}

// Many of each, as threads (for ThreadSanitizer) and as processes. Ids come out
// once each, those of one producer in order, and nobody needed a rescue.
struct Ledger {
  static constexpr int kProducers = 3;
  static constexpr int kConsumers = 3;
  static constexpr uint64_t kEach = 20'000;
  std::array<std::array<std::atomic<uint8_t>, kEach>, kProducers> seen;
};

void Produce(const Ring& ring, uint64_t who) {
  for (uint64_t i = 0; i < Ledger::kEach; ++i) {
    std::array<uint64_t, 30> words;
    words.fill(who << 32 | i);
    const size_t size = 8 * (1 + (who * 7 + i) % words.size());
    ASSERT_EQ(ring.Put(words.data(), size, Deadline::Infinite()),
              RingEnd::kDone);
  }
}

void Consume(const Ring& ring, Ledger& ledger) {
  std::array<int64_t, Ledger::kProducers> last;
  last.fill(-1);
  for (;;) {
    std::array<uint64_t, 30> words;
    size_t size = 0;
    const RingEnd end = ring.Get(words.data(), sizeof(words), Larger::kCut,
                                 &size, Deadline::Infinite());
    if (end == RingEnd::kClosed) return;
    ASSERT_EQ(end, RingEnd::kDone);
    const uint64_t who = words[0] >> 32;
    const uint64_t i = words[0] & 0xffffffff;
    ASSERT_LT(who, uint64_t{Ledger::kProducers});
    ASSERT_LT(i, Ledger::kEach);
    ASSERT_EQ(size, 8 * (1 + (who * 7 + i) % words.size()));
    for (size_t n = 0; n < size / 8; ++n) ASSERT_EQ(words[n], words[0]);
    ASSERT_LT(last[who], static_cast<int64_t>(i));
    last[who] = static_cast<int64_t>(i);
    ledger.seen[who][i].fetch_add(1);
  }
}

void ExpectEachOnce(const Ring& ring, const Ledger& ledger) {
  for (const auto& producer : ledger.seen) {
    for (const auto& times : producer) ASSERT_EQ(times, 1);
  }
  EXPECT_EQ(ring.rescues(), 0u);
}

TEST(RingTest, ManyThreadsShareIt) {
  for (const uint64_t capacity : {512, 1 << 14}) {
    const Ring ring = NewRing(capacity);
    const Shared<Ledger> ledger;
    std::vector<std::thread> consumers;
    std::vector<std::thread> producers;
    for (int i = 0; i < Ledger::kConsumers; ++i) {
      consumers.emplace_back([&] { Consume(ring, *ledger); });
    }
    for (uint64_t i = 0; i < Ledger::kProducers; ++i) {
      producers.emplace_back([&, i] { Produce(ring, i); });
    }
    for (std::thread& thread : producers) thread.join();
    ring.Close();
    for (std::thread& thread : consumers) thread.join();
    ExpectEachOnce(ring, *ledger);
  }
}

TEST(RingTest, ManyProcessesShareIt) {
  for (const uint64_t max_items : {0, 5}) {
    const Ring ring = NewRing(1 << 12, max_items);
    const Shared<Ledger> ledger;
    std::vector<Child> consumers;
    std::vector<Child> producers;
    for (int i = 0; i < Ledger::kConsumers; ++i) {
      consumers.push_back(Child::Fork([&] { Consume(ring, *ledger); }));
    }
    for (uint64_t i = 0; i < Ledger::kProducers; ++i) {
      producers.push_back(Child::Fork([&, i] { Produce(ring, i); }));
    }
    for (Child& child : producers) ASSERT_EQ(child.Wait(), Exited(0));
    ring.Close();
    for (Child& child : consumers) ASSERT_EQ(child.Wait(), Exited(0));
    ExpectEachOnce(ring, *ledger);
  }
}

// One message at a time between two who sleep for each: a wake-up that is lost
// would hang, or show as a rescue.
TEST(RingTest, NoWakeUpIsLostBetweenSleepers) {
  constexpr uint64_t kRounds = 5'000;
  const Ring there = NewRing(128);
  const Ring back = NewRing(128);
  Child child = Child::Fork([&] {
    std::vector<unsigned char> got;
    for (uint64_t i = 0; i < kRounds; ++i) {
      ASSERT_EQ(Get(there, got, Deadline::Infinite()), RingEnd::kDone);
      ASSERT_EQ(Put(back, got, Deadline::Infinite()), RingEnd::kDone);
    }
  });
  std::vector<unsigned char> got;
  for (uint64_t i = 0; i < kRounds; ++i) {
    ASSERT_EQ(Put(there, Message(i, 20), Deadline::Infinite()), RingEnd::kDone);
    ASSERT_EQ(Get(back, got, Deadline::Infinite()), RingEnd::kDone);
    ASSERT_EQ(got, Message(i, 20));
  }
  ASSERT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(there.rescues() + back.rescues(), 0u);
}

// Puts at every moment of a consumer's way from "empty" into its sleep, by a
// delay that differs from round to round and often outlasts its spinning.
TEST(RingTest, NoWakeUpIsLostOnTheWayIntoSleep) {
  constexpr uint64_t kRounds = 20'000;
  const Ring ring = NewRing(1 << 12);
  Child consumer = Child::Fork([&] {
    PinTo(0);
    std::vector<unsigned char> got;
    for (uint64_t i = 0; i < kRounds; ++i) {
      ASSERT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kDone);
    }
  });
  Child producer = Child::Fork([&] {
    PinTo(1);
    const std::vector<unsigned char> message = Message(1, 8);
    for (uint64_t i = 0; i < kRounds; ++i) {
      while (ring.ApproxSize() != 0) {
      }
      for (uint64_t n = i * 7919 % 30'011; n > 0; --n) asm volatile("");
      ASSERT_EQ(Put(ring, message, Deadline::Infinite()), RingEnd::kDone);
    }
  });
  ASSERT_EQ(producer.Wait(), Exited(0));
  ASSERT_EQ(consumer.Wait(), Exited(0));
  EXPECT_EQ(ring.rescues(), 0u);
}

// The room that a message with a descriptor waits for is in a socket, and comes
// a moment after its head has moved.
TEST(RingTest, NoWakeUpIsLostWhereTheSocketIsFull) {
  constexpr int kRounds = 3'000;
  const absl::StatusOr<Ring> made =
      Ring::Create({.capacity = 1 << 20, .carries_descriptors = true});
  ASSERT_OK(made);
  const Ring& ring = *made;
  std::vector<os::Descriptor> files;
  files.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto put = [&](Deadline deadline) {
    return ring.Put("x", 1, deadline, files);
  };
  while (put(Deadline::Now()) == RingEnd::kDone) {
  }
  Shared<std::atomic<int>> rounds;
  Child producer = Child::Fork([&] {
    PinTo(0);
    for (int i = 0; i < kRounds; ++i) {
      ASSERT_EQ(put(Deadline::Infinite()), RingEnd::kDone);
      ++*rounds;
    }
  });
  Child consumer = Child::Fork([&] {
    PinTo(1);
    for (int i = 0; i < kRounds; ++i) {
      for (int n = i * 37 % 4000; n > 0; --n) asm volatile("");
      char byte;
      size_t size = 0;
      ASSERT_EQ(ring.Get(&byte, 1, Larger::kKeep, &size, Deadline::Now()),
                RingEnd::kDone);
      while (*rounds <= i) {
      }
    }
  });
  ASSERT_EQ(producer.Wait(), Exited(0));
  ASSERT_EQ(consumer.Wait(), Exited(0));
  EXPECT_EQ(ring.rescues(), 0u);
}

// Whoever was woken says again that others may sleep.
TEST(RingTest, FlagIsUpWhileSomebodySleeps) {
  const Ring ring = NewRing(1 << 12);
  const auto get_one = [&] {
    std::vector<unsigned char> got;
    EXPECT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kDone);
  };
  Child first = Child::Fork(get_one);
  ASSERT_TRUE(first.AwaitAsleepInFutex());
  Child second = Child::Fork(get_one);
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  ASSERT_EQ(Put(ring, Message(1, 8)), RingEnd::kDone);
  while (first.Running() && second.Running()) std::this_thread::yield();
  Child& sleeper = first.Running() ? first : second;
  ASSERT_TRUE(sleeper.AwaitAsleepInFutex());
  EXPECT_EQ(RingTestPeer::Producers(ring).not_empty.flag, 1u);
  ASSERT_EQ(Put(ring, Message(2, 8)), RingEnd::kDone);
  EXPECT_EQ(first.Wait(), Exited(0));
  EXPECT_EQ(second.Wait(), Exited(0));
}

// Two messages come while the consumer that was woken for the first is still on
// its way: it wakes the second consumer. A slice may end just then and hide
// that, so there are several attempts.
TEST(RingTest, WokenConsumerWakesTheNext) {
  bool passed_on = false;
  for (int attempt = 0; attempt < 50 && !passed_on; ++attempt) {
    const Ring ring = NewRing(1 << 12);
    const auto get_one = [&] {
      std::vector<unsigned char> got;
      EXPECT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kDone);
    };
    Child first = Child::Fork(get_one);
    ASSERT_TRUE(first.AwaitAsleepInFutex());
    Child second = Child::Fork(get_one);
    ASSERT_TRUE(second.AwaitAsleepInFutex());
    first.Stop();
    ASSERT_EQ(Put(ring, Message(1, 8)), RingEnd::kDone);
    ASSERT_EQ(Put(ring, Message(2, 8)), RingEnd::kDone);
    first.Continue();
    EXPECT_EQ(first.Wait(), Exited(0));
    EXPECT_EQ(second.Wait(), Exited(0));
    passed_on = RingTestPeer::Producers(ring).not_empty.event >= 2;
  }
  EXPECT_TRUE(passed_on);
}

// A large message waits at the head of the sleepers for room that a small one,
// behind it, would be content with.
TEST(RingTest, SmallMessageIsNotHeldUpByALargeOne) {
  bool passed_on = false;
  for (int attempt = 0; attempt < 50 && !passed_on; ++attempt) {
    const Ring ring = NewRing(512);
    for (int i = 0; i < 7; ++i) {
      ASSERT_EQ(Put(ring, Message(i, 8)), RingEnd::kDone);
    }
    Child large = Child::Fork([&] {
      ASSERT_EQ(Put(ring, Message(1, 300), Deadline::Infinite()),
                RingEnd::kDone);
    });
    ASSERT_TRUE(large.AwaitAsleepInFutex());
    Child small = Child::Fork([&] {
      ASSERT_EQ(Put(ring, Message(2, 10), Deadline::Infinite()),
                RingEnd::kDone);
    });
    ASSERT_TRUE(small.AwaitAsleepInFutex());
    std::vector<unsigned char> got;
    ASSERT_EQ(Get(ring, got), RingEnd::kDone);
    ASSERT_EQ(small.Wait(), Exited(0));
    EXPECT_TRUE(large.Running());
    passed_on = RingTestPeer::Consumers(ring).not_full.event >= 2;
    while (ring.ApproxSize() > 0) ASSERT_EQ(Get(ring, got), RingEnd::kDone);
    ASSERT_EQ(large.Wait(), Exited(0));
  }
  EXPECT_TRUE(passed_on);
}

TEST(RingTest, DeadlineThatPassedTriesOnce) {
  const Ring ring = NewRing(128);
  std::vector<unsigned char> got;
  for (const Deadline past : {Deadline::Now(), Deadline::AtNanoseconds(1)}) {
    EXPECT_EQ(Get(ring, got, past), RingEnd::kLate);
    EXPECT_EQ(Put(ring, Message(1, 8), past), RingEnd::kDone);
    EXPECT_EQ(Put(ring, Message(2, 8), past), RingEnd::kLate);
    EXPECT_EQ(Get(ring, got, past), RingEnd::kDone);
  }
}

TEST(RingTest, TimeRunsOutOnTheClock) {
  const Ring ring = NewRing(128);
  std::vector<unsigned char> got;
  const int64_t begin = os::NowNanoseconds();
  EXPECT_EQ(Get(ring, got, Deadline::After(milliseconds(50))), RingEnd::kLate);
  ASSERT_EQ(Put(ring, Message(1, 8)), RingEnd::kDone);
  EXPECT_EQ(Put(ring, Message(1, 8), Deadline::After(milliseconds(50))),
            RingEnd::kLate);
  EXPECT_GE(os::NowNanoseconds() - begin, 100'000'000);
  EXPECT_EQ(ring.rescues(), 0u);
}

TEST(RingTest, CloseWakesAllAndLosesNothing) {
  const Ring ring = NewRing(128);
  std::vector<Child> consumers;
  for (int i = 0; i < 3; ++i) {
    consumers.push_back(Child::Fork([&] {
      std::vector<unsigned char> got;
      EXPECT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kClosed);
    }));
    ASSERT_TRUE(consumers.back().AwaitAsleepInFutex());
  }
  ring.Close();
  for (Child& child : consumers) EXPECT_EQ(child.Wait(), Exited(0));

  const Ring full = NewRing(128);
  ASSERT_EQ(Put(full, Message(1, 8)), RingEnd::kDone);
  std::vector<Child> producers;
  for (int i = 0; i < 3; ++i) {
    producers.push_back(Child::Fork([&] {
      EXPECT_EQ(Put(full, Message(2, 8), Deadline::Infinite()),
                RingEnd::kClosed);
    }));
    ASSERT_TRUE(producers.back().AwaitAsleepInFutex());
  }
  full.Close();
  full.Close();
  for (Child& child : producers) EXPECT_EQ(child.Wait(), Exited(0));
  std::vector<unsigned char> got;
  EXPECT_EQ(Get(full, got), RingEnd::kDone);
  EXPECT_EQ(got, Message(1, 8));
  EXPECT_EQ(Get(full, got), RingEnd::kClosed);
  EXPECT_EQ(Get(full, got, Deadline::Infinite()), RingEnd::kClosed);
  EXPECT_EQ(ring.rescues() + full.rescues(), 0u);
}

// Who puts while another closes: what was accepted comes before the end.
TEST(RingTest, NothingIsAcceptedAfterTheEnd) {
  for (int round = 0; round < 400; ++round) {
    const Ring ring = NewRing(1 << 14);
    const Shared<std::atomic<uint64_t>> accepted;
    Child producer = Child::Fork([&] {
      const std::vector<unsigned char> message = Message(1, 8);
      while (Put(ring, message, Deadline::Infinite()) == RingEnd::kDone) {
        ++*accepted;
      }
    });
    const Shared<std::atomic<uint64_t>> received;
    Child consumer = Child::Fork([&] {
      std::array<unsigned char, 8> room;
      size_t size = 0;
      while (ring.Get(room.data(), room.size(), Larger::kCut, &size,
                      Deadline::Infinite()) == RingEnd::kDone) {
        ++*received;
      }
    });
    while (*received < 20) std::this_thread::yield();
    ring.Close();
    ASSERT_EQ(producer.Wait(), Exited(0));
    ASSERT_EQ(consumer.Wait(), Exited(0));
    ASSERT_EQ(*received, *accepted);
  }
}

// A consumer is stopped, not dead: the wake-up that it got does no good, and a
// second consumer must not depend on it.
TEST(RingTest, StoppedConsumerHoldsNobodyUp) {
  const Ring ring = NewRing(1 << 12);
  const auto get_one = [&] {
    std::vector<unsigned char> got;
    EXPECT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kDone);
  };
  Child stopped = Child::Fork(get_one);
  ASSERT_TRUE(stopped.AwaitAsleepInFutex());
  stopped.Stop();
  Child second = Child::Fork(get_one);
  ASSERT_TRUE(second.AwaitAsleepInFutex());
  ASSERT_EQ(Put(ring, Message(1, 8)), RingEnd::kDone);
  EXPECT_EQ(second.Wait(), Exited(0));
  stopped.Continue();
  ASSERT_EQ(Put(ring, Message(2, 8)), RingEnd::kDone);
  EXPECT_EQ(stopped.Wait(), Exited(0));
}

// Stopped in the very middle: the others of its side get their time-out, the
// other side goes on, and nothing was lost when it continues.
TEST(RingTest, ProducerStoppedInsideCostsTimeNotMessages) {
  const Ring ring = NewRing(1 << 12);
  ASSERT_EQ(Put(ring, Message(1, 8)), RingEnd::kDone);
  const Shared<std::atomic<int>> step;
  Child child = Child::Fork([&] {
    auto& lock = RingTestPeer::Producers(ring).lock;
    ASSERT_EQ(lock.Lock(), sync_internal::Acquired::kClean);
    *step = 1;
    while (*step == 1) std::this_thread::yield();
    lock.Unlock();
  });
  while (*step == 0) std::this_thread::yield();
  child.Stop();
  std::vector<unsigned char> got;
  EXPECT_EQ(Put(ring, Message(2, 8)), RingEnd::kLate);
  EXPECT_EQ(Put(ring, Message(2, 8), Deadline::After(milliseconds(30))),
            RingEnd::kLate);
  EXPECT_EQ(Get(ring, got), RingEnd::kDone);
  *step = 2;
  child.Continue();
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(Put(ring, Message(2, 8)), RingEnd::kDone);
  EXPECT_EQ(Get(ring, got), RingEnd::kDone);
  EXPECT_EQ(got, Message(2, 8));
}

TEST(RingTest, RefusesARegionThatHoldsNoRing) {
  EXPECT_THAT(Ring::Attach(Region(), kTag),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  for (const size_t size : {1, 383, 384, 512, 4096}) {
    ASSERT_OK_AND_ASSIGN(Region region,
                         Region::Create({.size = size, .type_tag = kTag}));
    EXPECT_THAT(Ring::Attach(region, kTag),
                StatusIs(absl::StatusCode::kFailedPrecondition));
  }
  const Ring ring = NewRing(256);
  EXPECT_THAT(Ring::Attach(ring.region(), kTag + 1),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(Ring::Attach(ring.region(), kTag));
  EXPECT_THAT(Ring::Create({.capacity = Ring::kMaxCapacity + 1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Ring::Create({.max_items = Ring::kMaxItems + 1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(RingTest, HeaderThatNoRingWroteIsDamageForGood) {
  const uint64_t bad[] = {
      2,                                       // Not committed.
      kCommitted | 2,                          // Reserved bits.
      kCommitted | 8,                          //
      kCommitted | uint64_t{4096} << 32,       // Longer than the ring.
      kCommitted | uint64_t{4096 - 71} << 32,  // By one byte.
      ~uint64_t{0},
  };
  for (const uint64_t header : bad) {
    const Ring ring = NewRing(4096);
    Child waiting = Child::Fork([&] {
      std::vector<unsigned char> got;
      EXPECT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kDamaged);
    });
    ASSERT_TRUE(waiting.AwaitAsleepInFutex());
    RingTestPeer::Word(ring, 0) = header;
    std::vector<unsigned char> got;
    EXPECT_EQ(Get(ring, got), RingEnd::kDamaged) << header;
    EXPECT_EQ(Get(ring, got, Deadline::Infinite()), RingEnd::kDamaged);
    EXPECT_EQ(Put(ring, Message(1, 8), Deadline::Infinite()),
              RingEnd::kDamaged);
    EXPECT_EQ(waiting.Wait(), Exited(0));
  }
}

// A peer has emptied the socket, or a ring that has none says that descriptors
// belong to a message.
TEST(RingTest, MissingDescriptorsAreDamageForGood) {
  const Ring ring =
      *Ring::Create({.type_tag = kTag, .carries_descriptors = true});
  std::vector<unsigned char> got;
  const std::vector<os::Descriptor> none;
  std::vector<os::Descriptor> files;
  files.push_back(*ring.in().Duplicate());
  ASSERT_EQ(ring.Put("x", 1, Deadline::Now(), files), RingEnd::kDone);
  ASSERT_EQ(ring.Put("y", 1, Deadline::Now(), none), RingEnd::kDone);
  ASSERT_TRUE(os::TryDrop(ring.out()));
  EXPECT_EQ(Get(ring, got), RingEnd::kDamaged);
  EXPECT_EQ(ring.Put("z", 1, Deadline::Now(), files), RingEnd::kDamaged);

  const Ring plain = NewRing(512);
  RingTestPeer::Word(plain, 0) = uint64_t{8} << 32 | 2 | kCommitted;
  EXPECT_EQ(Get(plain, got), RingEnd::kDamaged);
}

TEST(RingTest, RefusesSocketsThatAreNone) {
  const Ring ring = NewRing(512);
  EXPECT_THAT(
      Ring::Attach(ring.region(), kTag, os::Descriptor(), os::Descriptor()),
      StatusIs(absl::StatusCode::kFailedPrecondition));
}

// Any bytes, anywhere: each call returns, and touches nothing outside.
TEST(RingTest, SurvivesAnyBytes) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 1'000; ++round) {
    const Ring ring = NewRing(1024, round % 3);
    for (uint64_t i = 0; i < 6; ++i) Put(ring, Message(i, random() % 200));
    const std::span<std::byte> bytes = ring.region().bytes();
    // The locks' words are left alone: whoever holds a lock for ever makes
    // others wait, which no check can tell from a holder that was stopped.
    for (uint64_t n = random() % 8 + 1; n > 0; --n) {
      const size_t at = random() % bytes.size();
      const bool in_a_lock = (at >= 128 && at < 132) || (at >= 256 && at < 260);
      if (!in_a_lock) bytes[at] = std::byte(random());
    }
    std::vector<unsigned char> got;
    for (int i = 0; i < 20; ++i) {
      Put(ring, Message(i, random() % 300));
      Get(ring, got);
      ASSERT_LE(got.size(), ring.max_size());
    }
    ASSERT_LE(ring.ApproxSize(), ring.capacity());
    // A repairer walks what it finds.
    ASSERT_EQ(Child::Fork([&] {
                if (RingTestPeer::Producers(ring).lock.Lock() !=
                    sync_internal::Acquired::kTimedOut) {
                  raise(SIGKILL);
                }
              }).Wait(),
              cohort_testing::KilledBy(SIGKILL));
    Put(ring, Message(1, 8));
    ring.Close();
    for (int i = 0; i < 20; ++i) Get(ring, got);
    if (absl::StatusOr<Ring> again = Ring::Attach(ring.region(), kTag);
        again.ok()) {
      EXPECT_EQ(again->capacity(), ring.capacity());
    }
  }
}

}  // namespace
}  // namespace cohort::ipc_internal
