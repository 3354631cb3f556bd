// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a SharedMutex does. In
// each situation the survivors must come in, must be told of a writer that left
// data torn and of no other death, and must not owe their wake-up to the end of
// a slice.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/lock_word.h"
#include "cohort/sync/shared_mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Gate;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KilledBy;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::seconds;
using sync_internal::SharedMutexGate;
using sync_internal::SharedMutexSlot;

// One slot: every reader's first choice, and full with one reader.
template <int kReaders>
struct Arena {
  BasicSharedMutex<kReaders> mu;
  // Guarded by `mu`; equal wherever nobody writes.
  std::atomic<int> left;
  std::atomic<int> right;
  Gate gate;
  std::atomic<uint64_t> rescues;
  std::atomic<int> deaths_told;
};

template <int kReaders>
class Stage {
 public:
  using Body = std::function<void()>;

  Arena<kReaders>& arena() { return *arena_; }

  void Reset() { new (arena_.get()) Arena<kReaders>(); }

  // Where somebody has read since the last writer.
  void ResetWithReader() {
    Reset();
    SharedMutexReaderLock lock(arena_->mu);
  }

  // So that a victim's first lock is not its thread's first.
  static void Warm() { (void)os::RobustThread::Self(); }

  void Repair() { arena_->right = arena_->left.load(); }

  // One more change of the data, to be made by a writer.
  void Change() {
    arena_->left = arena_->left + 1;
    arena_->right = arena_->right + 1;
  }

  void Lock() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock(); }
  void Unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.unlock(); }
  void LockShared() ABSL_NO_THREAD_SAFETY_ANALYSIS { arena_->mu.lock_shared(); }
  void UnlockShared() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    arena_->mu.unlock_shared();
  }

  void Write() {
    SharedMutexLock lock(arena_->mu, [&] {
      ++arena_->deaths_told;
      Repair();
    });
    EXPECT_EQ(arena_->left, arena_->right) << "torn data, and nobody was told";
    Change();
  }

  void Read() {
    SharedMutexReaderLock lock(arena_->mu);
    if (lock.poisoned()) return;
    EXPECT_EQ(arena_->left, arena_->right) << "torn data, and nobody was told";
  }

  // Survivors without slices: who is not woken sleeps for ever.
  Body Sleeper(void (Stage::*use)()) {
    return [this, use] {
      os::Slices::TurnOff();
      (this->*use)();
    };
  }
  std::vector<Body> Sleepers() {
    return {Sleeper(&Stage::Read), Sleeper(&Stage::Write),
            Sleeper(&Stage::Read)};
  }

  // Likewise, where readers would not have to wait if it were not for the first
  // of these.
  std::vector<Body> SleepersBehindAReader() {
    return {Sleeper(&Stage::Write), Sleeper(&Stage::Read),
            Sleeper(&Stage::Write)};
  }

  // The mutex works, and works twice; nobody had to rescue himself.
  void CheckUsable() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    int told = 0;
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(arena_->mu.try_lock_shared_for(seconds(2))) << "no reader";
      arena_->mu.unlock_shared();
      ASSERT_TRUE(arena_->mu.try_lock_for(seconds(2))) << "no writer comes in";
      arena_->mu.unlock();
      Write();
      Read();
      if (i == 0) told = arena_->deaths_told;
    }
    EXPECT_EQ(arena_->deaths_told, told) << "poison came back";
    EXPECT_EQ(arena_->rescues + sync_internal::Rescues(), 0u)
        << "a sleeper was forgotten";
  }

  void CheckUsable(const KillPoint& point, size_t sleepers) {
    for (size_t i = 0; i < sleepers; ++i) {
      ASSERT_TRUE(point.AwaitSleeper(i)) << "sleeper " << i;
    }
    CheckUsable();
  }

  // Leaves torn data and a dead writer.
  void TearAndDie() {
    ASSERT_EQ(Child::Fork([&]() {
                Lock();
                arena_->left = 1;
                return raise(SIGKILL);
              }).Wait(),
              KilledBy(SIGKILL));
  }

  // A holder cannot be there before the sleepers and yet be the victim, which
  // begins last. So a word names a holder that runs no code, and then another
  // process becomes it.
  SharedMutexGate& gate() {
    return *reinterpret_cast<SharedMutexGate*>(
        reinterpret_cast<char*>(&arena_->mu) + sizeof(SharedMutexSlot));
  }
  SharedMutexSlot& slot() {
    return *reinterpret_cast<SharedMutexSlot*>(
        reinterpret_cast<char*>(&arena_->mu) + sizeof(SharedMutexSlot) +
        sizeof(SharedMutexGate));
  }
  void WriteByNobody() {
    Reset();
    gate().word = static_cast<uint32_t>(getpid());
    gate().state = sync_internal::kWriting;
  }
  void ReadByNobody() {
    Reset();
    slot().word = static_cast<uint32_t>(getpid());
    gate().state = sync_internal::kReading;
  }
  template <typename T>
  static void Adopt(T& held) {
    os::RobustThread& thread = os::RobustThread::Self();
    thread.Pend(held.word);
    held.word = thread.tid() | (held.word & sync_internal::kWaiters);
    thread.Push(held.node);
    thread.Unpend();
  }

  void Run(KillScenario scenario) {
    scenario.name = "shared_mutex/" + scenario.name;
    if (!scenario.setup) scenario.setup = [&] { Reset(); };
    // A recoverer's first lock binds its thread, so it has 500 instructions.
    const KillReport report =
        KillAtEveryInstruction(scenario, {.first_kills = 3});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

 private:
  Shared<Arena<kReaders>> arena_;
};

class SharedMutexCrashTest : public testing::Test {
 protected:
  // Dead readers leave no trace, dead writers leave poison.
  void ExpectPoison(int deaths) { EXPECT_EQ(few_.arena().deaths_told, deaths); }

  Stage<4> few_;
  Stage<1> one_;
};

TEST_F(SharedMutexCrashTest, LockShared) {
  for (const bool read : {false, true}) {
    few_.Run({.name = read ? "lock_shared" : "lock_shared, after a writer",
              .setup =
                  [&, read] {
                    if (read) {
                      few_.ResetWithReader();
                    } else {
                      few_.Reset();
                    }
                  },
              .prepare = few_.Warm,
              .operation = [&] { few_.LockShared(); },
              .check =
                  [&](const KillPoint&) {
                    few_.CheckUsable();
                    ExpectPoison(0);
                  }});
  }
}

TEST_F(SharedMutexCrashTest, FirstLockOfAThread) {
  few_.Run({.name = "lock_shared, first of its thread",
            .operation = [&] { few_.LockShared(); },
            .check =
                [&](const KillPoint&) {
                  few_.CheckUsable();
                  ExpectPoison(0);
                }});
}

TEST_F(SharedMutexCrashTest, LockSharedWhereTheFirstChoiceIsTaken) {
  // Of one slot, so it is also a way to be refused.
  one_.Run({.name = "try_lock_shared, no slot",
            .setup = [&] { one_.ReadByNobody(); },
            .prepare = one_.Warm,
            .operation =
                [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
                  if (one_.arena().mu.try_lock_shared()) raise(SIGABRT);
                },
            .check =
                [&](const KillPoint&) {
                  EXPECT_FALSE(one_.arena().mu.try_lock());
                  one_.slot().word = 0;
                  one_.CheckUsable();
                }});
  few_.Run({.name = "lock_shared, past dead readers",
            .setup =
                [&] {
                  few_.ResetWithReader();
                  SharedMutexSlot* const slots = &few_.slot();
                  for (int i = 0; i < 4; ++i) {
                    slots[i].word = sync_internal::kOwnerDied;
                  }
                },
            .prepare = few_.Warm,
            .operation =
                [&] {
                  few_.LockShared();
                  few_.UnlockShared();
                },
            .check =
                [&](const KillPoint&) {
                  few_.CheckUsable();
                  ExpectPoison(0);
                }});
}

TEST_F(SharedMutexCrashTest, UnlockShared) {
  few_.Run({.name = "unlock_shared",
            .prepare = [&] { few_.LockShared(); },
            .operation = [&] { few_.UnlockShared(); },
            .check =
                [&](const KillPoint&) {
                  few_.CheckUsable();
                  ExpectPoison(0);
                }});
}

// The reader is the victim. A writer waits for it to leave, others wait behind.
TEST_F(SharedMutexCrashTest, UnlockSharedBeforeSleepers) {
  one_.Run({.name = "unlock_shared, a writer waits and others",
            .setup = [&] { one_.ReadByNobody(); },
            .prepare = [&] { one_.Adopt(one_.slot()); },
            .operation = [&] { one_.UnlockShared(); },
            .sleepers = one_.SleepersBehindAReader(),
            .check =
                [&](const KillPoint& point) {
                  one_.CheckUsable(point, 3);
                  EXPECT_EQ(one_.arena().deaths_told, 0);
                }});
  // Likewise, but it has left its first choice to another.
  few_.Run({.name = "unlock_shared, of another slot, a writer waits",
            .setup = [&] { few_.ReadByNobody(); },
            .prepare = [&] { few_.Adopt(few_.slot()); },
            .operation = [&] { few_.UnlockShared(); },
            .sleepers = {few_.Sleeper(&Stage<4>::Write)},
            .check =
                [&](const KillPoint& point) {
                  few_.CheckUsable(point, 1);
                  ExpectPoison(0);
                }});
  // Here it is a reader that waits, for a slot.
  one_.Run({.name = "unlock_shared, a reader waits and others",
            .setup = [&] { one_.ReadByNobody(); },
            .prepare = [&] { one_.Adopt(one_.slot()); },
            .operation = [&] { one_.UnlockShared(); },
            .sleepers = one_.Sleepers(),
            .check =
                [&](const KillPoint& point) {
                  one_.CheckUsable(point, 3);
                  EXPECT_EQ(one_.arena().deaths_told, 0);
                }});
}

TEST_F(SharedMutexCrashTest, Lock) {
  for (const bool read : {false, true}) {
    few_.Run({.name = read ? "lock, after a reader" : "lock",
              .setup =
                  [&, read] {
                    if (read) {
                      few_.ResetWithReader();
                    } else {
                      few_.Reset();
                    }
                  },
              .prepare = few_.Warm,
              .operation = [&] { few_.Lock(); },
              .check =
                  [&](const KillPoint& point) {
                    few_.CheckUsable();
                    if (point.finished()) ExpectPoison(1);
                  }});
  }
}

TEST_F(SharedMutexCrashTest, WriteAndRead) {
  few_.Run({.name = "write, read",
            .prepare = few_.Warm,
            .operation =
                [&] {
                  few_.Lock();
                  few_.Change();
                  few_.Unlock();
                  few_.LockShared();
                  few_.UnlockShared();
                },
            .recover = [&] { few_.Write(); },
            .check =
                [&](const KillPoint& point) {
                  few_.CheckUsable();
                  if (point.finished() && point.recovery_instruction() < 0) {
                    ExpectPoison(0);
                  }
                }});
}

TEST_F(SharedMutexCrashTest, UnlockBeforeSleepers) {
  few_.Run({.name = "unlock, others wait",
            .setup = [&] { few_.WriteByNobody(); },
            .prepare = [&] { few_.Adopt(few_.gate()); },
            .operation =
                [&] {
                  few_.Change();
                  few_.Unlock();
                },
            .sleepers = few_.Sleepers(),
            .check =
                [&](const KillPoint& point) {
                  few_.CheckUsable(point, 3);
                  if (point.finished()) ExpectPoison(0);
                }});
}

// Tries and waits that come to nothing, against a reader and a writer whom none
// of them may disturb.
TEST_F(SharedMutexCrashTest, AWaitThatIsOver) {
  struct Attempt {
    std::string name;
    bool against_writer;
    std::function<bool()> make;
  };
  auto& mu = few_.arena().mu;
  const auto moment = std::chrono::microseconds(1);
  const Attempt attempts[] = {
      {"try_lock, a writer", true, [&] { return mu.try_lock(); }},
      {"try_lock_for, a writer", true, [&] { return mu.try_lock_for(moment); }},
      {"try_lock_shared, a writer", true, [&] { return mu.try_lock_shared(); }},
      {"try_lock_shared_for, a writer", true,
       [&] { return mu.try_lock_shared_for(moment); }},
      {"try_lock, a reader", false, [&] { return mu.try_lock(); }},
      {"try_lock_for, a reader", false,
       [&] { return mu.try_lock_for(moment); }},
  };
  for (const Attempt& attempt : attempts) {
    few_.Run({.name = attempt.name,
              .prepare = few_.Warm,
              .operation =
                  [&] {
                    if (attempt.make()) raise(SIGABRT);
                  },
              .sleepers = {[&] {
                if (attempt.against_writer) {
                  few_.Lock();
                  few_.arena().gate.Pass();
                  few_.Change();
                  few_.Unlock();
                } else {
                  few_.LockShared();
                  few_.arena().gate.Pass();
                  few_.UnlockShared();
                }
              }},
              .check =
                  [&](const KillPoint& point) {
                    EXPECT_FALSE(mu.try_lock());
                    EXPECT_EQ(
                        mu.try_lock_shared_for(std::chrono::milliseconds(2)),
                        !attempt.against_writer);
                    if (!attempt.against_writer) few_.UnlockShared();
                    few_.arena().gate.Open();
                    few_.CheckUsable(point, 1);
                    ExpectPoison(0);
                  }});
  }
}

// Who comes first after a writer's death is killed in turn, and the one after
// that too: nobody may see torn data unwarned.
TEST_F(SharedMutexCrashTest, Repair) {
  for (const bool read_first : {false, true}) {
    few_.Run({.name = read_first ? "reader after a death" : "repair",
              .setup =
                  [&] {
                    few_.Reset();
                    few_.TearAndDie();
                  },
              .prepare = few_.Warm,
              .operation =
                  [&, read_first] {
                    if (read_first) {
                      few_.Read();
                    } else {
                      few_.Write();
                    }
                  },
              .recover =
                  [&, read_first] {
                    if (read_first) {
                      few_.Read();
                    } else {
                      few_.Write();
                    }
                  },
              .check = [&](const KillPoint&) { few_.CheckUsable(); }});
  }
}

// The victim waits for a reader that leaves, and others wait behind the victim.
// It is killed on its way to sleep, asleep, and at each instruction after it
// was woken. What it does then can be reading or writing.
TEST_F(SharedMutexCrashTest, WokenBehindAReader) {
  few_.Run(
      {.name = "lock, woken by a reader, others behind",
       .setup =
           [&] {
             few_.Reset();
             few_.LockShared();
           },
       .prepare = few_.Warm,
       .operation = [&] { few_.Write(); },
       .while_blocked = [&] { few_.UnlockShared(); },
       .sleepers_behind = few_.SleepersBehindAReader(),
       .check = [&](const KillPoint& point) { few_.CheckUsable(point, 3); }});
  one_.Run({.name = "lock_shared, no slot, woken, others behind",
            .setup =
                [&] {
                  one_.Reset();
                  one_.LockShared();
                },
            .prepare = one_.Warm,
            .operation = [&] { one_.Read(); },
            .while_blocked = [&] { one_.UnlockShared(); },
            .sleepers_behind = one_.Sleepers(),
            .check =
                [&](const KillPoint& point) {
                  one_.CheckUsable(point, 3);
                  EXPECT_EQ(one_.arena().deaths_told, 0);
                }});
}

TEST_F(SharedMutexCrashTest, WokenBehindAWriter) {
  for (const bool read : {false, true}) {
    few_.Run({.name = read ? "lock_shared, woken by a writer, others behind"
                           : "lock, woken by a writer, others behind",
              .setup =
                  [&] {
                    few_.Reset();
                    few_.Lock();
                  },
              .prepare = few_.Warm,
              .operation =
                  [&, read] {
                    if (read) {
                      few_.Read();
                    } else {
                      few_.Write();
                    }
                  },
              .while_blocked = [&] { few_.Unlock(); },
              .sleepers_behind = few_.Sleepers(),
              .check =
                  [&, read](const KillPoint& point) {
                    few_.CheckUsable(point, 3);
                    if (read) ExpectPoison(0);
                  }});
  }
}

// The victim does not stand at the gate but in the porch, behind another.
TEST_F(SharedMutexCrashTest, WokenInThePorch) {
  for (const bool read : {false, true}) {
    few_.Run({.name = read ? "lock_shared, third in the row"
                           : "lock, third in the row",
              .prepare = few_.Warm,
              .operation =
                  [&, read] {
                    if (read) {
                      few_.Read();
                    } else {
                      few_.Write();
                    }
                  },
              .sleepers = {[&] {
                             few_.Lock();
                             few_.arena().gate.Pass();
                             few_.Unlock();
                           },
                           few_.Sleeper(&Stage<4>::Write)},
              .while_blocked = [&] { few_.arena().gate.Open(); },
              .sleepers_behind = few_.Sleepers(),
              .check =
                  [&, read](const KillPoint& point) {
                    few_.CheckUsable(point, 5);
                    if (read) ExpectPoison(0);
                  }});
  }
}

// The one that the victim waits for dies, and then the victim, whom the kernel
// has woken.
TEST_F(SharedMutexCrashTest, WokenByADeath) {
  for (const bool read : {false, true}) {
    few_.Run(
        {.name = read ? "lock_shared, woken by a writer's death"
                      : "lock, woken by a writer's death",
         .prepare = few_.Warm,
         .operation =
             [&, read] {
               if (read) {
                 few_.Read();
               } else {
                 few_.Write();
               }
             },
         .sleepers = {[&] {
           few_.Lock();
           few_.arena().left = 1;
           few_.arena().gate.Pass();  // And ends, writing.
         }},
         .while_blocked = [&] { few_.arena().gate.Open(); },
         .sleepers_behind = few_.Sleepers(),
         .check = [&](const KillPoint& point) { few_.CheckUsable(point, 4); }});
  }
  few_.Run(
      {.name = "lock, woken by a reader's death",
       .prepare = few_.Warm,
       .operation = [&] { few_.Write(); },
       .sleepers = {[&] {
         few_.LockShared();
         few_.arena().gate.Pass();  // And ends, reading.
       }},
       .while_blocked = [&] { few_.arena().gate.Open(); },
       .sleepers_behind = few_.SleepersBehindAReader(),
       .check = [&](const KillPoint& point) { few_.CheckUsable(point, 4); }});
}

// Reading and writing under other locks of the same kind.
TEST_F(SharedMutexCrashTest, HeldOverEachOther) {
  few_.Run({.name = "one held over another",
            .setup =
                [&] {
                  few_.Reset();
                  one_.Reset();
                },
            .prepare = few_.Warm,
            .operation =
                [&] {
                  few_.LockShared();
                  one_.Lock();
                  one_.Change();
                  few_.UnlockShared();
                  one_.Unlock();
                },
            .check =
                [&](const KillPoint& point) {
                  few_.CheckUsable();
                  one_.CheckUsable();
                  ExpectPoison(0);
                  if (point.finished()) {
                    EXPECT_EQ(one_.arena().deaths_told, 0);
                  }
                }});
}

}  // namespace
}  // namespace cohort
