// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a Semaphore does. In each
// situation all permits come home, nobody who waits is forgotten, and what the
// victim had acquired or released it had, or had not.

#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/futex.h"
#include "cohort/os/process_identity.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/permit_ledger.h"
#include "cohort/sync/internal/wait_word.h"
#include "cohort/sync/semaphore.h"
#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KilledBy;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using sync_internal::kSleepers;
using sync_internal::PermitSlot;

template <int kHolders>
class SemaphoreCrash : public testing::Test {
 protected:
  struct Arena {
    explicit Arena(ptrdiff_t permits) : semaphore(permits) {}

    BasicSemaphore<kHolders> semaphore;
    Gate gate;
    Gate second_gate;
  };
  using Bodies = std::vector<std::function<void()>>;

  BasicSemaphore<kHolders>& semaphore() { return arena_->semaphore; }
  PermitSlot* slots() {
    return reinterpret_cast<PermitSlot*>(reinterpret_cast<char*>(arena_.get()) +
                                         32);
  }

  void Begin(ptrdiff_t permits) { new (arena_.get()) Arena(permits); }

  // So that a victim's first call is not its process's first.
  static void Warm() {
    (void)os::RobustThread::Self();
    (void)os::ProcessIdentity::Self();
  }
  // So that its first acquire finds its slot as a later one would.
  void WarmSlot() {
    Warm();
    semaphore().acquire();
    semaphore().release();
  }

  // The victim begins last, so it cannot acquire before others sleep. The test
  // has what is needed, and the victim makes that its own.
  void Adopt() {
    Warm();
    PermitSlot& home = slots()[getpid() % kHolders];
    uint32_t count = 0;
    for (int i = 0; i < kHolders; ++i) count += slots()[i].count.exchange(0);
    home.who = os::ProcessIdentity::Self().bits();
    home.count = count;
  }

  // Leaves `n` permits with a dead process.
  void DieHolding(int n) {
    ASSERT_EQ(Child::Fork([&] {
                for (int i = 0; i < n; ++i) semaphore().acquire();
                return raise(SIGKILL);
              }).Wait(),
              KilledBy(SIGKILL));
  }

  void Visit() {
    ASSERT_TRUE(semaphore().try_acquire_for(seconds(2))) << "a permit is lost";
    semaphore().release();
  }
  Bodies Visitors(int count) {
    return Bodies(count, [this] { Visit(); });
  }

  // All permits are free again and there are as many as there were; the
  // survivors that waited, from number `first` on, have had theirs. Returns how
  // many a dead process had.
  ptrdiff_t Settle(const KillPoint& point, int sleepers, int first = 0) {
    const ptrdiff_t home = semaphore().reclaim();
    for (int i = 0; i < sleepers; ++i) {
      EXPECT_TRUE(point.AwaitSleeper(first + i)) << "sleeper " << first + i;
    }
    EXPECT_EQ(semaphore().reclaim(), 0);
    EXPECT_EQ(semaphore().value(), semaphore().permits());
    for (ptrdiff_t i = 0; i < semaphore().permits(); ++i) {
      EXPECT_TRUE(semaphore().try_acquire());
    }
    EXPECT_FALSE(semaphore().try_acquire());
    semaphore().release(semaphore().permits());
    EXPECT_EQ(semaphore().value(), semaphore().permits());
    return home;
  }

  // Likewise, and nobody knows of the death: waiters have to find out.
  void SettleAlone(const KillPoint& point, int sleepers, int first = 0) {
    for (int i = 0; i < sleepers; ++i) {
      EXPECT_TRUE(point.AwaitSleeper(first + i)) << "sleeper " << first + i;
    }
    Visit();
    (void)Settle(point, 0);
  }

  // Where a victim asks the kernel about holders, that is most of its way, and
  // the same in every situation. The test of reclaim() kills at each of these
  // instructions; others at every ninth.
  static KillOptions Sparsely() { return {.first_kills = 3, .stride = 9}; }

  void Run(KillScenario scenario, KillOptions options = {.first_kills = 2}) {
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 10) << report;
  }

  Shared<Arena> arena_{std::in_place, 0};
};

// Four slots go the ways of 128, in fewer instructions.
using SemaphoreCrashTest = SemaphoreCrash<4>;
using NarrowSemaphoreCrashTest = SemaphoreCrash<1>;

TEST_F(SemaphoreCrashTest, Acquire) {
  for (const bool again : {false, true}) {
    Run({.name = again ? "semaphore/acquire" : "semaphore/acquire, a new slot",
         .setup = [&] { Begin(2); },
         .prepare = [&, again] { again ? WarmSlot() : Warm(); },
         .operation = [&] { semaphore().acquire(); },
         .check =
             [&](const KillPoint& point) {
               const ptrdiff_t home = Settle(point, 0);
               EXPECT_TRUE(home == 1 || (home == 0 && !point.finished()))
                   << home;
             }});
  }
}

TEST_F(SemaphoreCrashTest, FirstAcquireOfAProcess) {
  Run({.name = "semaphore/acquire, first of its process",
       .setup = [&] { Begin(2); },
       .operation = [&] { semaphore().acquire(); },
       .check =
           [&](const KillPoint& point) {
             const ptrdiff_t home = Settle(point, 0);
             EXPECT_TRUE(home == 1 || (home == 0 && !point.finished())) << home;
           }});
}

TEST_F(SemaphoreCrashTest, Release) {
  for (const int n : {1, 3}) {
    Run({.name = "semaphore/release " + std::to_string(n) + " of 3",
         .setup = [&] { Begin(3); },
         .prepare =
             [&] {
               for (int i = 0; i < 3; ++i) semaphore().acquire();
             },
         .operation = [&, n] { semaphore().release(n); },
         .check =
             [&, n](const KillPoint& point) {
               // All or none.
               const ptrdiff_t home = Settle(point, 0);
               EXPECT_TRUE(home == 3 - n || (home == 3 && !point.finished()))
                   << home;
             }});
  }
}

TEST_F(SemaphoreCrashTest, ReleaseBeforeSleepers) {
  for (int sleepers = 1; sleepers <= 2; ++sleepers) {
    for (int n = 1; n <= 2; ++n) {
      Run({.name = "semaphore/release " + std::to_string(n) +
                   ", sleepers: " + std::to_string(sleepers),
           .setup =
               [&] {
                 Begin(2);
                 semaphore().acquire();
                 semaphore().acquire();
               },
           .prepare = [&] { Adopt(); },
           .operation = [&, n] { semaphore().release(n); },
           .sleepers = Visitors(sleepers),
           .check =
               [&, n](const KillPoint& point) {
                 const ptrdiff_t home = Settle(point, sleepers);
                 if (point.finished()) {
                   EXPECT_EQ(home, 2 - n);
                 }
               }});
    }
  }
}

// Nobody reclaims for them: the sleepers find out about the death themselves.
TEST_F(SemaphoreCrashTest, ReleaseBeforeSleepersOnTheirOwn) {
  Run({.name = "semaphore/release, sleepers: 2, on their own",
       .setup =
           [&] {
             Begin(1);
             semaphore().acquire();
           },
       .prepare = [&] { Adopt(); },
       .operation = [&] { semaphore().release(); },
       .sleepers = Visitors(2),
       .check = [&](const KillPoint& point) { SettleAlone(point, 2); }});
}

TEST_F(SemaphoreCrashTest, AReleaseOfTooMuch) {
  Run({.name = "semaphore/ledger release of too much",
       .setup = [&] { Begin(2); },
       .prepare = [&] { semaphore().acquire(); },
       .operation =
           [&] {
             auto& ledger =
                 reinterpret_cast<sync_internal::PermitLedger<4>&>(*arena_);
             if (ledger.Release(2) != 1) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint& point) { EXPECT_EQ(Settle(point, 0), 1); }});
}

TEST_F(SemaphoreCrashTest, AWaitThatIsOver) {
  for (const bool timed : {false, true}) {
    Run({.name = timed ? "semaphore/try_acquire_for, timing out"
                       : "semaphore/try_acquire, none",
         .setup = [&] { Begin(1); },
         .prepare = Warm,
         .operation =
             [&, timed] {
               const bool taken =
                   timed ? semaphore().try_acquire_for(microseconds(1))
                         : semaphore().try_acquire();
               if (taken) raise(SIGABRT);
             },
         .sleepers = {[&] {
           semaphore().acquire();
           arena_->gate.Pass();
           semaphore().release();
         }},
         .check =
             [&](const KillPoint& point) {
               EXPECT_EQ(semaphore().reclaim(), 0);
               EXPECT_EQ(semaphore().value(), 0);
               arena_->gate.Open();
               EXPECT_TRUE(point.AwaitSleeper(0));
               EXPECT_EQ(Settle(point, 0), 0);
             }});
  }
}

// The one that takes a permit home from a dead process dies, and the one that
// comes after it.
TEST_F(SemaphoreCrashTest, ReclaimOfADeadHolder) {
  for (const bool acquires : {false, true}) {
    Run({.name = acquires ? "semaphore/acquire from a dead holder"
                          : "semaphore/reclaim",
         .setup =
             [&] {
               Begin(2);
               DieHolding(2);
             },
         .prepare = Warm,
         .operation =
             [&, acquires] {
               if (acquires) {
                 semaphore().acquire();
               } else {
                 (void)semaphore().reclaim();
               }
             },
         .recover =
             [&, acquires] {
               if (acquires) {
                 semaphore().acquire();
               } else {
                 (void)semaphore().reclaim();
               }
             },
         .check =
             [&](const KillPoint& point) {
               Visit();
               (void)Settle(point, 0);
             }},
        acquires ? Sparsely() : KillOptions{.first_kills = 3});
  }
}

// Whoever sleeps gets what a dead one reclaimed.
TEST_F(SemaphoreCrashTest, ReclaimBeforeSleepers) {
  Run({.name = "semaphore/reclaim, sleepers: 2",
       .setup =
           [&] {
             Begin(2);
             semaphore().acquire();
             semaphore().acquire();
           },
       .prepare =
           [&] {
             Warm();
             // The test holds them; from now on a process does that never was.
             for (int i = 0; i < 4; ++i) {
               PermitSlot& slot = slots()[i];
               if (slot.count != 0) slot.who = slot.who - (uint64_t{1} << 22);
             }
           },
       .operation = [&] { (void)semaphore().reclaim(); },
       .sleepers = Visitors(2),
       .check = [&](const KillPoint& point) { SettleAlone(point, 2); }},
      Sparsely());
}

// A waiter is killed on its way to sleep, asleep, and at each instruction after
// it was woken; two others sleep behind it.
TEST_F(SemaphoreCrashTest, WokenWaiter) {
  Run({.name = "semaphore/acquire, woken, two behind",
       .setup =
           [&] {
             Begin(1);
             semaphore().acquire();
           },
       .prepare = Warm,
       .operation = [&] { semaphore().acquire(); },
       .while_blocked = [&] { semaphore().release(); },
       .sleepers_behind = Visitors(2),
       .check =
           [&](const KillPoint& point) {
             const ptrdiff_t home = Settle(point, 2);
             EXPECT_TRUE(home == 1 || (home == 0 && !point.finished())) << home;
           }},
      Sparsely());
}

// Likewise, but the one that woke it takes the permit again before the waiter
// can.
TEST_F(SemaphoreCrashTest, WokenWaiterBehindABarger) {
  Run({.name = "semaphore/acquire, woken, barged, two behind",
       .setup = [&] { Begin(1); },
       .prepare = Warm,
       .operation = [&] { semaphore().acquire(); },
       .sleepers = {[&] {
         semaphore().acquire();
         arena_->gate.Pass();
         semaphore().release();
         if (semaphore().try_acquire()) {
           arena_->second_gate.Pass(Deadline::After(milliseconds(3)));
           semaphore().release();
         }
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Visitors(2),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             (void)Settle(point, 2, 1);
           }},
      Sparsely());
}

// The holder dies while the victim waits, which takes the permit home.
TEST_F(SemaphoreCrashTest, WaiterForADyingHolder) {
  Run({.name = "semaphore/acquire, holder dies, two behind",
       .setup = [&] { Begin(1); },
       .prepare = Warm,
       .operation = [&] { semaphore().acquire(); },
       .sleepers = {[&] {
         semaphore().acquire();
         arena_->gate.Pass();  // And ends, holding it.
       }},
       .while_blocked = [&] { arena_->gate.Open(); },
       .sleepers_behind = Visitors(2),
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             SettleAlone(point, 2, 1);
           }},
      Sparsely());
}

// What a rival may do to a waiter between any two instructions, without the
// lock: its wake-up takes the mark away. Nobody falls asleep unmarked all the
// same. The waiter does it to itself, by the processor's trap flag.
std::atomic<uint32_t>* stepped_word;
int steps_with_a_mark;

TEST_F(SemaphoreCrashTest, NobodySleepsUnmarked) {
  constexpr uint64_t kTrapFlag = 0x100;
  for (int step = 1; step <= 20; ++step) {
    Begin(1);
    semaphore().acquire();
    Child waiter = Child::Fork([&] {
      os::Slices::TurnOff();
      stepped_word = reinterpret_cast<std::atomic<uint32_t>*>(&semaphore()) + 1;
      steps_with_a_mark = step;
      struct sigaction action = {};
      action.sa_flags = SA_SIGINFO;
      action.sa_sigaction = [](int, siginfo_t*, void* context) {
        if ((*stepped_word & kSleepers) == 0 || --steps_with_a_mark != 0) {
          return;
        }
        stepped_word->fetch_and(~kSleepers);
        os::FutexWake(*stepped_word, INT_MAX);
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &=
            ~static_cast<greg_t>(kTrapFlag);
      };
      sigaction(SIGTRAP, &action, nullptr);
      __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() |
                                     kTrapFlag);
      semaphore().acquire();
      __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() &
                                     ~kTrapFlag);
    });
    ASSERT_TRUE(waiter.AwaitAsleepInFutex());
    semaphore().release();
    ASSERT_EQ(waiter.WaitFor(Deadline::After(seconds(5))), Exited(0)) << step;
  }
}

// One slot, and another process has it.

TEST_F(NarrowSemaphoreCrashTest, TakeOverOfASlot) {
  Run({.name = "semaphore/acquire, slot of another",
       .setup =
           [&] {
             Begin(2);
             Visit();
           },
       .prepare = Warm,
       .operation =
           [&] {
             semaphore().acquire();
             semaphore().acquire();
           },
       .check =
           [&](const KillPoint& point) {
             const ptrdiff_t home = Settle(point, 0);
             EXPECT_TRUE(home == 2 || !point.finished()) << home;
           }});
}

TEST_F(NarrowSemaphoreCrashTest, FullTable) {
  Run({.name = "semaphore/acquire, table full, woken, two behind",
       .setup =
           [&] {
             Begin(3);
             semaphore().acquire();
           },
       .prepare = Warm,
       .operation = [&] { semaphore().acquire(); },
       .while_blocked = [&] { semaphore().release(); },
       .sleepers_behind = Visitors(2),
       .check = [&](const KillPoint& point) { (void)Settle(point, 2); }},
      Sparsely());
}

TEST_F(NarrowSemaphoreCrashTest, ATryAtAFullTable) {
  Run({.name = "semaphore/try_acquire, table full",
       .setup =
           [&] {
             Begin(3);
             semaphore().acquire();
           },
       .prepare = Warm,
       .operation =
           [&] {
             if (semaphore().try_acquire()) raise(SIGABRT);
           },
       .check =
           [&](const KillPoint&) {
             EXPECT_EQ(semaphore().reclaim(), 0);
             EXPECT_EQ(semaphore().value(), 2);
           }},
      Sparsely());
}

// The last permit of a holder vacates the slot that others sleep for.
TEST_F(NarrowSemaphoreCrashTest, ReleaseBeforeSleepersForASlot) {
  Run({.name = "semaphore/release, sleepers for the slot: 2",
       .setup =
           [&] {
             Begin(3);
             semaphore().acquire();
           },
       .prepare = [&] { Adopt(); },
       .operation = [&] { semaphore().release(); },
       .sleepers = Visitors(2),
       .check = [&](const KillPoint& point) { SettleAlone(point, 2); }});
}

}  // namespace
}  // namespace cohort
