// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of what it does with its end of a pipe.
// Whoever has the other end then receives all that was sent, once, and is told
// of the end, asleep or awake; an end that was on its way arrives or is closed.

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/pipe.h"
#include "cohort/os/robust.h"
#include "cohort/testing/kill_stepper.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillOptions;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;
using cohort_testing::KillScenario;
using cohort_testing::Shared;

constexpr int kEnd = -1;
constexpr int kNothing = -2;
constexpr int64_t kLongStride = 19;
constexpr int64_t kLongestStride = 97;

class PipeCrashTest : public testing::Test {
 protected:
  struct Ends {
    PipeEnd left, right;
  };

  // Small, so that a large message need not be very large.
  static Ends Make() {
    absl::StatusOr<std::pair<PipeEnd, PipeEnd>> ends =
        CreatePipe({.bytes = 4096});
    EXPECT_TRUE(ends.ok()) << ends.status();
    return {std::move(ends->first), std::move(ends->second)};
  }

  // Fresh pipes; the victim's end is on its way to it, so that nobody but the
  // victim has it when it dies.
  void Fresh() {
    carrier_ = Make();
    ends_ = Make();
    other_ = Make();
    *told_ = kNothing;
  }
  void FreshWithLeftForTheVictim() {
    Fresh();
    ASSERT_TRUE(carrier_.left.Send(std::move(ends_.left)).ok());
  }
  void Adopt() {
    (void)os::RobustThread::Self();
    absl::StatusOr<PipeEnd> end = carrier_.right.Recv<PipeEnd>();
    if (end.ok()) ends_.left = *std::move(end);
  }

  // What an end receives next: a number or its end.
  static int Next(const PipeEnd& end) {
    const absl::StatusOr<int> number = end.Recv<int>();
    if (number.ok()) return *number;
    EXPECT_TRUE(absl::IsOutOfRange(number.status())) << number.status();
    return kEnd;
  }

  static void CheckAlone(const PipeEnd& end) {
    EXPECT_EQ(Next(end), kEnd);
    EXPECT_TRUE(end.Poll());
    EXPECT_TRUE(absl::IsUnavailable(end.Send(1)));
  }

  // A victim does beforehand once what it will be killed in, where it can: so its
  // way does not depend on what malloc has at hand.
  //
  // The rings have crash tests of their own, with sleeping victims too. So not
  // each instruction in a daily run, but a prime stride.
  static void Run(const KillScenario& scenario, int64_t stride = 7) {
    const KillReport report =
        KillAtEveryInstruction(scenario, KillOptions{.stride = stride});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 50);
  }

  static std::string Large() { return std::string(2000, 'x'); }

  Ends carrier_;
  Ends ends_;
  Ends other_;
  Shared<std::atomic<int>> told_;
};

TEST_F(PipeCrashTest, Send) {
  Run({.name = "pipe/send",
       .setup = [&] { FreshWithLeftForTheVictim(); },
       .prepare = [&] { Adopt(); },
       .operation = [&] { ends_.left.Send(5).IgnoreError(); },
       .check =
           [&](const KillPoint& point) {
             const int next = Next(ends_.right);
             EXPECT_TRUE(next == 5 || (next == kEnd && !point.finished()));
             CheckAlone(ends_.right);
           }});
}

TEST_F(PipeCrashTest, SendWhileTheReceiverSleeps) {
  Run({.name = "pipe/send, receiver asleep",
       .setup = [&] { FreshWithLeftForTheVictim(); },
       .prepare = [&] { Adopt(); },
       .operation = [&] { ends_.left.Send(5).IgnoreError(); },
       .sleepers = {[&] { *told_ = Next(ends_.right); }},
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             EXPECT_TRUE(*told_ == 5 || (*told_ == kEnd && !point.finished()));
             CheckAlone(ends_.right);
           }},
      kLongStride);
}

TEST_F(PipeCrashTest, SendOfALargeMessage) {
  const std::string large = Large();
  Run({.name = "pipe/send, large",
       .setup = [&] { FreshWithLeftForTheVictim(); },
       .prepare = [&] { Adopt(); },
       .operation = [&] { ends_.left.SendBytes(large).IgnoreError(); },
       .check =
           [&](const KillPoint& point) {
             const absl::StatusOr<std::string> bytes = ends_.right.RecvBytes();
             if (bytes.ok()) {
               EXPECT_EQ(*bytes, large);
             } else {
               EXPECT_TRUE(absl::IsOutOfRange(bytes.status()));
               EXPECT_FALSE(point.finished());
             }
             CheckAlone(ends_.right);
           }},
      kLongStride);
}

TEST_F(PipeCrashTest, Recv) {
  Run({.name = "pipe/recv",
       .setup =
           [&] {
             FreshWithLeftForTheVictim();
             ASSERT_TRUE(ends_.right.Send(5).ok());
             ASSERT_TRUE(ends_.right.Send(6).ok());
           },
       .prepare = [&] { Adopt(); },
       .operation = [&] { (void)ends_.left.Recv<int>(); },
       .check = [&](const KillPoint&) { CheckAlone(ends_.right); }});
}

// The other holder of the same end gets what the dead one did not take.
TEST_F(PipeCrashTest, RecvWithATwin) {
  Run({.name = "pipe/recv, end in two hands",
       .setup =
           [&] {
             Fresh();
             ASSERT_TRUE(ends_.right.Send(4).ok());
             ASSERT_TRUE(ends_.right.Send(5).ok());
             ASSERT_TRUE(ends_.right.Send(6).ok());
           },
       .prepare = [&] { (void)ends_.left.Recv<int>(); },
       .operation = [&] { (void)ends_.left.Recv<int>(); },
       .check =
           [&](const KillPoint& point) {
             int next = Next(ends_.left);
             if (next == 5) {
               EXPECT_FALSE(point.finished());
               next = Next(ends_.left);
             }
             EXPECT_EQ(next, 6);
             EXPECT_TRUE(ends_.right.Send(7).ok());
             EXPECT_EQ(Next(ends_.left), 7);
             ends_.right = PipeEnd();  // The test's own process has it, too.
             EXPECT_FALSE(ends_.left.Poll());
           }});
}

TEST_F(PipeCrashTest, RecvOfALargeMessage) {
  Run({.name = "pipe/recv, large",
       .setup =
           [&] {
             FreshWithLeftForTheVictim();
             ASSERT_TRUE(ends_.right.SendBytes(Large()).ok());
           },
       .prepare = [&] { Adopt(); },
       .operation = [&] { (void)ends_.left.RecvBytes(); },
       .check = [&](const KillPoint&) { CheckAlone(ends_.right); }},
      kLongestStride);
}

TEST_F(PipeCrashTest, Drop) {
  Run({.name = "pipe/drop, receiver asleep",
       .setup = [&] { FreshWithLeftForTheVictim(); },
       .prepare = [&] { Adopt(); },
       .operation = [&] { ends_.left = PipeEnd(); },
       .sleepers = {[&] { *told_ = Next(ends_.right); }},
       .check =
           [&](const KillPoint& point) {
             ASSERT_TRUE(point.AwaitSleeper(0));
             EXPECT_EQ(*told_, kEnd);
             CheckAlone(ends_.right);
           }},
      kLongStride);
}

TEST_F(PipeCrashTest, SendOfAnEnd) {
  Run({.name = "pipe/send, an end",
       .setup =
           [&] {
             Fresh();
             ASSERT_TRUE(carrier_.left.Send(std::move(ends_.left)).ok());
             ASSERT_TRUE(carrier_.left.Send(std::move(other_.left)).ok());
           },
       .prepare =
           [&] {
             Adopt();
             absl::StatusOr<PipeEnd> end = carrier_.right.Recv<PipeEnd>();
             if (end.ok()) other_.left = *std::move(end);
           },
       .operation =
           [&] { ends_.left.Send(std::move(other_.left)).IgnoreError(); },
       .check =
           [&](const KillPoint& point) {
             absl::StatusOr<PipeEnd> end = ends_.right.Recv<PipeEnd>();
             if (end.ok()) {
               EXPECT_TRUE(end->Send(8).ok());
               EXPECT_EQ(Next(other_.right), 8);
               *end = PipeEnd();
             } else {
               EXPECT_TRUE(absl::IsOutOfRange(end.status())) << end.status();
               EXPECT_FALSE(point.finished());
               // What the dead one had sent beside the ring, but not yet in it,
               // goes with the last handle of this pipe.
               ends_.right = PipeEnd();
             }
           }},
      kLongestStride);
}

TEST_F(PipeCrashTest, RecvOfAnEnd) {
  Run({.name = "pipe/recv, an end",
       .setup =
           [&] {
             Fresh();
             ASSERT_TRUE(carrier_.left.Send(std::move(other_.left)).ok());
             ASSERT_TRUE(carrier_.left.Send(std::move(ends_.left)).ok());
           },
       .prepare = [&] { (void)carrier_.right.Recv<PipeEnd>(); },
       .operation = [&] { (void)carrier_.right.Recv<PipeEnd>(); },
       .check =
           [&](const KillPoint& point) {
             // The next who receives gets it, or it died with the victim.
             absl::StatusOr<PipeEnd> end =
                 carrier_.right.Recv<PipeEnd>(absl::ZeroDuration());
             if (end.ok()) {
               EXPECT_FALSE(point.finished());
               EXPECT_TRUE(end->Send(8).ok());
               EXPECT_EQ(Next(ends_.right), 8);
             }
           }},
      kLongestStride);
}

}  // namespace
}  // namespace cohort
