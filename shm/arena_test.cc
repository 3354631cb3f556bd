// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/arena.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/process_identity.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/arena_allocator.h"
#include "cohort/shm/block_ref.h"
#include "cohort/shm/internal/arena_audit.h"
#include "cohort/shm/region.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/asleep.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using absl::StatusCode;
using cohort_testing::AwaitAsleepInFutex;
using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::IsOkAndHolds;
using cohort_testing::KilledBy;
using cohort_testing::LeakGuard;
using cohort_testing::Shared;
using cohort_testing::StatusIs;
using testing::HasSubstr;
using testing::Pointee;
using testing::SizeIs;

class ArenaTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(arena_, Arena::Create({.size = 1 << 20}));
  }
  void TearDown() override {
    if (!arena_.empty()) {
      EXPECT_EQ(Audit(arena_), "");
    }
  }

  // Everything that was in use is free, and can be taken in one piece.
  void ExpectAllFree() {
    EXPECT_EQ(Audit(arena_), "");
    const ArenaCount count = arena_.Count();
    EXPECT_EQ(count.process_blocks, 0u);
    EXPECT_EQ(count.kept_blocks, 0u);
    EXPECT_EQ(count.object_blocks, 0u);
    ASSERT_OK_AND_ASSIGN(const Block all, arena_.Allocate(count.pages * 4096));
    EXPECT_OK(arena_.Free(all.ref));
  }

  // The same arena, mapped once more, at another address.
  absl::StatusOr<Arena> Again() {
    absl::StatusOr<Frame> frame = Encode(arena_);
    if (!frame.ok()) return frame.status();
    return Decode<Arena>(*std::move(frame));
  }

  // Other tests may be making names at the same time.
  LeakGuard guard_{{.shm_name_part = "cohort-arena-test"}};
  Arena arena_;
};

TEST_F(ArenaTest, BlocksAreApartAndHoldWhatWasWritten) {
  std::mt19937 random(1);
  std::vector<Block> blocks;
  for (int i = 0; i < 400; ++i) {
    const size_t size = 1 + random() % (i % 10 == 0 ? 20'000 : 3'000);
    absl::StatusOr<Block> block = arena_.Allocate(size);
    if (!block.ok()) break;
    EXPECT_GE(block->bytes.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block->bytes.data()) % 16, 0u);
    std::memset(block->bytes.data(), i, block->bytes.size());
    blocks.push_back(*block);
  }
  ASSERT_GT(blocks.size(), 100u);
  for (size_t i = 0; i < blocks.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const std::span<std::byte> bytes,
                         arena_.Resolve(blocks[i].ref));
    EXPECT_EQ(bytes.data(), blocks[i].bytes.data());
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [&](std::byte byte) {
      return byte == static_cast<std::byte>(i);
    })) << i;
  }
  EXPECT_EQ(arena_.Count().process_blocks, blocks.size());
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (const Block& block : blocks) EXPECT_OK(arena_.Free(block.ref));
  ExpectAllFree();
}

TEST_F(ArenaTest, AlignsAsAsked) {
  for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
    for (const size_t size : {1, 40, 100, 500, 2000, 5000}) {
      ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(size, alignment));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block.bytes.data()) % alignment, 0u)
          << size << ", " << alignment;
      EXPECT_GE(block.bytes.size(), size);
    }
  }
}

TEST_F(ArenaTest, RefusesWhatCannotBe) {
  EXPECT_THAT(arena_.Allocate(0), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(arena_.Allocate(8, 3), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(arena_.Allocate(8, 8192), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(arena_.Allocate(2 << 20),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("no room")));
  EXPECT_THAT(arena_.Allocate(~size_t{0}),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(Arena::Create({.size = 0}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Arena::Create({.size = 4096}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Arena::Create({.size = 1 << 20, .objects = 70'000}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(ArenaTest, TheSmallestHasAPage) {
  ASSERT_OK_AND_ASSIGN(const Arena small,
                       Arena::Create({.size = 8192, .objects = 1}));
  EXPECT_EQ(small.Count().pages, 1u);
  ASSERT_OK_AND_ASSIGN(const Block block, small.Allocate(4096));
  EXPECT_THAT(small.Allocate(1), StatusIs(StatusCode::kResourceExhausted));
  EXPECT_OK(small.Free(block.ref));
  EXPECT_OK(small.Allocate(1));
}

TEST_F(ArenaTest, AStaleRefIsRefused) {
  for (const size_t size : {16, 2000, 9000}) {
    ASSERT_OK_AND_ASSIGN(const Block first, arena_.Allocate(size));
    ASSERT_OK(arena_.Free(first.ref));
    EXPECT_THAT(arena_.Resolve(first.ref),
                StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_THAT(arena_.Free(first.ref),
                StatusIs(StatusCode::kFailedPrecondition));
    ASSERT_OK_AND_ASSIGN(const Block second, arena_.Allocate(size));
    EXPECT_EQ(second.bytes.data(), first.bytes.data()) << "not taken again";
    EXPECT_THAT(arena_.Resolve(first.ref),
                StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_THAT(arena_.Free(first.ref),
                StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_THAT(arena_.Keep(first.ref),
                StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_THAT(arena_.Adopt(first.ref),
                StatusIs(StatusCode::kFailedPrecondition));
    EXPECT_OK(arena_.Free(second.ref));
  }
}

// Also where the page has become something else since.
TEST_F(ArenaTest, AStaleRefIsRefusedWhateverIsThereNow) {
  std::vector<BlockRef> stale;
  std::mt19937 random(2);
  for (int round = 0; round < 30; ++round) {
    std::vector<BlockRef> live;
    const size_t size = 1 + random() % 6000;
    for (int i = 0; i < 100; ++i) {
      ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(size));
      std::memset(block.bytes.data(), 0x11, block.bytes.size());
      live.push_back(block.ref);
    }
    for (const BlockRef& ref : stale) {
      ASSERT_THAT(arena_.Resolve(ref),
                  StatusIs(StatusCode::kFailedPrecondition));
      ASSERT_THAT(arena_.Free(ref), StatusIs(StatusCode::kFailedPrecondition));
    }
    for (const BlockRef& ref : live) ASSERT_OK(arena_.Free(ref));
    stale.insert(stale.end(), live.begin(), live.end());
  }
  ExpectAllFree();
}

TEST_F(ArenaTest, AForgedRefIsRefused) {
  ASSERT_OK_AND_ASSIGN(const Block small, arena_.Allocate(100));
  ASSERT_OK_AND_ASSIGN(const Block large, arena_.Allocate(10'000));
  std::mt19937_64 random(3);
  for (const BlockRef real : {small.ref, large.ref}) {
    for (int i = 0; i < 20'000; ++i) {
      BlockRef forged = real;
      switch (i % 4) {
        case 0:
          forged.position += random() % 10'000 + 1;
          break;
        case 1:
          forged.position = random();
          break;
        case 2:
          forged.position -= random() % 10'000 + 1;
          break;
        default:
          forged.generation ^= uint64_t{1} << random() % 64;
          break;
      }
      if (forged == small.ref || forged == large.ref) continue;
      ASSERT_THAT(arena_.Resolve(forged),
                  StatusIs(StatusCode::kFailedPrecondition));
      ASSERT_THAT(arena_.Free(forged),
                  StatusIs(StatusCode::kFailedPrecondition));
    }
  }
  EXPECT_THAT(arena_.Resolve({}), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_EQ(arena_.Count().process_blocks, 2u);
}

// Memory of small blocks serves large ones later, and the other way round.
TEST_F(ArenaTest, NoMemoryIsLostToOneSize) {
  const uint64_t pages = arena_.Count().pages;
  for (const size_t size : {16, 5000, 200, 100'000, 2048, 300, 4096, 1}) {
    std::vector<BlockRef> blocks;
    for (;;) {
      const absl::StatusOr<Block> block = arena_.Allocate(size);
      if (!block.ok()) break;
      blocks.push_back(block->ref);
    }
    // All but the overhead, of what one piece of this size is a small part.
    EXPECT_GE(blocks.size() * std::max<size_t>(size, 16),
              pages * 4096 * 55 / 100)
        << size;
    EXPECT_EQ(Audit(arena_), "");
    for (const BlockRef& ref : blocks) ASSERT_OK(arena_.Free(ref));
    EXPECT_EQ(Audit(arena_), "");
  }
  ExpectAllFree();
}

TEST_F(ArenaTest, FreeNeighboursJoin) {
  std::vector<Block> blocks;
  for (int i = 0; i < 6; ++i) {
    ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(3 * 4096));
    blocks.push_back(block);
  }
  for (const int i : {0, 2, 4, 1, 3, 5}) {
    EXPECT_OK(arena_.Free(blocks[i].ref));
    EXPECT_EQ(Audit(arena_), "");
  }
  ExpectAllFree();
}

TEST_F(ArenaTest, RandomUseKeepsTheBooks) {
  std::mt19937 random(4);
  std::vector<Block> blocks;
  for (int i = 0; i < 20'000; ++i) {
    if (random() % 2 == 0 || blocks.empty()) {
      const size_t size = 1 + random() % (random() % 8 == 0 ? 50'000 : 700);
      const absl::StatusOr<Block> block = arena_.Allocate(size);
      if (block.ok()) blocks.push_back(*block);
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      ASSERT_OK(arena_.Free(blocks.back().ref));
      blocks.pop_back();
    }
    if (i % 500 == 0) {
      ASSERT_EQ(Audit(arena_), "");
      ASSERT_EQ(arena_.Count().process_blocks, blocks.size());
    }
  }
  for (const Block& block : blocks) ASSERT_OK(arena_.Free(block.ref));
  ExpectAllFree();
}

TEST_F(ArenaTest, ThreadsShareIt) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(t);
      std::vector<Block> blocks;
      for (int i = 0; i < 2'000; ++i) {
        const absl::StatusOr<Block> block = arena_.Allocate(1 + random() % 500);
        ASSERT_OK(block);
        std::memset(block->bytes.data(), t, block->bytes.size());
        blocks.push_back(*block);
        if (blocks.size() < 20) continue;
        std::swap(blocks[random() % blocks.size()], blocks.back());
        for (const std::byte byte : blocks.back().bytes) {
          ASSERT_EQ(byte, static_cast<std::byte>(t));
        }
        ASSERT_OK(arena_.Free(blocks.back().ref));
        blocks.pop_back();
      }
      for (const Block& left : blocks) ASSERT_OK(arena_.Free(left.ref));
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectAllFree();
}

TEST_F(ArenaTest, AnotherMappingHasTheSameBlocks) {
  ASSERT_OK_AND_ASSIGN(const Arena again, Again());
  ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(100));
  std::memset(block.bytes.data(), 7, 100);
  ASSERT_OK_AND_ASSIGN(const std::span<std::byte> there,
                       again.Resolve(block.ref));
  EXPECT_NE(there.data(), block.bytes.data());
  EXPECT_EQ(there[99], std::byte{7});
  EXPECT_OK(again.Free(block.ref));
  EXPECT_THAT(arena_.Resolve(block.ref),
              StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(ArenaTest, AnEmptyHandleRefuses) {
  const Arena none;
  EXPECT_TRUE(none.empty());
  EXPECT_THAT(none.Allocate(1), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(none.Resolve({}), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(none.Find<int>("x"), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(none.Destroy("x"), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_EQ(none.Reap(), 0);
  EXPECT_EQ(none.Count().pages, 0u);
}

TEST_F(ArenaTest, TypedBlocks) {
  struct Point {
    int x = 1;
    int y = 2;
  };
  ASSERT_OK_AND_ASSIGN(const BlockOf<Point> point, arena_.New<Point>(5));
  EXPECT_EQ(point.object->x, 5);
  EXPECT_EQ(point.object->y, 2);
  EXPECT_THAT(arena_.Get<Point>(point.ref), IsOkAndHolds(point.object));
  struct Big {
    char bytes[5000];
  };
  EXPECT_THAT(arena_.Get<Big>(point.ref),
              StatusIs(StatusCode::kFailedPrecondition));
}

// Owners.

TEST_F(ArenaTest, ATypedBlockWhoseConstructorThrowsIsFree) {
  struct Throws {
    Throws() { throw std::runtime_error("no"); }
  };
  EXPECT_THROW((void)arena_.New<Throws>(), std::runtime_error);
  ExpectAllFree();
}

TEST_F(ArenaTest, BlocksOfADeadProcessComeBack) {
  ASSERT_EQ(Child::Fork([&] {
              for (const size_t size : {16, 100, 2000, 20'000}) {
                if (!arena_.Allocate(size).ok()) return 1;
              }
              return raise(SIGKILL);
            }).Wait(),
            KilledBy(SIGKILL));
  EXPECT_EQ(arena_.Count().process_blocks, 4u);
  EXPECT_EQ(arena_.Count().processes, 1u);
  EXPECT_EQ(arena_.Reap(), 4);
  EXPECT_EQ(arena_.Count().processes, 0u);
  EXPECT_EQ(arena_.Reap(), 0);
  ExpectAllFree();
}

TEST_F(ArenaTest, AllocateTakesThemWhereThereIsNoRoom) {
  const size_t all = arena_.Count().pages * 4096;
  ASSERT_EQ(
      Child::Fork([&] { return arena_.Allocate(all).ok() ? 0 : 1; }).Wait(),
      Exited(0));
  ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(all));
  EXPECT_OK(arena_.Free(block.ref));
}

TEST_F(ArenaTest, AttachTakesThem) {
  ASSERT_EQ(Child::Fork([&] { return arena_.Allocate(9).ok() ? 0 : 1; }).Wait(),
            Exited(0));
  EXPECT_EQ(arena_.Count().process_blocks, 1u);
  ASSERT_OK(Again());
  EXPECT_EQ(arena_.Count().process_blocks, 0u);
}

TEST_F(ArenaTest, ALivingProcessKeepsItsBlocks) {
  Shared<Gate> allocated;
  Shared<Gate> leave;
  Child child = Child::Fork([&] {
    const absl::StatusOr<Block> block = arena_.Allocate(64);
    allocated->Open();
    leave->Pass();
    return block.ok() && arena_.Free(block->ref).ok() ? 0 : 1;
  });
  allocated->Pass();
  EXPECT_EQ(arena_.Reap(), 0);
  child.Stop();
  EXPECT_EQ(arena_.Reap(), 0) << "taken from a stopped process";
  child.Continue();
  leave->Open();
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST_F(ArenaTest, AForkedChildOwnsNothing) {
  ASSERT_OK_AND_ASSIGN(const Block mine, arena_.Allocate(64));
  ASSERT_EQ(Child::Fork([&] {
              return arena_.Reap() == 0 && arena_.Allocate(64).ok() ? 0 : 1;
            }).Wait(),
            Exited(0));
  EXPECT_EQ(arena_.Reap(), 1);
  EXPECT_OK(arena_.Free(mine.ref));
}

TEST_F(ArenaTest, KeptBlocksOutliveTheirProcess) {
  Shared<BlockRef> ref;
  ASSERT_EQ(Child::Fork([&] {
              const absl::StatusOr<Block> block = arena_.Allocate(100);
              if (!block.ok()) return 1;
              block->bytes[0] = std::byte{9};
              *ref = block->ref;
              return arena_.Keep(*ref).ok() ? 0 : 1;
            }).Wait(),
            Exited(0));
  EXPECT_EQ(arena_.Reap(), 0);
  EXPECT_EQ(arena_.Count().kept_blocks, 1u);
  ASSERT_OK_AND_ASSIGN(const std::span<std::byte> bytes, arena_.Resolve(*ref));
  EXPECT_EQ(bytes[0], std::byte{9});
  // And whoever adopts it takes it along.
  ASSERT_EQ(Child::Fork([&] {
              return arena_.Adopt(*ref).ok() ? raise(SIGKILL) : 1;
            }).Wait(),
            KilledBy(SIGKILL));
  EXPECT_EQ(arena_.Reap(), 1);
  EXPECT_THAT(arena_.Resolve(*ref), StatusIs(StatusCode::kFailedPrecondition));
  ExpectAllFree();
}

TEST_F(ArenaTest, AnAdoptedBlockOutlivesTheOneThatMadeIt) {
  Shared<BlockRef> ref;
  Shared<Gate> made;
  Child child = Child::Fork([&] {
    const absl::StatusOr<Block> block = arena_.Allocate(100);
    if (!block.ok()) return;
    *ref = block->ref;
    made->Open();
    pause();
  });
  made->Pass();
  EXPECT_OK(arena_.Adopt(*ref));
  child.Kill(SIGKILL);
  child.Wait();
  EXPECT_EQ(arena_.Reap(), 0);
  EXPECT_OK(arena_.Free(*ref));
}

TEST_F(ArenaTest, SlotsOfTheDeadAreForTheLiving) {
  Shared<uint64_t> dead;
  ASSERT_EQ(Child::Fork([&] {
              *dead = os::ProcessIdentity::Self().bits();
              return arena_.Allocate(16).ok() ? 0 : 1;
            }).Wait(),
            Exited(0));
  shm_internal::ArenaTestPeer::FillSlots(ArenaTestPeer::HeapOf(arena_), *dead);
  EXPECT_EQ(arena_.Count().processes, 256u);
  ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(16));
  EXPECT_EQ(arena_.Count().processes, 1u);
  EXPECT_EQ(arena_.Count().process_blocks, 1u);
  EXPECT_OK(arena_.Free(block.ref));
  ExpectAllFree();
}

// Objects by name.

struct Totals {
  explicit Totals(int64_t start = 0) : sum(start) {}
  Mutex mu;
  int64_t sum;
};

TEST_F(ArenaTest, AnObjectIsMadeOnceAndFoundByAll) {
  EXPECT_THAT(arena_.Find<Totals>("t"), StatusIs(StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(Totals* const made,
                       arena_.FindOrConstruct<Totals>("t", 5));
  EXPECT_EQ(made->sum, 5);
  EXPECT_THAT(arena_.FindOrConstruct<Totals>("t", 6), IsOkAndHolds(made));
  EXPECT_EQ(made->sum, 5);
  ASSERT_OK_AND_ASSIGN(Totals* const other,
                       arena_.FindOrConstruct<Totals>("tt"));
  EXPECT_NE(other, made);
  ASSERT_OK_AND_ASSIGN(const Arena again, Again());
  ASSERT_OK_AND_ASSIGN(Totals* const there, again.Find<Totals>("t"));
  EXPECT_NE(there, made);
  there->sum = 7;
  EXPECT_EQ(made->sum, 7);
  EXPECT_EQ(arena_.Count().objects, 2u);
}

TEST_F(ArenaTest, DestroyFreesAnObject) {
  ASSERT_OK(arena_.FindOrConstruct<Totals>("t"));
  EXPECT_OK(arena_.Destroy("t"));
  EXPECT_THAT(arena_.Destroy("t"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(arena_.Find<Totals>("t"), StatusIs(StatusCode::kNotFound));
  ExpectAllFree();
  ASSERT_OK(arena_.FindOrConstruct<int>("t"));  // And the name.
}

TEST_F(ArenaTest, TypeAndNameAreChecked) {
  ASSERT_OK(arena_.FindOrConstruct<Totals>("t"));
  EXPECT_THAT(
      arena_.FindOrConstruct<int64_t>("t"),
      StatusIs(StatusCode::kFailedPrecondition, HasSubstr("another type")));
  EXPECT_THAT(arena_.Find<int64_t>("t"),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(arena_.Find<int>(""), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_OK(arena_.FindOrConstruct<int>(std::string(48, 'x')));
  EXPECT_THAT(arena_.FindOrConstruct<int>(std::string(49, 'x')),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(ArenaTest, AsManyObjectsAsAskedFor) {
  ASSERT_OK_AND_ASSIGN(arena_, Arena::Create({.size = 1 << 16, .objects = 3}));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK(arena_.FindOrConstruct<int>(std::to_string(i)));
  }
  EXPECT_THAT(
      arena_.FindOrConstruct<int>("3"),
      StatusIs(StatusCode::kResourceExhausted, HasSubstr("more `objects`")));
  EXPECT_OK(arena_.Destroy("1"));
  EXPECT_OK(arena_.FindOrConstruct<int>("3"));
}

TEST_F(ArenaTest, AConstructorThatThrowsLeavesNothing) {
  struct Throws {
    explicit Throws(const ArenaAllocator<void>& in) {
      (void)ArenaAllocator<int>(in).allocate(1000);
      throw std::runtime_error("no");
    }
  };
  struct TooLarge {
    explicit TooLarge(const ArenaAllocator<void>& in) {
      for (;;) (void)ArenaAllocator<int>(in).allocate(1000);
    }
  };
  EXPECT_THROW((void)arena_.FindOrConstruct<Throws>("t"), std::runtime_error);
  EXPECT_THAT(arena_.FindOrConstruct<TooLarge>("t"),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(arena_.Find<Throws>("t"), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(arena_.Count().objects, 0u);
  ExpectAllFree();
}

TEST_F(ArenaTest, OneOfManyConstructs) {
  struct Slow {
    explicit Slow(std::atomic<int>* made) {
      usleep(20'000);
      ++*made;
      whole = true;
    }
    bool whole = false;
  };
  Shared<std::atomic<int>> made;
  const auto find = [&] {
    const absl::StatusOr<Slow*> slow =
        arena_.FindOrConstruct<Slow>("slow", made.get());
    return slow.ok() && (*slow)->whole ? 0 : 1;
  };
  std::vector<Child> children;
  for (int i = 0; i < 6; ++i) children.push_back(Child::Fork(find));
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(*made, 1);
}

// Destroy() may come between the making of an object and the finding of it.
TEST_F(ArenaTest, WhatWasMovedIntoAnObjectIsNotUsedAgain) {
  struct Number {
    Number(std::unique_ptr<int> from, int* empty) : whole(from != nullptr) {
      if (!whole) ++*empty;
    }
    bool whole;
  };
  int empty = 0;
  std::atomic<bool> stop = false;
  std::atomic<int> ended = 0;
  std::thread destroyer([&] {
    while (!stop) {
      if (arena_.Destroy("number").ok()) ++ended;
    }
  });
  while (ended < 1000) {
    (void)arena_.FindOrConstruct<Number>("number", std::make_unique<int>(1),
                                         &empty);
  }
  stop = true;
  destroyer.join();
  EXPECT_EQ(empty, 0);
}

// Two have found the same entry vacant. One of them has it, and its constructor
// waits for what the other one makes.
TEST_F(ArenaTest, AnEntryIsNotWaitedForWhileAnotherIsVacant) {
  const auto& heap = ArenaTestPeer::HeapOf(arena_);
  const auto vacant = heap.FindObject("first");
  ASSERT_TRUE(vacant.has_value());
  const MutexLock lock(heap.making(vacant->slot));
  Child other = Child::Fork(
      [&] { return arena_.FindOrConstruct<int>("other").ok() ? 0 : 1; });
  ASSERT_TRUE(AwaitAsleepInFutex(other.pid()));
  const auto begun = heap.BeginObject(*vacant, "first", 1, sizeof(int));
  ASSERT_TRUE(begun.has_value());
  EXPECT_EQ(other.Wait(), Exited(0));
  EXPECT_EQ(heap.EndObject(*begun), 0u);
}

TEST_F(ArenaTest, AMakerThatDiesLeavesNothingVisible) {
  struct Half {
    Half(const bool& die, const ArenaAllocator<void>& in) {
      for (int i = 0; i < 10; ++i) {
        (void)ArenaAllocator<int>(in).allocate(100 * i + 1);
      }
      if (die) raise(SIGKILL);
    }
  };
  const auto die = [&] {
    return arena_.FindOrConstruct<Half>("h", true).ok() ? 0 : 1;
  };
  ASSERT_EQ(Child::Fork(die).Wait(), KilledBy(SIGKILL));
  EXPECT_THAT(arena_.Find<Half>("h"), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(arena_.Count().object_blocks, 11u);
  EXPECT_EQ(arena_.Reap(), 11);
  ExpectAllFree();
  // And whoever comes next begins anew, without being told to reap.
  ASSERT_EQ(Child::Fork(die).Wait(), KilledBy(SIGKILL));
  ASSERT_OK(arena_.FindOrConstruct<Half>("h", false));
  EXPECT_EQ(arena_.Count().object_blocks, 11u);
  // Destroy() of what was not there finds nothing, but cleans up.
  ASSERT_OK(arena_.Destroy("h"));
  ASSERT_EQ(Child::Fork(die).Wait(), KilledBy(SIGKILL));
  EXPECT_THAT(arena_.Destroy("h"), StatusIs(StatusCode::kNotFound));
  ExpectAllFree();
}

TEST_F(ArenaTest, ClearKeepsTheObjectAlone) {
  struct List {
    explicit List(const ArenaAllocator<void>& in) : allocator(in) {}
    ArenaAllocator<int> allocator;
  };
  ASSERT_OK_AND_ASSIGN(List* const list, arena_.FindOrConstruct<List>("l"));
  for (int i = 1; i < 100; ++i) (void)list->allocator.allocate(i * 10);
  EXPECT_EQ(arena_.Count().object_blocks, 100u);
  ASSERT_OK_AND_ASSIGN(ArenaAllocator<int> in, arena_.Clear("l"));
  EXPECT_EQ(in, list->allocator);
  EXPECT_EQ(arena_.Count().object_blocks, 1u);
  EXPECT_THAT(arena_.Find<List>("l"), IsOkAndHolds(list));
  EXPECT_THAT(arena_.Clear("m"), StatusIs(StatusCode::kNotFound));
}

TEST_F(ArenaTest, AnObjectsBlocksAreNotForTheirRefs) {
  ASSERT_OK_AND_ASSIGN(Totals* const totals,
                       arena_.FindOrConstruct<Totals>("t"));
  BlockRef guess;
  guess.position = static_cast<uint64_t>(reinterpret_cast<std::byte*>(totals) -
                                         arena_.region().bytes().data());
  bool refused = false;
  for (guess.generation = 0; guess.generation < 100; ++guess.generation) {
    const absl::Status freed = arena_.Free(guess);
    EXPECT_FALSE(freed.ok());
    refused =
        refused || freed.message().find("named object") != std::string::npos;
  }
  EXPECT_TRUE(refused);
}

// By name.

TEST_F(ArenaTest, FoundByName) {
  const std::string name = absl::StrCat("cohort-arena-test-", getpid());
  ASSERT_OK_AND_ASSIGN(const Arena made,
                       Arena::OpenOrCreate(name, {.size = 1 << 18}));
  ASSERT_OK_AND_ASSIGN(const Block block, made.Allocate(10));
  ASSERT_EQ(Child::Fork([&] {
              const absl::StatusOr<Arena> found = Arena::Open(name);
              return found.ok() && found->Free(block.ref).ok() ? 0 : 1;
            }).Wait(),
            Exited(0));
  ASSERT_OK_AND_ASSIGN(const Arena same,
                       Arena::OpenOrCreate(name, {.size = 1 << 18}));
  EXPECT_THAT(same.Resolve(block.ref),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(Arena::OpenOrCreate(name, {.size = 1 << 19}),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(Arena::OpenOrCreate(name, {.size = 1}),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_OK(Arena::Unlink(name));
  EXPECT_THAT(Arena::Open(name), StatusIs(StatusCode::kNotFound));
}

// What is no arena.

TEST_F(ArenaTest, RefusesWhatIsNoArena) {
  ASSERT_OK_AND_ASSIGN(Region region, Region::Create(1 << 20));
  EXPECT_THAT(Arena::Attach(region), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(Arena::Attach(Region()),
              StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_OK_AND_ASSIGN(
      region, Region::Create(
                  {.size = 1 << 20, .type_tag = arena_.region().type_tag()}));
  EXPECT_THAT(Arena::Attach(region), StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(ArenaTest, ChecksEachFieldOfTheHeader) {
  std::byte* const bytes = arena_.region().bytes().data();
  for (const int at : {0, 8, 12, 16, 24, 28}) {
    for (const int value : {0x00, 0x7f, 0xff}) {
      for (int byte = 0; byte < 4; ++byte) {
        const std::byte was = bytes[at + byte];
        bytes[at + byte] = static_cast<std::byte>(value);
        const absl::StatusOr<Arena> attached = Arena::Attach(arena_.region());
        if (!attached.ok()) {
          EXPECT_THAT(attached, StatusIs(StatusCode::kFailedPrecondition));
        }
        bytes[at + byte] = was;
      }
    }
  }
}

}  // namespace
}  // namespace cohort
