// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything an arena does. In each
// situation the books are exact afterwards: each block is free or has one owner
// that is there, what the dead one had comes back, and all memory can be taken
// in one piece again. docs/design/arena.md lists the situations.

#include <unistd.h>

#include <array>
#include <boost/container/vector.hpp>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/process_identity.h"
#include "cohort/os/robust.h"
#include "cohort/shm/arena.h"
#include "cohort/shm/arena_allocator.h"
#include "cohort/shm/block_ref.h"
#include "cohort/shm/internal/arena_audit.h"
#include "cohort/shm/internal/arena_heap.h"
#include "cohort/shm/offset_ptr.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KilledBy;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using shm_internal::ArenaHeap;

class ArenaCrashTest : public testing::Test {
 protected:
  static constexpr size_t kSmall = 1000;  // 16 to a slab of four pages.
  static constexpr size_t kLarge = 8192;
  static constexpr uint32_t kObjects = 4;

  void SetUp() override {
    absl::StatusOr<Arena> arena =
        Arena::Create({.size = 1 << 16, .objects = kObjects});
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
  }

  // An arena with nothing in it, of memory that was used: where it is taken for
  // words, these are of blocks that somebody owns.
  void Begin() {
    const auto bytes = arena_.region().bytes();
    const size_t blocks =
        ArenaHeap::PagesIn(bytes.size(), kObjects) * ArenaHeap::kPageSize;
    std::memset(bytes.data(), 0, bytes.size() - blocks);
    std::memset(bytes.data() + bytes.size() - blocks, 0x11, blocks);
    ArenaHeap::Format(bytes, kObjects);
    refs_->count = 0;
  }

  // Blocks of the test's own process, which lives on.
  void Own(size_t size, int count = 1) {
    for (int i = 0; i < count; ++i) {
      const absl::StatusOr<Block> block = arena_.Allocate(size);
      ASSERT_TRUE(block.ok()) << block.status();
      refs_->at[refs_->count++] = block->ref;
    }
  }
  BlockRef& Ref(int index) { return refs_->at[index]; }

  // So that a victim's first call is not its process's first.
  static void Warm() {
    (void)os::RobustThread::Self();
    (void)os::ProcessIdentity::Self();
  }
  void WarmSlot() {
    Warm();
    const absl::StatusOr<Block> block = arena_.Allocate(16);
    if (!block.ok() || !arena_.Free(block->ref).ok()) raise(SIGABRT);
  }

  void Allocate(size_t size) {
    if (!arena_.Allocate(size).ok()) raise(SIGABRT);
  }
  void Free(BlockRef ref) {
    if (!arena_.Free(ref).ok()) raise(SIGABRT);
  }
  // Any step under the lock: the caches are made anew.
  void Rebuild() { (void)arena_.Free({}); }

  void DieHolding(size_t small, size_t large) {
    ASSERT_EQ(Child::Fork([&] {
                for (size_t i = 0; i < small; ++i) Allocate(kSmall);
                for (size_t i = 0; i < large; ++i) Allocate(kLarge);
                return raise(SIGKILL);
              }).Wait(),
              KilledBy(SIGKILL));
  }

  // Takes home what the dead had, and returns how many blocks that was. Then
  // there is nothing but the test's own blocks and `objects` of objects; they
  // are freed as well, and nothing is left.
  int64_t Settle(int64_t kept = 0) {
    const int64_t home = arena_.Reap();
    EXPECT_EQ(Audit(arena_), "");
    EXPECT_EQ(arena_.Reap(), 0);
    EXPECT_EQ(arena_.Count().kept_blocks, static_cast<uint64_t>(kept));
    uint64_t mine = 0;
    for (int i = 0; i < refs_->count; ++i) {
      if (arena_.Resolve(refs_->at[i]).ok()) ++mine;
    }
    EXPECT_EQ(arena_.Count().process_blocks + arena_.Count().kept_blocks, mine);
    for (int i = 0; i < refs_->count; ++i) (void)arena_.Free(refs_->at[i]);
    EXPECT_EQ(Audit(arena_), "");
    const ArenaCount count = arena_.Count();
    EXPECT_EQ(count.process_blocks, 0u);
    EXPECT_EQ(count.kept_blocks, 0u);
    EXPECT_EQ(count.object_blocks, 0u);
    EXPECT_EQ(count.objects, 0u);
    const absl::StatusOr<Block> all = arena_.Allocate(count.pages * 4096);
    EXPECT_TRUE(all.ok()) << all.status();
    EXPECT_EQ(Audit(arena_), "");
    return home;
  }

  // At every instruction of the operation; and at each `recovery`-th one of what
  // comes after a first kill. Whoever looks through all slots, or all words, or
  // asks the kernel, goes a long way in circles: each `stride`-th there.
  void Run(KillScenario scenario, int stride = 1, int recovery = 37) {
    KillScenario second = scenario;
    scenario.recover = nullptr;
    KillReport report =
        KillAtEveryInstruction(scenario, KillOptions{.stride = stride});
    if (second.recover != nullptr) {
      second.name += ", killed twice";
      report += KillAtEveryInstruction(
          second, KillOptions{.first_kills = 3, .stride = recovery});
    }
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  struct Refs {
    std::array<BlockRef, 64> at;
    int count;
  };
  Shared<Refs> refs_;
  Arena arena_;
};

TEST_F(ArenaCrashTest, Allocate) {
  struct Situation {
    const char* name;
    size_t size;
    int before;  // Blocks of that size that are there.
  };
  for (const Situation& now :
       {Situation{"a new slab", kSmall, 0}, Situation{"a slab", kSmall, 1},
        Situation{"the last of a slab", kSmall, 15},
        Situation{"a run", kLarge, 0}}) {
    Run({.name = std::string("arena/allocate, ") + now.name,
         .setup =
             [&] {
               Begin();
               if (now.before != 0) Own(now.size, now.before);
             },
         .prepare = [&] { WarmSlot(); },
         .operation = [&] { Allocate(now.size); },
         .recover = [&] { Rebuild(); },
         .check =
             [&](const KillPoint& point) {
               const int64_t home = Settle();
               EXPECT_TRUE(home == 1 || (home == 0 && !point.finished()))
                   << home;
             }});
  }
}

TEST_F(ArenaCrashTest, FirstAllocateOfAProcess) {
  Run({.name = "arena/allocate, first of its process",
       .setup = [&] { Begin(); },
       .prepare = Warm,
       .operation = [&] { Allocate(kSmall); },
       .check =
           [&](const KillPoint& point) {
             const int64_t home = Settle();
             EXPECT_TRUE(home == 1 || (home == 0 && !point.finished())) << home;
           }},
      17);
}

TEST_F(ArenaCrashTest, Free) {
  struct Situation {
    const char* name;
    size_t size;
    int before;
    int freed;  // Which of them.
  };
  for (const Situation& now :
       {Situation{"one of a slab", kSmall, 3, 1},
        Situation{"of a full slab", kSmall, 16, 5},
        Situation{"the last of a slab, another has room", kSmall, 17, 16},
        Situation{"the only one of a slab", kSmall, 1, 0},
        Situation{"a run between two", kLarge, 3, 1}}) {
    Run({.name = std::string("arena/free, ") + now.name,
         .setup =
             [&] {
               Begin();
               Own(now.size, now.before);
               // The full slab has room again, so that the other one goes.
               if (now.before == 17) Free(Ref(3));
             },
         .prepare = Warm,
         .operation = [&] { Free(Ref(now.freed)); },
         .recover = [&] { Rebuild(); },
         .check =
             [&](const KillPoint& point) {
               if (point.finished()) {
                 EXPECT_FALSE(arena_.Resolve(Ref(now.freed)).ok());
               }
               EXPECT_EQ(Settle(), 0);
             }});
  }
}

// Free runs beside it, with which it becomes one. In a run of one page, the
// first is the last one, too.
TEST_F(ArenaCrashTest, FreeJoinsNeighbours) {
  struct Situation {
    const char* name;
    size_t size;
    bool before;
    bool behind;
  };
  for (const Situation& now :
       {Situation{"a run between free ones", kLarge, true, true},
        Situation{"a page between free ones", 4096, true, true},
        Situation{"a page behind a free one", 4096, true, false},
        Situation{"a page before a free one", 4096, false, true}}) {
    Run({.name = std::string("arena/free, ") + now.name,
         .setup =
             [&] {
               Begin();
               Own(now.size, 4);
               if (now.before) Free(Ref(0));
               if (now.behind) Free(Ref(2));
             },
         .prepare = Warm,
         .operation = [&] { Free(Ref(1)); },
         .recover = [&] { Rebuild(); },
         .check = [&](const KillPoint&) { EXPECT_EQ(Settle(), 0); }});
  }
}

TEST_F(ArenaCrashTest, KeepAndAdopt) {
  for (const size_t size : {kSmall, kLarge}) {
    Run({.name = "arena/keep",
         .setup = [&] { Begin(); },
         .prepare =
             [&] {
               Warm();
               Own(size);
             },
         .operation =
             [&] {
               if (!arena_.Keep(Ref(0)).ok()) raise(SIGABRT);
             },
         .check =
             [&](const KillPoint& point) {
               // Kept, or else the dead one's.
               arena_.Reap();
               const bool kept = arena_.Resolve(Ref(0)).ok();
               EXPECT_TRUE(kept || !point.finished());
               EXPECT_EQ(Settle(kept ? 1 : 0), 0);
             }});
    Run({.name = "arena/adopt",
         .setup =
             [&] {
               Begin();
               Own(size);
               ASSERT_TRUE(arena_.Keep(Ref(0)).ok());
             },
         .prepare = Warm,
         .operation =
             [&] {
               if (!arena_.Adopt(Ref(0)).ok()) raise(SIGABRT);
             },
         .check =
             [&](const KillPoint& point) {
               const int64_t home = arena_.Reap();
               EXPECT_TRUE(home == 1 || (home == 0 && !point.finished()));
               EXPECT_EQ(Settle(home == 1 ? 0 : 1), 0);
             }},
        31);
  }
}

// Slabs that are empty go, where a run is needed.
TEST_F(ArenaCrashTest, AllocateWhereSlabsHaveToGo) {
  size_t rest = 0;
  Run({.name = "arena/allocate, empty slabs go",
       .setup =
           [&] {
             Begin();
             Own(kSmall, 1);
             Own(16, 1);
             ASSERT_TRUE(arena_.Free(Ref(0)).ok());
             ASSERT_TRUE(arena_.Free(Ref(1)).ok());
             rest = arena_.Count().pages * 4096;
           },
       .prepare = Warm,
       .operation = [&] { Allocate(rest); },
       .recover = [&] { Rebuild(); },
       .check =
           [&](const KillPoint& point) {
             const int64_t home = Settle();
             EXPECT_TRUE(home == 1 || (home == 0 && !point.finished())) << home;
           }},
      17, 61);
}

// Whoever takes the blocks of the dead dies, and the one that comes after it.
TEST_F(ArenaCrashTest, Reap) {
  for (const bool allocates : {false, true}) {
    size_t all = 0;
    Run({.name = allocates ? "arena/allocate from a dead owner" : "arena/reap",
         .setup =
             [&] {
               Begin();
               Own(kSmall, 2);
               DieHolding(5, 1);
               all = arena_.Count().free_pages * 4096 + 1;
             },
         .prepare = Warm,
         .operation =
             [&, allocates] {
               if (allocates) {
                 Allocate(all);
               } else if (arena_.Reap() != 6) {
                 raise(SIGABRT);
               }
             },
         .recover = [&] { (void)arena_.Reap(); },
         .check =
             [&](const KillPoint& point) {
               const int64_t home = Settle();
               if (point.finished() && !allocates) {
                 EXPECT_EQ(home, 0);
               }
             }},
        61, 127);
  }
}

TEST_F(ArenaCrashTest, Attach) {
  Run({.name = "arena/attach",
       .setup =
           [&] {
             Begin();
             Own(kSmall, 2);
             DieHolding(2, 1);
           },
       .prepare = Warm,
       .operation =
           [&] {
             if (!Arena::Attach(arena_.region()).ok()) raise(SIGABRT);
           },
       .check = [&](const KillPoint&) { (void)Settle(); }},
      31);
}

// Named objects.

struct Pair {
  explicit Pair(const ArenaAllocator<void>& in)
      : ints(in), first(ints.allocate(100)), second(ints.allocate(3000)) {}
  ArenaAllocator<int> ints;
  OffsetPtr<int> first;
  OffsetPtr<int> second;
};

class ArenaObjectCrashTest : public ArenaCrashTest {
 protected:
  void FindOrConstruct() {
    if (!arena_.FindOrConstruct<Pair>("pair").ok()) raise(SIGABRT);
  }
  // There is all of it, or nothing.
  void SettleObject(bool must_be_there, bool must_be_gone = false) {
    (void)arena_.Reap();
    EXPECT_EQ(Audit(arena_), "");
    const absl::StatusOr<Pair*> found = arena_.Find<Pair>("pair");
    if (found.ok()) {
      EXPECT_FALSE(must_be_gone);
      EXPECT_EQ(arena_.Count().object_blocks, 3u);
      EXPECT_EQ((*found)->second.get() - (*found)->second.get(), 0);
      EXPECT_TRUE(arena_.Destroy("pair").ok());
    } else {
      EXPECT_FALSE(must_be_there) << found.status();
      EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound);
      EXPECT_EQ(arena_.Count().objects, 0u);
      EXPECT_EQ(arena_.Count().object_blocks, 0u);
    }
    // And it can be made anew.
    FindOrConstruct();
    EXPECT_EQ(arena_.Count().object_blocks, 3u);
    EXPECT_TRUE(arena_.Destroy("pair").ok());
    EXPECT_EQ(Settle(), 0);
  }
};

TEST_F(ArenaObjectCrashTest, FindOrConstruct) {
  Run({.name = "arena/find or construct",
       .setup = [&] { Begin(); },
       .prepare = Warm,
       .operation = [&] { FindOrConstruct(); },
       .check =
           [&](const KillPoint& point) { SettleObject(point.finished()); }},
      5);
}

// Nobody reaps for the next one: it finds out itself.
TEST_F(ArenaObjectCrashTest, FindOrConstructAfterADeath) {
  Run({.name = "arena/find or construct, and again",
       .setup = [&] { Begin(); },
       .prepare = Warm,
       .operation = [&] { FindOrConstruct(); },
       .recover = [&] { FindOrConstruct(); },
       .check =
           [&](const KillPoint&) {
             FindOrConstruct();
             EXPECT_EQ(Audit(arena_), "");
             EXPECT_EQ(arena_.Count().object_blocks, 3u);
             SettleObject(true);
           }},
      61, 127);
}

TEST_F(ArenaObjectCrashTest, Destroy) {
  Run({.name = "arena/destroy",
       .setup =
           [&] {
             Begin();
             FindOrConstruct();
           },
       .prepare = Warm,
       .operation = [&] { (void)arena_.Destroy("pair"); },
       .recover = [&] { (void)arena_.Destroy("pair"); },
       .check =
           [&](const KillPoint& point) {
             SettleObject(false, point.finished());
           }},
      17, 61);
}

// A death in the middle of a container's change: the Mutex says so, and whoever
// gets it makes the container anew. No block is lost, whatever was linked.

struct Log {
  using Lines = boost::container::vector<int, ArenaAllocator<int>>;
  explicit Log(const ArenaAllocator<void>& in) : lines(in) {}
  Mutex mu;
  Lines lines ABSL_GUARDED_BY(mu);
};

class ArenaContainerCrashTest : public ArenaCrashTest {
 protected:
  Log* FindLog() {
    const absl::StatusOr<Log*> log = arena_.FindOrConstruct<Log>("log");
    if (!log.ok()) raise(SIGABRT);
    return *log;
  }
  void Repair(Log* log) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const absl::StatusOr<ArenaAllocator<void>> in = arena_.Clear("log");
    if (!in.ok()) raise(SIGABRT);
    std::construct_at(&log->lines, *in);
  }
  void Append(Log* log, int line) {
    MutexLock lock(log->mu, [&] { Repair(log); });
    log->lines.push_back(line);
  }
};

TEST_F(ArenaContainerCrashTest, PushBackUnderAMutex) {
  // With room for the line, and without.
  for (const int lines : {7, 8}) {
    Run({.name = "arena/vector push_back, " + std::to_string(lines) + " there",
         .setup =
             [&] {
               Begin();
               Log* const log = FindLog();
               MutexLock lock(log->mu);
               log->lines.reserve(8);
               for (int i = 0; i < lines; ++i) log->lines.push_back(i);
             },
         .prepare = Warm,
         .operation = [&] { Append(FindLog(), lines); },
         .recover = [&] { Append(FindLog(), 1000); },
         .check =
             [&](const KillPoint& point) {
               Log* const log = FindLog();
               {
                 bool rebuilt = false;
                 MutexLock lock(log->mu, [&] {
                   rebuilt = true;
                   Repair(log);
                 });
                 const size_t size = log->lines.size();
                 if (point.finished() && point.recovery_instruction() < 0) {
                   EXPECT_EQ(size, static_cast<size_t>(lines) + 1);
                   EXPECT_FALSE(rebuilt);
                 }
                 for (size_t i = 0; i < size; ++i) {
                   EXPECT_TRUE(log->lines[i] == 1000 ||
                               log->lines[i] == static_cast<int>(i));
                 }
                 // The object and its lines: no block is lost.
                 EXPECT_EQ(Audit(arena_), "");
                 EXPECT_EQ(arena_.Count().object_blocks,
                           log->lines.capacity() == 0 ? 1u : 2u);
                 for (int i = 0; i < 20; ++i) log->lines.push_back(i);
               }
               EXPECT_TRUE(arena_.Destroy("log").ok());
               EXPECT_EQ(Settle(), 0);
             }},
        lines == 7 ? 1 : 5, 127);
  }
}

}  // namespace
}  // namespace cohort
