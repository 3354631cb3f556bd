// SPDX-License-Identifier: Apache-2.0
//
// A worker is killed at every instruction of what it does to its lane.

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/pool/internal/lane.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort::pool_internal {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;

constexpr size_t kCapacity = 2048;
constexpr std::string_view kResult =
    "forty-nine bytes of a result that came back whole";

struct Shared {
  Bell bell;
  Lane lane;
  std::atomic<uint64_t> released;  // What the reader took before, in bytes.
  std::array<char, kCapacity> bytes;
};

std::string Text(const Record& record) {
  return std::string(record.first) + std::string(record.second);
}

class LaneCrashTest : public ::testing::Test {
 protected:
  // Brings both halves to the same place of the ring, `before` bytes on.
  void Open(size_t before) {
    shared_->bell.mode = Bell::kAwake;
    shared_->bell.rings = 0;
    shared_->lane.Clear();
    writer_ = RingWriter(&shared_->lane.up, shared_->bytes.data(), kCapacity);
    reader_ = RingReader(&shared_->lane.up, shared_->bytes.data(), kCapacity);
    while (writer_.tail() < before) {
      ASSERT_TRUE(writer_.HasRoom(0));
      writer_.Put({}, "");
      writer_.Commit();
      ASSERT_TRUE(reader_.Next().has_value());
      reader_.Release();
    }
  }

  cohort_testing::Shared<Shared> shared_;
  RingWriter writer_;
  RingReader reader_;
};

TEST_F(LaneCrashTest, AResultIsThereWholeOrNotAtAll) {
  for (const size_t before : {size_t{0}, kCapacity - 32, kCapacity - 64}) {
    KillScenario scenario;
    scenario.name = "pool_lane/commit at " + std::to_string(before);
    scenario.setup = [&] { Open(before); };
    scenario.operation = [&] {
      writer_.Put({.flags = RecordHeader::kLast, .sequence = 5}, kResult);
      writer_.Commit();
      (void)RingBell(shared_->bell);
    };
    scenario.check = [&](const KillPoint& point) {
      const std::optional<Record> record = reader_.Next();
      EXPECT_FALSE(reader_.corrupt());
      if (point.finished()) {
        ASSERT_TRUE(record.has_value());
      }
      if (!record.has_value()) return;
      EXPECT_EQ(Text(*record), kResult);
      EXPECT_EQ(record->header.sequence, 5U);
      reader_.Release();
      EXPECT_FALSE(reader_.Next().has_value());
    };
    const KillReport report = KillAtEveryInstruction(scenario);
    EXPECT_GT(report.points, 20);
    EXPECT_EQ(report.violations, 0) << report;
  }
}

TEST_F(LaneCrashTest, ASleepingParentHearsOfWhatWasCommitted) {
  KillScenario scenario;
  scenario.name = "pool_lane/commit, parent asleep";
  scenario.setup = [&] { Open(0); };
  scenario.operation = [&] {
    writer_.Put({.sequence = 5}, kResult);
    writer_.Commit();
    (void)RingBell(shared_->bell);
  };
  scenario.sleepers = {[&] {
    os::Slices slices((Deadline()));
    while (!HasNews(shared_->lane.up)) {
      const uint32_t seen = shared_->bell.rings.load();
      shared_->bell.mode.store(Bell::kFutex);
      if (HasNews(shared_->lane.up)) return;
      os::FutexWait(shared_->bell.rings, seen, slices.Next());
    }
  }};
  scenario.check = [&](const KillPoint& point) {
    if (!HasNews(shared_->lane.up)) {
      EXPECT_FALSE(point.finished());
      return;
    }
    EXPECT_TRUE(point.AwaitSleeper(0));
  };
  const KillReport report = KillAtEveryInstruction(scenario);
  EXPECT_EQ(report.violations, 0) << report;
}

TEST_F(LaneCrashTest, EachElementOfAPartCountsOnce) {
  for (const size_t before : {size_t{0}, kCapacity - 64}) {
    KillScenario scenario;
    scenario.name = "pool_lane/open part at " + std::to_string(before);
    scenario.setup = [&] { Open(before); };
    scenario.operation = [&] {
      for (uint32_t part = 0; part < 2; ++part) {
        for (uint32_t i = 1; i <= 3; ++i) {
          writer_.AppendOpen(kResult);
          shared_->lane.open.store(
              OpenWord(writer_.tail(), i, writer_.open_bytes()),
              std::memory_order_release);
        }
        writer_.CommitOpen({.flags = RecordHeader::kMap, .elements = 3});
        shared_->lane.open.store(0, std::memory_order_release);
        (void)RingBell(shared_->bell);
      }
    };
    scenario.check = [&](const KillPoint& point) {
      uint32_t elements = 0;
      std::string all;
      auto take = [&](const Record& record) {
        elements += record.header.elements;
        all += Text(record);
      };
      while (std::optional<Record> record = reader_.Next()) {
        take(*record);
        reader_.Release();
      }
      EXPECT_FALSE(reader_.corrupt());
      const std::optional<Record> open =
          reader_.Open(shared_->lane.open.load());
      if (open.has_value()) take(*open);
      std::string expected;
      for (uint32_t i = 0; i < elements; ++i) expected += kResult;
      EXPECT_EQ(all, expected);
      if (point.finished()) {
        EXPECT_EQ(elements, 6U);
      }
      EXPECT_LE(elements, 6U);
    };
    const KillReport report = KillAtEveryInstruction(scenario);
    EXPECT_GT(report.points, 100);
    EXPECT_EQ(report.violations, 0) << report;
  }
}

TEST_F(LaneCrashTest, ATakenTaskGivesItsRoomBackOrIsStillThere) {
  KillScenario scenario;
  scenario.name = "pool_lane/take";
  scenario.setup = [&] {
    Open(0);
    writer_.Put({.sequence = 1}, kResult);
    writer_.Put({.sequence = 2}, kResult);
    writer_.Commit();
  };
  scenario.operation = [&] {
    const std::optional<Record> record = reader_.Next();
    if (!record.has_value()) return;
    shared_->lane.started.store(record->header.sequence,
                                std::memory_order_release);
    reader_.Release();
  };
  scenario.check = [&](const KillPoint& point) {
    // The words that the other side reads agree with each other.
    const uint64_t head = shared_->lane.up.head.load();
    const uint64_t begun = shared_->lane.started.load();
    EXPECT_TRUE(head == 0 || head == 96) << head;
    if (head == 96 || point.finished()) {
      EXPECT_EQ(begun, 1U);
    }
    EXPECT_LE(begun, 1U);
    EXPECT_TRUE(writer_.HasRoom(64));
  };
  const KillReport report = KillAtEveryInstruction(scenario);
  EXPECT_EQ(report.violations, 0) << report;
}

}  // namespace
}  // namespace cohort::pool_internal
