// SPDX-License-Identifier: Apache-2.0
//
// A writer that means harm: whatever it leaves in the memory of an arena, no
// call reads or writes elsewhere, and each call ends. What stands in blocks is
// not promised, nor that any can be had.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/shm/arena.h"
#include "cohort/shm/block_ref.h"
#include "cohort/shm/internal/arena_audit.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

constexpr size_t kSize = 1 << 16;
constexpr uint32_t kObjects = 4;
// Where the entries of pages begin, and how many pages there are, behind the
// head and four objects' entries.
constexpr size_t kFirstEntry = 2432 + kObjects * 128;

class ArenaMalformedTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(arena_,
                         Arena::Create({.size = kSize, .objects = kObjects}));
    bytes_ = arena_.region().bytes();
    random_.seed(testing::UnitTest::GetInstance()->random_seed() + 17);
  }

  // The arena with some blocks and objects, as it was the first time.
  void Begin() {
    if (whole_.empty()) {
      for (const size_t size :
           {16, 16, 100, 100, 1000, 2000, 5000, 8192, 300}) {
        ASSERT_OK_AND_ASSIGN(const Block block, arena_.Allocate(size));
        refs_.push_back(block.ref);
      }
      for (const int freed : {1, 3, 6}) ASSERT_OK(arena_.Free(refs_[freed]));
      ASSERT_OK(arena_.FindOrConstruct<int64_t>("a", 1));
      ASSERT_OK(arena_.FindOrConstruct<int64_t>("b", 2));
      whole_.assign(bytes_.begin(), bytes_.end());
    }
    std::memcpy(bytes_.data(), whole_.data(), whole_.size());
  }

  void Inside(std::span<const std::byte> block) {
    ASSERT_GE(block.data(), bytes_.data());
    ASSERT_LE(block.data() + block.size(), bytes_.data() + bytes_.size());
  }

  // Everything that a survivor may do. The statuses do not matter.
  void UseAll() {
    for (const size_t size : {16, 100, 1000, 2000, 4096, 9000, 40'000}) {
      const absl::StatusOr<Block> block = arena_.Allocate(size);
      if (!block.ok()) continue;
      Inside(block->bytes);
      (void)arena_.Resolve(block->ref);
      (void)arena_.Keep(block->ref);
      (void)arena_.Adopt(block->ref);
      if (size != 100) (void)arena_.Free(block->ref);
    }
    for (const BlockRef& ref : refs_) {
      const auto found = arena_.Resolve(ref);
      if (found.ok()) Inside(*found);
      (void)arena_.Free(ref);
    }
    for (const char* name : {"a", "c"}) {
      const auto found = arena_.FindOrConstruct<int64_t>(name, 3);
      if (found.ok()) {
        Inside({reinterpret_cast<std::byte*>(*found), sizeof(int64_t)});
      }
      (void)arena_.Clear(name);
      (void)arena_.Destroy(name);
    }
    (void)arena_.Count();
    (void)arena_.Reap();
    (void)Arena::Attach(arena_.region());
  }

  // As if the last one under the lock had died.
  void RebuildAll() {
    shm_internal::ArenaTestPeer::Rebuild(ArenaTestPeer::HeapOf(arena_));
  }

  // Overwrites one to four words with what is likely to be believed.
  void Mutate(size_t from, size_t to) {
    for (int words = 1 + static_cast<int>(random_() % 4); words > 0; --words) {
      const size_t width = random_() % 3 == 0 ? 8 : random_() % 2 == 0 ? 4 : 2;
      const size_t at = from + random_() % ((to - from) / width) * width;
      uint64_t value = 0;
      switch (random_() % 6) {
        case 0:
          value = random_() % 20;
          break;
        case 1:
          value = ~(random_() % 20);
          break;
        case 2:
          value = random_();
          break;
        case 3:
          value = uint64_t{1} << random_() % 64;
          break;
        case 4:
          std::memcpy(&value, &bytes_[at], width);
          ++value;
          break;
        default: {
          const size_t other = from + random_() % ((to - from) / 8) * 8;
          std::memcpy(&value, &bytes_[other], 8);
        }
      }
      std::memcpy(&bytes_[at], &value, width);
    }
  }

  std::mt19937_64 random_;
  Arena arena_;
  std::span<std::byte> bytes_;
  std::vector<std::byte> whole_;
  std::vector<BlockRef> refs_;
};

// The locks and the fields that are read once, at Attach, stay as they are: a
// lock that a stranger holds is waited for.
TEST_F(ArenaMalformedTest, ListsAndCounts) {
  for (int round = 0; round < 6000; ++round) {
    Begin();
    Mutate(128 + 8, 384);  // Behind the lock.
    UseAll();
    Mutate(kFirstEntry, kFirstEntry + 14 * 32);
    UseAll();
  }
}

TEST_F(ArenaMalformedTest, EntriesOfPages) {
  for (int round = 0; round < 10'000; ++round) {
    Begin();
    Mutate(kFirstEntry, kFirstEntry + 14 * 32);
    if (round % 3 == 0) RebuildAll();
    UseAll();
  }
}

TEST_F(ArenaMalformedTest, WordsOfBlocks) {
  const size_t first_page = bytes_.size() - arena_.Count().pages * 4096;
  for (int round = 0; round < 6000; ++round) {
    Begin();
    for (int page = 0; page < 12; ++page) {
      Mutate(first_page + page * 4096, first_page + page * 4096 + 64);
    }
    if (round % 3 == 0) RebuildAll();
    UseAll();
  }
}

TEST_F(ArenaMalformedTest, OwnersAndObjects) {
  for (int round = 0; round < 3000; ++round) {
    Begin();
    Mutate(384, 384 + 256 * 8);  // Processes.
    for (uint32_t i = 0; i < kObjects; ++i) {
      const size_t entry = 2432 + i * 128;
      Mutate(entry + 40, entry + 128);  // Behind its lock.
    }
    UseAll();
  }
}

TEST_F(ArenaMalformedTest, DamageIsSaid) {
  Begin();
  std::memset(bytes_.data() + kFirstEntry, 0xff, 14 * 32);
  RebuildAll();
  EXPECT_THAT(arena_.Allocate(1),
              cohort_testing::StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(arena_.FindOrConstruct<int>("x"),
              cohort_testing::StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(arena_.Reap(), 0);
}

}  // namespace
}  // namespace cohort
