// SPDX-License-Identifier: Apache-2.0
//
// Two producers and two consumers at full speed, killed at random and replaced.
// Afterwards the books are made up: each message whose Put() returned has been
// received exactly once, or was in the hands of a consumer when it was killed.

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/ipc/internal/ring.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/memfd.h"
#include "cohort/os/or_die.h"
#include "cohort/os/socket.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/stress.h"
#include "gtest/gtest.h"

namespace cohort::ipc_internal {
namespace {

using cohort_testing::ChaosOptions;
using cohort_testing::ChaosReport;
using cohort_testing::KillAtRandom;
using cohort_testing::Shared;
using cohort_testing::Worker;
using std::chrono::milliseconds;

constexpr uint64_t kProducers = 2;
constexpr uint64_t kConsumers = 2;
constexpr uint64_t kMost = 200'000'000;  // Messages, of all producers.
constexpr uint64_t kNone = ~uint64_t{0};

// What is known of a message: how often it was received, and
constexpr uint8_t kProducerDied =
    0x40;  // in its Put(): it may be there or not;
constexpr uint8_t kConsumerDied = 0x80;  // with it in its buffer.
constexpr uint8_t kReceived = 0x3f;

struct Books {
  // So many messages of this producer are settled; its n-th has the id
  // n * kProducers + its number.
  std::array<std::atomic<uint64_t>, kProducers> settled;
  // The buffers of the consumers outlive them. Get() writes here before it
  // takes the message; the first word is the id.
  struct alignas(64) Hand {
    std::array<uint64_t, 32> words;
  };
  std::array<Hand, kConsumers> hands;
  std::atomic<uint64_t> damaged;
};

size_t SizeOf(uint64_t id) { return 8 * (1 + id * 2654435761 % 31); }

// With descriptors, each message brings one whose size tells which.
constexpr size_t kFiles = 5;
size_t FileOf(uint64_t id) { return id % kFiles; }

void Chaos(uint64_t capacity, uint64_t max_items, int signal,
           bool posted = false) {
  absl::StatusOr<Ring> created = Ring::Create({.capacity = capacity,
                                               .max_items = max_items,
                                               .carries_descriptors = posted});
  ASSERT_TRUE(created.ok()) << created.status();
  const Ring ring = *std::move(created);
  std::array<os::Descriptor, kFiles> files;
  for (size_t i = 0; i < kFiles; ++i) {
    files[i] = OrDie(os::CreateSealedMemfd("file", i + 1));
  }
  const Shared<Books> books;
  const Shared<std::atomic<uint8_t>[]> known(kMost);
  for (Books::Hand& hand : books->hands) hand.words[0] = kNone;

  std::vector<std::function<void(const Worker&)>> bodies;
  for (uint64_t p = 0; p < kProducers; ++p) {
    bodies.push_back([&, p](const Worker& self) {
      std::atomic<uint64_t>& settled = books->settled[p];
      if (self.incarnation() != 0) {
        known[settled * kProducers + p] |= kProducerDied;
        ++settled;
      }
      while (!self.Stopping()) {
        const uint64_t id = settled * kProducers + p;
        if (id + 64 * kProducers >= kMost) {
          usleep(1000);
          continue;
        }
        std::array<uint64_t, 32> words;
        words.fill(id);
        const RingEnd end = ring.Put(
            words.data(), SizeOf(id), Deadline::After(milliseconds(200)),
            absl::MakeConstSpan(&files[FileOf(id)], posted ? 1 : 0));
        if (end == RingEnd::kLate) continue;
        if (end != RingEnd::kDone) ++books->damaged;
        ++settled;
      }
    });
  }
  for (uint64_t c = 0; c < kConsumers; ++c) {
    bodies.push_back([&, c](const Worker& self) {
      // Shared memory that this process dies with: kept from the optimiser.
      auto* const words = reinterpret_cast<std::atomic<uint64_t>*>(
          books->hands[c].words.data());
      if (words[0] != kNone) {
        if (words[0] < kMost) {
          known[words[0]] |= kConsumerDied;
        } else {
          ++books->damaged;
        }
        words[0] = kNone;
      }
      for (;;) {
        size_t size = 0;
        os::DescriptorBatch batch;
        const RingEnd end =
            ring.Get(words, sizeof(Books::Hand), Larger::kCut, &size,
                     Deadline::After(milliseconds(100)), &batch);
        if (end == RingEnd::kLate) {
          if (self.Stopping() && ring.ApproxSize() == 0) return;
          continue;
        }
        const uint64_t id = words[0];
        bool whole = end == RingEnd::kDone && id < kMost && size == SizeOf(id);
        for (size_t i = 0; whole && i < size / 8; ++i) whole = words[i] == id;
        whole = whole && batch.size() == (posted ? 1 : 0);
        for (const os::Descriptor& file : batch.Take()) {
          const absl::StatusOr<size_t> found = os::CheckSealedMemfd(file);
          whole = whole && found.ok() && *found == FileOf(id) + 1;
        }
        if (whole) {
          ++known[id];
        } else {
          ++books->damaged;
        }
        words[0] = kNone;
      }
    });
  }
  ChaosOptions options;
  options.signal = signal;
  const ChaosReport report = KillAtRandom(bodies, options);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);

  // Consumers that died last have no successor who would say so; what is left
  // in the ring, if both died at the end, has arrived as well.
  for (;;) {
    std::array<uint64_t, 32> words;
    size_t size = 0;
    if (ring.Get(words.data(), sizeof(words), Larger::kCut, &size,
                 Deadline::Now()) != RingEnd::kDone) {
      break;
    }
    ++known[words[0]];
  }
  uint64_t messages = 0;
  uint64_t lost = 0;
  uint64_t doubled = 0;
  uint64_t in_dead_hands = 0;
  uint64_t ghosts = 0;
  for (uint64_t p = 0; p < kProducers; ++p) {
    const uint64_t settled = books->settled[p];
    for (uint64_t n = 0; n < settled; ++n, ++messages) {
      const uint8_t facts = known[n * kProducers + p];
      const int received = facts & kReceived;
      if (received > 1) ++doubled;
      if (received == 0 && (facts & kProducerDied) == 0) {
        ++((facts & kConsumerDied) != 0 ? in_dead_hands : lost);
      }
    }
    for (uint64_t n = settled; n < settled + 8; ++n) {
      if (known[n * kProducers + p] != 0) ++ghosts;
    }
  }
  std::printf(
      "[stress] ring capacity=%ju max_items=%ju signal=%d kills=%jd "
      "messages=%ju lost=%ju doubled=%ju damaged=%ju ghosts=%ju "
      "in_dead_hands=%ju rescues=%ju\n",
      uintmax_t{capacity}, uintmax_t{max_items}, signal, intmax_t{report.kills},
      uintmax_t{messages}, uintmax_t{lost}, uintmax_t{doubled},
      uintmax_t{books->damaged}, uintmax_t{ghosts}, uintmax_t{in_dead_hands},
      uintmax_t{ring.rescues()});
  EXPECT_GT(messages, 1000u);
  EXPECT_EQ(lost, 0u) << "accepted, and never received";
  EXPECT_EQ(doubled, 0u) << "received twice";
  EXPECT_EQ(ghosts, 0u) << "received, though never put";
  EXPECT_EQ(books->damaged, 0u);
  EXPECT_LE(in_dead_hands, static_cast<uint64_t>(report.kills));
  if (signal != SIGKILL) {
    EXPECT_EQ(in_dead_hands, 0u);
  }
  if (posted) {
    // What the dead left in the socket goes with the next message.
    std::array<uint64_t, 1> word = {};
    size_t size = 0;
    ASSERT_EQ(ring.Put(word.data(), 8, Deadline::Now(), {&files[0], 1}),
              RingEnd::kDone);
    ASSERT_EQ(
        ring.Get(word.data(), 8, Larger::kCut, &size, Deadline::Now(), nullptr),
        RingEnd::kDone);
    EXPECT_FALSE(os::TryDrop(ring.out()));
  }
}

TEST(RingStressTest, KilledAtRandomInASmallRing) { Chaos(512, 0, SIGKILL); }
TEST(RingStressTest, KilledAtRandomInALargeRing) { Chaos(1 << 16, 0, SIGKILL); }
TEST(RingStressTest, KilledAtRandomWithFewItems) { Chaos(1 << 14, 3, SIGKILL); }
TEST(RingStressTest, KilledAtRandomWithDescriptors) {
  Chaos(1 << 14, 0, SIGKILL, true);
}
TEST(RingStressTest, StoppedAtRandom) { Chaos(1 << 12, 0, SIGSTOP); }

}  // namespace
}  // namespace cohort::ipc_internal
