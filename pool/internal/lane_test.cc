// SPDX-License-Identifier: Apache-2.0

#include "cohort/pool/internal/lane.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "cohort/os/deadline.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort::pool_internal {
namespace {

constexpr size_t kCapacity = 4096;

struct Shared {
  Bell bell;
  Lane lane;
  std::array<char, kCapacity> bytes;
};

std::string Text(const Record& record) {
  return std::string(record.first) + std::string(record.second);
}

std::string Message(int i) {
  return std::string(static_cast<size_t>(i) % 700,
                     static_cast<char>('a' + i % 26));
}

class LaneTest : public ::testing::Test {
 protected:
  cohort_testing::Shared<Shared> shared_;
  RingWriter writer_{&shared_->lane.up, shared_->bytes.data(), kCapacity};
  RingReader reader_{&shared_->lane.up, shared_->bytes.data(), kCapacity};
};

TEST_F(LaneTest, NothingIsVisibleBeforeTheCommit) {
  EXPECT_FALSE(reader_.Next().has_value());
  writer_.Put({.sequence = 7}, "seven");
  EXPECT_FALSE(HasNews(shared_->lane.up));
  EXPECT_FALSE(reader_.Next().has_value());
  writer_.Commit();
  EXPECT_TRUE(HasNews(shared_->lane.up));
  const std::optional<Record> record = reader_.Next();
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->header.sequence, 7U);
  EXPECT_EQ(Text(*record), "seven");
  reader_.Release();
  EXPECT_FALSE(HasNews(shared_->lane.up));
}

TEST_F(LaneTest, EverySizeSurvivesEveryPlaceOfTheWrap) {
  for (int i = 0; i < 2'000; ++i) {
    ASSERT_TRUE(writer_.HasRoom(Message(i).size()));
    writer_.Put({.sequence = static_cast<uint64_t>(i)}, Message(i));
    writer_.Commit();
    const std::optional<Record> record = reader_.Next();
    ASSERT_TRUE(record.has_value());
    EXPECT_EQ(Text(*record), Message(i));
    reader_.Release();
  }
}

TEST_F(LaneTest, AFullRingHasNoRoomUntilTheReaderReleases) {
  const std::string block(writer_.LargestRecord(), 'x');
  int count = 0;
  for (; writer_.HasRoom(block.size()); ++count) writer_.Put({}, block);
  EXPECT_EQ(count, 4);
  writer_.Commit();
  ASSERT_TRUE(reader_.Next().has_value());
  EXPECT_FALSE(writer_.HasRoom(block.size()));
  reader_.Release();
  EXPECT_TRUE(writer_.HasRoom(block.size()));
}

TEST_F(LaneTest, StreamsBetweenProcesses) {
  constexpr int kMessages = 20'000;
  auto write = [&] {
    for (int i = 0; i < kMessages; ++i) {
      const std::string message = Message(i);
      while (!writer_.HasRoom(message.size())) {
        WorkerSleep(shared_->lane, kRoom, Deadline(),
                    [&] { return writer_.HasRoom(message.size()); });
      }
      writer_.Put({.sequence = static_cast<uint64_t>(i)}, message);
      writer_.Commit();
      if (RingBell(shared_->bell)) return 1;  // Nobody has a poller here.
    }
    return 0;
  };
  cohort_testing::Child child = cohort_testing::Child::Fork(write);
  for (int i = 0; i < kMessages;) {
    const std::optional<Record> record = reader_.Next();
    if (!record.has_value()) continue;
    ASSERT_EQ(record->header.sequence, static_cast<uint64_t>(i));
    ASSERT_EQ(Text(*record), Message(i));
    reader_.Release();
    WakeWorker(shared_->lane, kRoom);
    ++i;
  }
  EXPECT_EQ(child.Wait(), cohort_testing::Exited(0));
}

TEST_F(LaneTest, AnOpenPartIsFoundUntilItIsCommitted) {
  std::atomic<uint64_t>& open = shared_->lane.open;
  auto publish = [&](std::string_view bytes, size_t elements) {
    writer_.AppendOpen(bytes);
    open.store(OpenWord(writer_.tail(), elements, writer_.open_bytes()));
  };
  EXPECT_FALSE(reader_.Open(open.load()).has_value());
  publish("one", 1);
  publish("two", 2);
  const std::optional<Record> part = reader_.Open(open.load());
  ASSERT_TRUE(part.has_value());
  EXPECT_EQ(part->header.elements, 2U);
  EXPECT_EQ(Text(*part), "onetwo");
  EXPECT_FALSE(reader_.Next().has_value());
  writer_.CommitOpen({.flags = RecordHeader::kMap, .elements = 2});
  const std::optional<Record> record = reader_.Next();
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(Text(*record), "onetwo");
  EXPECT_EQ(record->header.elements, 2U);
  // The word that is left speaks of a part that is committed.
  EXPECT_FALSE(reader_.Open(open.load()).has_value());
  reader_.Release();
  EXPECT_FALSE(reader_.Open(open.load()).has_value());
}

TEST_F(LaneTest, WhatNoWriterWouldWriteIsNotFollowed) {
  writer_.Put({}, "fine");
  writer_.Commit();
  const uint32_t huge = 0xffffffff;
  std::memcpy(shared_->bytes.data(), &huge, sizeof(huge));  // header.bytes
  EXPECT_FALSE(reader_.Next().has_value());
  EXPECT_TRUE(reader_.corrupt());
  RingReader other(&shared_->lane.up, shared_->bytes.data(), kCapacity);
  shared_->lane.up.tail.store(uint64_t{1} << 40);
  EXPECT_FALSE(other.Next().has_value());
  EXPECT_TRUE(other.corrupt());
  RingReader third(&shared_->lane.up, shared_->bytes.data(), kCapacity);
  shared_->lane.up.tail.store(33);  // On no border of records.
  EXPECT_FALSE(third.Next().has_value());
  EXPECT_TRUE(third.corrupt());
  // A reader that claims to have read what was never written gets no room.
  shared_->lane.up.head.store(uint64_t{1} << 40);
  while (writer_.HasRoom(64)) writer_.Put({}, std::string(64, 'x'));
  EXPECT_FALSE(writer_.HasRoom(64));
  // An open word that lies about its size.
  EXPECT_FALSE(third.Open(OpenWord(33, 1, kCapacity)).has_value());
}

TEST_F(LaneTest, ABellRingsOnceForEachSleep) {
  Bell& bell = shared_->bell;
  EXPECT_FALSE(RingBell(bell));
  bell.mode = Bell::kPoller;
  EXPECT_TRUE(RingBell(bell));
  EXPECT_FALSE(RingBell(bell));
  bell.mode = Bell::kFutex;
  EXPECT_FALSE(RingBell(bell));
  EXPECT_EQ(bell.rings.load(), 1U);
  EXPECT_EQ(bell.mode.load(), Bell::kAwake);
}

}  // namespace
}  // namespace cohort::pool_internal
