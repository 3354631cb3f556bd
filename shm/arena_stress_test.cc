// SPDX-License-Identifier: Apache-2.0

#include <sched.h>

#include <array>
#include <atomic>
#include <boost/container/vector.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/shm/arena.h"
#include "cohort/shm/arena_allocator.h"
#include "cohort/shm/block_ref.h"
#include "cohort/shm/internal/arena_audit.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/stress.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::ChaosReport;
using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::KillAtRandom;
using cohort_testing::Shared;
using cohort_testing::StressSeconds;
using cohort_testing::Worker;

constexpr int kWorkers = 6;
constexpr int kObjects = 3;

struct Log {
  using Lines = boost::container::vector<int, ArenaAllocator<int>>;
  explicit Log(const ArenaAllocator<void>& in) : lines(in) {}
  Mutex mu;
  Lines lines ABSL_GUARDED_BY(mu);
};

// What is handed from one to another: a block is in the table before it is
// kept, and adopted before it is taken out.
struct Table {
  Mutex mu;
  std::array<BlockRef, 32> refs ABSL_GUARDED_BY(mu);
  // Ended and begun under its lock, as nobody may use an object that ends.
  std::array<Mutex, kObjects> objects;
  std::atomic<int64_t> rounds = 0;
  std::atomic<int64_t> repairs = 0;
};

class ArenaStressTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Arena> arena = Arena::Create({.size = 1 << 20});
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
  }

  // A worker's blocks bear its own number throughout, or somebody else has them.
  struct Mine {
    Block block;
    std::byte stamp;
  };
  static void Stamp(const Mine& mine) {
    std::memset(mine.block.bytes.data(), static_cast<int>(mine.stamp),
                mine.block.bytes.size());
  }
  static void CheckStamp(const Mine& mine) {
    for (const std::byte byte : mine.block.bytes) {
      if (byte != mine.stamp) std::abort();
    }
  }

  void Round(std::mt19937& random, std::vector<Mine>& blocks) {
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        const size_t size = 1 + random() % (random() % 8 == 0 ? 20'000 : 600);
        const absl::StatusOr<Block> block = arena_.Allocate(size);
        if (!block.ok()) break;
        blocks.push_back({*block, static_cast<std::byte>(random())});
        Stamp(blocks.back());
        break;
      }
      case 3:
      case 4: {
        if (blocks.empty()) break;
        std::swap(blocks[random() % blocks.size()], blocks.back());
        CheckStamp(blocks.back());
        if (!arena_.Free(blocks.back().block.ref).ok()) std::abort();
        blocks.pop_back();
        break;
      }
      case 5:
        HandOver(random, blocks);
        break;
      case 6:
        UseObject(static_cast<int>(random() % kObjects), random);
        break;
      default:
        if (random() % 64 == 0) (void)arena_.Reap();
    }
    if (blocks.size() > 40) {
      for (const Mine& mine : blocks) {
        CheckStamp(mine);
        if (!arena_.Free(mine.block.ref).ok()) std::abort();
      }
      blocks.clear();
    }
  }

  void HandOver(std::mt19937& random, std::vector<Mine>& blocks) {
    MutexLock lock(table_->mu);
    BlockRef& place = table_->refs[random() % table_->refs.size()];
    if (place) {
      if (arena_.Adopt(place).ok()) {
        const auto bytes = arena_.Resolve(place);
        if (!bytes.ok()) std::abort();
        blocks.push_back({{place, *bytes}, bytes->front()});
        CheckStamp(blocks.back());
      }
      place = {};
    } else if (!blocks.empty()) {
      CheckStamp(blocks.back());
      place = blocks.back().block.ref;
      if (!arena_.Keep(place).ok()) std::abort();
      blocks.pop_back();
    }
  }

  void UseObject(int number, std::mt19937& random) {
    const std::string name = std::to_string(number);
    MutexLock alone(table_->objects[number]);
    if (random() % 16 == 0) {
      (void)arena_.Destroy(name);
      return;
    }
    const absl::StatusOr<Log*> log = arena_.FindOrConstruct<Log>(name);
    if (!log.ok()) {
      if (absl::IsResourceExhausted(log.status())) return;
      std::abort();
    }
    MutexLock lock((*log)->mu, [&] {
      const absl::StatusOr<ArenaAllocator<void>> in = arena_.Clear(name);
      if (!in.ok()) std::abort();
      std::construct_at(&(*log)->lines, *in);
      ++table_->repairs;
    });
    Use((*log)->lines);
  }
  static void Use(Log::Lines& lines) {
    for (size_t i = 0; i < lines.size(); ++i) {
      if (lines[i] != static_cast<int>(i)) std::abort();
    }
    if (lines.size() > 300) {
      lines.clear();
      lines.shrink_to_fit();
    }
    try {
      for (int i = 0; i < 20; ++i) {
        lines.push_back(static_cast<int>(lines.size()));
      }
    } catch (const std::bad_alloc&) {
      lines.clear();
    }
  }

  // All is freed by those who may, and then there is nothing.
  void Settle() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    (void)arena_.Reap();
    EXPECT_EQ(Audit(arena_), "");
    EXPECT_EQ(arena_.Reap(), 0);
    EXPECT_EQ(arena_.Count().process_blocks, 0u);
    for (const BlockRef& ref : table_->refs) {
      if (ref) (void)arena_.Free(ref);
    }
    EXPECT_EQ(arena_.Count().kept_blocks, 0u);
    for (int i = 0; i < kObjects; ++i) {
      (void)arena_.Destroy(std::to_string(i));
    }
    const ArenaCount count = arena_.Count();
    EXPECT_EQ(count.object_blocks, 0u);
    EXPECT_EQ(count.objects, 0u);
    EXPECT_EQ(Audit(arena_), "");
    EXPECT_TRUE(arena_.Allocate(count.pages * 4096).ok());
  }

  Arena arena_;
  Shared<Table> table_{std::in_place};
};

TEST_F(ArenaStressTest, KillsLoseNoBlockAndDoubleNone) {
  const std::vector<std::function<void(const Worker&)>> workers(
      kWorkers, [&](const Worker& self) {
        std::mt19937 random(
            static_cast<uint32_t>(self.index() + 100 * self.incarnation()));
        std::vector<Mine> blocks;
        while (!self.Stopping()) {
          Round(random, blocks);
          ++table_->rounds;
        }
      });
  const ChaosReport report = KillAtRandom(workers);
  EXPECT_EQ(report.failures, 0) << report;
  EXPECT_GT(report.kills, 0);
  Settle();
  std::cout << table_->rounds << " rounds, " << report.kills << " kills, "
            << table_->repairs << " objects repaired\n";
}

// While nobody is killed nobody is forgotten: without slices it would sleep for
// ever.
TEST_F(ArenaStressTest, WithoutKillsNobodyIsForgotten) {
  Shared<std::atomic<bool>> stop;
  std::vector<Child> children;
  for (int i = 0; i < kWorkers; ++i) {
    children.push_back(Child::Fork([&, i] {
      os::Slices::TurnOff();
      std::mt19937 random(static_cast<uint32_t>(i));
      std::vector<Mine> blocks;
      while (!*stop) {
        Round(random, blocks);
        ++table_->rounds;
      }
      for (const Mine& mine : blocks) CheckStamp(mine);
    }));
  }
  const Deadline end = Deadline::After(StressSeconds() / 2);
  while (!end.Passed()) sched_yield();
  *stop = true;
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(table_->repairs, 0);
  Settle();
}

}  // namespace
}  // namespace cohort
