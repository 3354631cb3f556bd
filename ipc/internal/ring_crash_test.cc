// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of everything a Ring does, and looks
// whether each accepted message is handed over once, in order and whole, and
// whether those who wait go on. docs/design/queue.md lists the situations, and
// docs/design/handles.md those that only messages with descriptors have; all
// others are gone through with and without.

#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/ipc/internal/ring.h"
#include "cohort/os/cpu.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/memfd.h"
#include "cohort/os/or_die.h"
#include "cohort/os/robust.h"
#include "cohort/os/socket.h"
#include "cohort/shm/region.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::ipc_internal {

// Sees what is committed, without taking part.
struct RingTestPeer {
  static uint64_t Head(const Ring& ring) {
    return ring.shared_->consumers.head.load();
  }
  static uint32_t State(const Ring& ring) {
    return ring.shared_->producers.state.load();
  }
  // Leaves a message in the socket as a producer does that dies before it
  // commits.
  static bool LeaveBehind(const Ring& ring, const os::Descriptor& file) {
    const uint64_t stamp = ring.NextStamp();
    return os::TrySend(ring.in(), {reinterpret_cast<const char*>(&stamp), 8},
                       {&file, 1}) == os::SendEnd::kDone;
  }
};

namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AnyOf;
using testing::ElementsAre;

constexpr uint64_t kTag = 7;
constexpr size_t kSmall = 40;  // One unit.
constexpr size_t kLong = 150;  // Three units.
constexpr int kNothing = -1;
constexpr int kEnded = -2;

Deadline Soon() { return Deadline::After(seconds(2)); }

// What sleepers tell the checker.
struct Told {
  std::array<std::atomic<int>, 2> got;
};

// What a message brings that has descriptors: one, and its size tells which.
constexpr size_t kFiles = 5;
size_t FileSize(int id) { return 1 + static_cast<size_t>(id) % kFiles; }

// With descriptors, if the parameter is true.
class RingCrashTest : public testing::TestWithParam<bool> {
 protected:
  RingCrashTest() {
    std::iota(pattern_.begin(), pattern_.end(), 0);
    for (size_t i = 0; i < kFiles; ++i) {
      files_[i] = OrDie(os::CreateSealedMemfd("file", i + 1));
    }
  }

  static bool posted() { return GetParam(); }

  void Fresh(uint64_t max_items = 0, uint64_t capacity = 512) {
    absl::StatusOr<Ring> ring = Ring::Create({.capacity = capacity,
                                              .max_items = max_items,
                                              .type_tag = kTag,
                                              .carries_descriptors = posted()});
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    for (auto& got : told_->got) got = kNothing;
  }

  static void Warm() { (void)os::RobustThread::Self(); }

  // A message that says which it is in each byte. Written beforehand: only the
  // ring's own instructions are of interest.
  RingEnd Put(int id, Deadline deadline, size_t size = kSmall) const {
    return ring_.Put(
        &pattern_[id], size, deadline,
        absl::MakeConstSpan(&files_[FileSize(id) - 1], posted() ? 1 : 0));
  }

  // For victims, who do not live to look at what they got.
  RingEnd Take(Deadline deadline) const {
    std::array<unsigned char, kLong> bytes;
    size_t size = 0;
    return ring_.Get(bytes.data(), bytes.size(), Larger::kCut, &size, deadline);
  }

  int Get(Deadline deadline) const {
    std::array<unsigned char, kLong> bytes;
    size_t size = 0;
    os::DescriptorBatch batch;
    const RingEnd end = ring_.Get(bytes.data(), bytes.size(), Larger::kCut,
                                  &size, deadline, &batch);
    if (end == RingEnd::kLate) return kNothing;
    if (end == RingEnd::kClosed) return kEnded;
    EXPECT_EQ(end, RingEnd::kDone);
    EXPECT_TRUE(size == kSmall || size == kLong) << size;
    for (size_t i = 0; i < std::min(size, bytes.size()); ++i) {
      if (bytes[i] != static_cast<unsigned char>(bytes[0] + i)) {
        ADD_FAILURE() << "torn message";
        break;
      }
    }
    const std::vector<os::Descriptor> files = batch.Take();
    EXPECT_EQ(files.size(), posted() ? 1u : 0u);
    for (const os::Descriptor& file : files) {
      EXPECT_EQ(OrDie(os::CheckSealedMemfd(file)), FileSize(bytes[0]))
          << "a descriptor of another message";
    }
    return bytes[0];
  }

  std::vector<int> Drain() const {
    std::vector<int> ids;
    for (int id; (id = Get(Deadline::Now())) != kNothing && ids.size() < 100;) {
      ids.push_back(id);
    }
    return ids;
  }

  static int OpenDescriptors() {
    DIR* const open = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(open) != nullptr) ++count;
    closedir(open);
    return count;
  }

  // The survivors' ring is as good as new.
  void CheckUsable() const {
    EXPECT_EQ(ring_.ApproxSize(), 0u);
    const int open = OpenDescriptors();
    for (int id = 200; id < 220; ++id) {  // Once around, and more.
      ASSERT_EQ(Put(id, Soon()), RingEnd::kDone) << "a survivor cannot put";
      ASSERT_EQ(ring_.ApproxSize(), 1u);
      ASSERT_EQ(Get(Soon()), id) << "a survivor cannot get";
    }
    EXPECT_EQ(Get(Deadline::Now()), kNothing);
    EXPECT_EQ(OpenDescriptors(), open);
    if (posted()) {
      EXPECT_FALSE(os::TryDrop(ring_.out())) << "left over in the socket";
    }
  }

  int Fill() {
    int count = 0;
    while (Put(count + 1, Deadline::Now()) == RingEnd::kDone) ++count;
    EXPECT_GT(count, 1);
    return count;
  }

  // So that the next record of three units goes around the end.
  void GoToTheEnd() {
    for (int i = 0; i < 6; ++i) {
      ASSERT_EQ(Put(i, Deadline::Now()), RingEnd::kDone);
      ASSERT_EQ(Get(Deadline::Now()), i);
    }
  }

  static bool Await(const std::function<bool()>& what) {
    const Deadline until = Soon();
    while (!what()) {
      if (until.Passed()) return false;
      sched_yield();
    }
    return true;
  }

  std::function<void()> GetterTelling(int which) {
    return [this, which] {
      told_->got[which] = Get(Deadline::After(seconds(10)));
    };
  }
  std::function<void()> PutterTelling(int which, int id) {
    return [this, which, id] {
      const RingEnd end = Put(id, Deadline::After(seconds(10)));
      told_->got[which] = end == RingEnd::kDone     ? id
                          : end == RingEnd::kClosed ? kEnded
                                                    : kNothing;
    };
  }

  static void ExpectSurvives(KillScenario scenario, int64_t at_least = 50,
                             KillOptions options = {}) {
    options.first_kills = 5;
    if (posted()) {
      scenario.name += ", with descriptors";
      // The same way as without them, and some system calls, with less to
      // repair than there are instructions between.
      options.first_kills = 3;
      options.stride = std::max<int64_t>(options.stride, 5);
    }
    const KillReport report = KillAtEveryInstruction(scenario, options);
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GE(report.points, at_least / options.stride) << report;
  }

  Ring ring_;
  Shared<Told> told_;
  std::array<os::Descriptor, kFiles> files_;

 private:
  std::array<unsigned char, 256 + kLong> pattern_;
};

TEST_P(RingCrashTest, Put) {
  for (const size_t size : {kSmall, kLong}) {
    ExpectSurvives({.name = size == kSmall ? "queue/put" : "queue/put, long",
                    .setup = [&] { Fresh(); },
                    .prepare = Warm,
                    .operation = [&, size] { Put(1, Soon(), size); },
                    .check =
                        [&](const KillPoint& point) {
                          const bool accepted = ring_.ApproxSize() == 1;
                          if (point.finished()) {
                            EXPECT_TRUE(accepted);
                          }
                          // On top of what is there, and counted with it.
                          ASSERT_EQ(Put(2, Soon()), RingEnd::kDone);
                          EXPECT_EQ(ring_.ApproxSize(), accepted ? 2u : 1u);
                          const std::vector<int> ids = Drain();
                          if (accepted) {
                            EXPECT_THAT(ids, ElementsAre(1, 2));
                          } else {
                            EXPECT_THAT(ids, ElementsAre(2));
                          }
                          CheckUsable();
                        }});
  }
}

TEST_P(RingCrashTest, PutAroundTheEnd) {
  ExpectSurvives({.name = "queue/put, around the end",
                  .setup =
                      [&] {
                        Fresh();
                        GoToTheEnd();
                      },
                  .prepare = Warm,
                  .operation = [&] { Put(1, Soon(), kLong); },
                  .check =
                      [&](const KillPoint& point) {
                        const std::vector<int> ids = Drain();
                        EXPECT_THAT(ids, AnyOf(ElementsAre(), ElementsAre(1)));
                        if (point.finished()) {
                          EXPECT_EQ(ids.size(), 1u);
                        }
                        CheckUsable();
                      }});
}

TEST_P(RingCrashTest, PutWhileAConsumerSleeps) {
  ExpectSurvives({.name = "queue/put, consumer asleep",
                  .setup = [&] { Fresh(); },
                  .prepare = Warm,
                  .operation = [&] { Put(1, Soon()); },
                  .sleepers = {GetterTelling(0)},
                  .check =
                      [&](const KillPoint& point) {
                        // Nothing is done for the sleeper that might wake it.
                        const bool accepted = point.SleeperReturned(0) ||
                                              ring_.ApproxSize() > 0 ||
                                              RingTestPeer::Head(ring_) != 0;
                        if (point.finished()) {
                          EXPECT_TRUE(accepted);
                        }
                        if (!accepted) {
                          ASSERT_EQ(Put(2, Soon()), RingEnd::kDone);
                        }
                        ASSERT_TRUE(point.AwaitSleeper(0)) << "it sleeps on";
                        EXPECT_EQ(told_->got[0], accepted ? 1 : 2);
                        CheckUsable();
                      }});
}

TEST_P(RingCrashTest, PutOntoAFullRingInVain) {
  int count = 0;
  for (const uint64_t max_items : {0, 3}) {
    ExpectSurvives(
        {.name = max_items == 0 ? "queue/put, full of bytes, no time"
                                : "queue/put, full of items, no time",
         .setup =
             [&, max_items] {
               Fresh(max_items);
               count = Fill();
             },
         .prepare = Warm,
         .operation =
             [&] { EXPECT_EQ(Put(99, Deadline::Now()), RingEnd::kLate); },
         .check =
             [&](const KillPoint&) {
               std::vector<int> all;
               for (int id = 1; id <= count; ++id) all.push_back(id);
               EXPECT_EQ(Drain(), all);
               CheckUsable();
             }},
        30);
  }
}

TEST_P(RingCrashTest, PutThatWaitsForRoomWithAnotherBehindIt) {
  int count = 0;
  for (const uint64_t max_items : {0, 3}) {
    ExpectSurvives(
        {.name = max_items == 0 ? "queue/put asleep on bytes, another behind"
                                : "queue/put asleep on items, another behind",
         .setup =
             [&, max_items] {
               Fresh(max_items);
               count = Fill();
             },
         .prepare = Warm,
         .operation = [&] { Put(98, Deadline::After(seconds(10))); },
         .while_blocked = [&] { ASSERT_EQ(Get(Soon()), 1); },
         .sleepers_behind = {PutterTelling(0, 99)},
         .check =
             [&](const KillPoint& point) {
               // The room that was made is used, by the one or by the other.
               ASSERT_TRUE(Await([&] {
                 return ring_.ApproxSize() == static_cast<uint64_t>(count);
               })) << "there is room, and a producer sleeps on";
               std::vector<int> ids = Drain();
               ASSERT_TRUE(point.AwaitSleeper(0)) << "a producer sleeps on";
               for (int id : Drain()) ids.push_back(id);
               std::vector<int> expected;
               for (int id = 2; id <= count; ++id) expected.push_back(id);
               if (ids.size() > expected.size() + 1) expected.push_back(98);
               expected.push_back(99);
               if (point.finished()) {
                 EXPECT_EQ(ids.size(), static_cast<size_t>(count) + 1);
               }
               EXPECT_EQ(ids, expected);
               CheckUsable();
             }},
        100);
  }
}

TEST_P(RingCrashTest, PutIntoAClosedRing) {
  ExpectSurvives(
      {.name = "queue/put, closed",
       .setup =
           [&] {
             Fresh();
             ASSERT_EQ(Put(1, Soon()), RingEnd::kDone);
             ring_.Close();
           },
       .prepare = Warm,
       .operation = [&] { EXPECT_EQ(Put(2, Soon()), RingEnd::kClosed); },
       .check =
           [&](const KillPoint&) {
             EXPECT_EQ(Put(3, Soon()), RingEnd::kClosed);
             EXPECT_EQ(Get(Soon()), 1);
             EXPECT_EQ(Get(Soon()), kEnded);
           }},
      20);
}

TEST_P(RingCrashTest, Get) {
  for (const size_t size : {kSmall, kLong}) {
    ExpectSurvives({.name = size == kSmall ? "queue/get" : "queue/get, long",
                    .setup =
                        [&, size] {
                          Fresh();
                          ASSERT_EQ(Put(1, Soon(), size), RingEnd::kDone);
                          ASSERT_EQ(Put(2, Soon(), kSmall), RingEnd::kDone);
                        },
                    .prepare = Warm,
                    .operation = [&] { Take(Soon()); },
                    .check =
                        [&](const KillPoint& point) {
                          const bool taken = RingTestPeer::Head(ring_) != 0;
                          EXPECT_EQ(ring_.ApproxSize(), taken ? 1u : 2u);
                          if (point.finished()) {
                            EXPECT_TRUE(taken);
                          }
                          const std::vector<int> ids = Drain();
                          if (taken) {
                            EXPECT_THAT(ids, ElementsAre(2));
                          } else {
                            EXPECT_THAT(ids, ElementsAre(1, 2));
                          }
                          CheckUsable();
                        }});
  }
}

TEST_P(RingCrashTest, GetAroundTheEnd) {
  ExpectSurvives({.name = "queue/get, around the end",
                  .setup =
                      [&] {
                        Fresh();
                        GoToTheEnd();
                        ASSERT_EQ(Put(1, Soon(), kLong), RingEnd::kDone);
                        ASSERT_EQ(Put(2, Soon(), kLong), RingEnd::kDone);
                      },
                  .prepare = Warm,
                  .operation = [&] { Take(Soon()); },
                  .check =
                      [&](const KillPoint& point) {
                        const std::vector<int> ids = Drain();
                        EXPECT_THAT(ids,
                                    AnyOf(ElementsAre(1, 2), ElementsAre(2)));
                        if (point.finished()) {
                          EXPECT_THAT(ids, ElementsAre(2));
                        }
                        CheckUsable();
                      }});
}

TEST_P(RingCrashTest, GetWhileAProducerSleeps) {
  int count = 0;
  for (const uint64_t max_items : {0, 3}) {
    ExpectSurvives(
        {.name = max_items == 0 ? "queue/get, producer asleep on bytes"
                                : "queue/get, producer asleep on items",
         .setup =
             [&, max_items] {
               Fresh(max_items);
               count = Fill();
             },
         .prepare = Warm,
         .operation = [&] { Take(Soon()); },
         .sleepers = {PutterTelling(0, 99)},
         .check =
             [&](const KillPoint& point) {
               const bool taken = RingTestPeer::Head(ring_) != 0;
               if (point.finished()) {
                 EXPECT_TRUE(taken);
               }
               if (taken) {
                 ASSERT_TRUE(point.AwaitSleeper(0))
                     << "there is room, and the producer sleeps on";
               }
               std::vector<int> ids = Drain();
               ASSERT_TRUE(point.AwaitSleeper(0)) << "the producer sleeps on";
               for (int id : Drain()) ids.push_back(id);
               std::vector<int> expected;
               for (int id = taken ? 2 : 1; id <= count; ++id) {
                 expected.push_back(id);
               }
               expected.push_back(99);
               EXPECT_EQ(ids, expected);
               EXPECT_EQ(told_->got[0], 99);
               CheckUsable();
             }});
  }
}

TEST_P(RingCrashTest, GetFromAnEmptyRingInVain) {
  ExpectSurvives(
      {.name = "queue/get, empty, no time",
       .setup = [&] { Fresh(); },
       .prepare = Warm,
       .operation = [&] { EXPECT_EQ(Take(Deadline::Now()), RingEnd::kLate); },
       .check = [&](const KillPoint&) { CheckUsable(); }},
      20);
}

TEST_P(RingCrashTest, WaitThatTimesOut) {
  ExpectSurvives({.name = "queue/get, empty, time runs out",
                  .setup = [&] { Fresh(); },
                  .prepare = Warm,
                  .operation =
                      [&] {
                        EXPECT_EQ(Take(Deadline::After(milliseconds(1))),
                                  RingEnd::kLate);
                      },
                  .check = [&](const KillPoint&) { CheckUsable(); }},
                 20);
}

TEST_P(RingCrashTest, GetThatWaitsWithAnotherBehindIt) {
  ExpectSurvives(
      {.name = "queue/get asleep, another behind",
       .setup = [&] { Fresh(); },
       .prepare = Warm,
       .operation = [&] { Take(Deadline::After(seconds(10))); },
       .while_blocked = [&] { ASSERT_EQ(Put(1, Soon()), RingEnd::kDone); },
       .sleepers_behind = {GetterTelling(0)},
       .check =
           [&](const KillPoint& point) {
             // The message goes to the victim or, without anybody's help, to
             // the other.
             ASSERT_TRUE(Await([&] { return RingTestPeer::Head(ring_) != 0; }))
                 << "there is a message, and a consumer sleeps on";
             ASSERT_EQ(Put(2, Soon()), RingEnd::kDone);
             ASSERT_TRUE(point.AwaitSleeper(0)) << "a consumer sleeps on";
             const std::vector<int> ids = Drain();
             if (told_->got[0] == 1) {
               EXPECT_FALSE(point.finished());
               EXPECT_THAT(ids, ElementsAre(2));
             } else {
               EXPECT_EQ(told_->got[0], 2);
               EXPECT_THAT(ids, ElementsAre());
             }
             CheckUsable();
           }},
      100);
}

// Two messages for two sleepers, of which the one that was woken dies: the
// other must not wait for a third message.
TEST_P(RingCrashTest, WokenConsumerOwesAWakeUp) {
  ExpectSurvives(
      {.name = "queue/get woken for two, another behind",
       .setup = [&] { Fresh(); },
       .prepare = Warm,
       .operation = [&] { Take(Deadline::After(seconds(10))); },
       .while_blocked =
           [&] {
             ASSERT_EQ(Put(1, Soon()), RingEnd::kDone);
             ASSERT_EQ(Put(2, Soon()), RingEnd::kDone);
           },
       .sleepers_behind = {GetterTelling(0)},
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0)) << "a consumer sleeps on";
             const int got = told_->got[0];
             EXPECT_THAT(got, AnyOf(1, 2));
             const std::vector<int> ids = Drain();
             // Whichever the other got: its slice may end while the victim,
             // woken first, is on its way.
             if (point.finished() || got == 2) {
               EXPECT_THAT(ids, ElementsAre());
             } else {
               EXPECT_THAT(ids, AnyOf(ElementsAre(), ElementsAre(2)));
             }
             CheckUsable();
           }},
      100);
}

TEST_P(RingCrashTest, Close) {
  for (const bool full : {false, true}) {
    int count = 0;
    ExpectSurvives(
        {.name = full ? "queue/close, producer asleep"
                      : "queue/close, consumer asleep",
         .setup =
             [&, full] {
               Fresh();
               count = full ? Fill() : 0;
             },
         .prepare = Warm,
         .operation = [&] { ring_.Close(); },
         .sleepers = {full ? PutterTelling(0, 99) : GetterTelling(0)},
         .check =
             [&](const KillPoint& point) {
               const bool closed = RingTestPeer::State(ring_) != 0;
               if (point.finished()) {
                 EXPECT_TRUE(closed);
               }
               if (!closed) ring_.Close();
               ASSERT_TRUE(point.AwaitSleeper(0)) << "it sleeps on";
               EXPECT_EQ(told_->got[0], kEnded);
               EXPECT_EQ(Put(1, Soon()), RingEnd::kClosed);
               for (int id = 1; id <= count; ++id) EXPECT_EQ(Get(Soon()), id);
               EXPECT_EQ(Get(Soon()), kEnded);
             }});
  }
}

// A producer dies, and the next one, who repairs, dies as well.
TEST_P(RingCrashTest, PutAfterADeadProducer) {
  ExpectSurvives(
      {.name = "queue/put, recoverer killed",
       .setup =
           [&] {
             Fresh();
             ASSERT_EQ(Put(1, Soon()), RingEnd::kDone);
           },
       .prepare = Warm,
       .operation = [&] { Put(2, Soon()); },
       .recover = [&] { Put(3, Soon()); },
       .check =
           [&](const KillPoint& point) {
             const std::vector<int> ids = Drain();
             EXPECT_THAT(ids, AnyOf(ElementsAre(1), ElementsAre(1, 2),
                                    ElementsAre(1, 3), ElementsAre(1, 2, 3)));
             if (point.finished()) {
               EXPECT_THAT(ids, AnyOf(ElementsAre(1, 2), ElementsAre(1, 2, 3)));
             }
             if (point.recovery_finished()) {
               EXPECT_EQ(ids.back(), 3);
             }
             CheckUsable();
           }},
      500);
}

TEST_P(RingCrashTest, GetAfterADeadConsumer) {
  ExpectSurvives({.name = "queue/get, recoverer killed",
                  .setup =
                      [&] {
                        Fresh();
                        for (int id : {1, 2, 3})
                          ASSERT_EQ(Put(id, Soon()), RingEnd::kDone);
                      },
                  .prepare = Warm,
                  .operation = [&] { Take(Soon()); },
                  .recover = [&] { Take(Soon()); },
                  .check =
                      [&](const KillPoint& point) {
                        const std::vector<int> ids = Drain();
                        EXPECT_THAT(
                            ids, AnyOf(ElementsAre(1, 2, 3), ElementsAre(2, 3),
                                       ElementsAre(3)));
                        if (point.finished() && point.recovery_finished()) {
                          EXPECT_THAT(ids, ElementsAre(3));
                        }
                        CheckUsable();
                      }},
                 500);
}

TEST_P(RingCrashTest, CloseAfterADeadProducer) {
  ExpectSurvives({.name = "queue/put, then a closer killed",
                  .setup = [&] { Fresh(); },
                  .prepare = Warm,
                  .operation = [&] { Put(1, Soon()); },
                  .recover = [&] { ring_.Close(); },
                  .check =
                      [&](const KillPoint& point) {
                        if (RingTestPeer::State(ring_) == 0) {
                          EXPECT_FALSE(point.recovery_finished());
                          ring_.Close();
                        }
                        const int got = Get(Soon());
                        if (got != kEnded) {
                          EXPECT_EQ(got, 1);
                          EXPECT_EQ(Get(Soon()), kEnded);
                        } else {
                          EXPECT_FALSE(point.finished());
                        }
                      }},
                 500);
}

// To have a handle, or to lose one, changes nothing for the others.
TEST_P(RingCrashTest, CreateAndAttach) {
  KillOptions sparsely;
  sparsely.stride = 13;
  ExpectSurvives(
      {.name = "queue/create, attach",
       .setup =
           [&] {
             Fresh();
             ASSERT_EQ(Put(1, Soon()), RingEnd::kDone);
           },
       .prepare = Warm,
       .operation =
           [&] {
             absl::StatusOr<Ring> made =
                 Ring::Create({.capacity = 512,
                               .type_tag = kTag,
                               .carries_descriptors = posted()});
             EXPECT_TRUE(made.ok());
             absl::StatusOr<os::Descriptor> twin =
                 ring_.region().descriptor().Duplicate();
             absl::StatusOr<Region> region = Region::Attach(*std::move(twin));
             if (posted()) {
               EXPECT_TRUE(Ring::Attach(*std::move(region), kTag,
                                        OrDie(ring_.in().Duplicate()),
                                        OrDie(ring_.out().Duplicate()))
                               .ok());
             } else {
               EXPECT_TRUE(Ring::Attach(*std::move(region), kTag).ok());
             }
           },
       .check =
           [&](const KillPoint&) {
             EXPECT_THAT(Drain(), ElementsAre(1));
             CheckUsable();
           }},
      50, sparsely);
}

INSTANTIATE_TEST_SUITE_P(, RingCrashTest, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& info) {
                           return info.param ? "WithDescriptors" : "Plain";
                         });

// What only messages with descriptors go through.
class PostedRingCrashTest : public RingCrashTest {
 protected:
  // So that few messages fill the socket.
  void Narrow() const {
    const int least = 0;
    ASSERT_EQ(setsockopt(ring_.in().get(), SOL_SOCKET, SO_SNDBUF, &least,
                         sizeof(least)),
              0);
  }
};

// The descriptors of those who died before they committed fill the socket, and
// no record is there whose consumer would empty it.
TEST_P(PostedRingCrashTest, PutBehindTheLeftoversOfTheDead) {
  int left = 0;
  ExpectSurvives(
      {.name = "queue/put, socket full of leftovers",
       .setup =
           [&] {
             Fresh();
             Narrow();
             for (left = 0; RingTestPeer::LeaveBehind(ring_, files_[0]);) {
               ++left;
             }
             ASSERT_GT(left, 1);
           },
       .prepare = Warm,
       .operation = [&] { Put(1, Soon()); },
       .recover = [&] { Put(2, Soon()); },
       .check =
           [&](const KillPoint& point) {
             const std::vector<int> ids = Drain();
             EXPECT_THAT(ids, AnyOf(ElementsAre(), ElementsAre(1),
                                    ElementsAre(2), ElementsAre(1, 2)));
             if (point.finished()) {
               EXPECT_FALSE(ids.empty());
             }
             if (point.recovery_finished()) {
               EXPECT_EQ(ids.back(), 2);
             }
             CheckUsable();
           }});
}

// There is room in the ring, and none in the socket.
TEST_P(PostedRingCrashTest, PutThatWaitsForTheSocket) {
  int count = 0;
  ExpectSurvives({.name = "queue/put asleep on a full socket, another behind",
                  .setup =
                      [&] {
                        Fresh(0, 8192);
                        Narrow();
                        count = Fill();
                        ASSERT_LT(count, 20);
                      },
                  .prepare = Warm,
                  .operation = [&] { Put(98, Deadline::After(seconds(10))); },
                  .while_blocked = [&] { ASSERT_EQ(Get(Soon()), 1); },
                  .sleepers_behind = {PutterTelling(0, 99)},
                  .check =
                      [&](const KillPoint& point) {
                        // Until somebody gets another message: what a dead producer sent
                        // takes the room that was made.
                        std::vector<int> ids = Drain();
                        ASSERT_TRUE(point.AwaitSleeper(0))
                            << "a producer sleeps on";
                        for (int id : Drain()) ids.push_back(id);
                        EXPECT_EQ(ids.back(), 99);
                        if (point.finished()) {
                          EXPECT_EQ(ids.size(), static_cast<size_t>(count) + 1);
                        }
                        CheckUsable();
                      }},
                 100);
}

// Whoever has no numbers left leaves the message to others.
TEST_P(PostedRingCrashTest, GetWithoutNumbers) {
  ExpectSurvives(
      {.name = "queue/get, no numbers left",
       .setup =
           [&] {
             Fresh();
             ASSERT_EQ(Put(1, Soon()), RingEnd::kDone);
           },
       .prepare =
           [&] {
             Warm();
             const rlimit none = {0, 0};
             ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
           },
       .operation =
           [&] { EXPECT_EQ(Take(Deadline::Now()), RingEnd::kNoNumbers); },
       .check =
           [&](const KillPoint&) {
             EXPECT_THAT(Drain(), ElementsAre(1));
             CheckUsable();
           }});
}

INSTANTIATE_TEST_SUITE_P(, PostedRingCrashTest, testing::Values(true),
                         [](const auto&) { return "WithDescriptors"; });

}  // namespace
}  // namespace cohort::ipc_internal

// Spinning waiters execute thousands of instructions, all alike. So this
// program begins bound to one processor, where nobody spins and each run takes
// the same way; killed spinners are for ring_stress_test.
int main(int argc, char** argv) {
  if (cohort::os::RivalsCanRun()) {
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    if (sched_setaffinity(0, sizeof(here), &here) == 0) {
      execv("/proc/self/exe", argv);
    }
    std::perror("ring_crash_test: cannot start again on one processor");
    return 1;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
