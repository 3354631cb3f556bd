// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/pipe.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/ipc/internal/ring.h"
#include "cohort/ipc/queue.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::IsOkAndHolds;
using cohort_testing::KilledBy;
using cohort_testing::StatusIs;
using testing::HasSubstr;

constexpr absl::Duration kNow = absl::ZeroDuration();
constexpr absl::Duration kSoon = absl::Milliseconds(1);

struct Job {
  int id = 0;
  std::string path;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(id, path);
  }
};

// Values with an end in them.
struct Parcel {
  std::string label;
  PipeEnd end;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(label, end);
  }
};

class PipeTest : public testing::Test {
 protected:
  struct Ends {
    PipeEnd left, right;
  };

  static Ends Make(const PipeOptions& options = {}) {
    absl::StatusOr<std::pair<PipeEnd, PipeEnd>> ends = CreatePipe(options);
    EXPECT_OK(ends);
    return {std::move(ends->first), std::move(ends->second)};
  }

  static std::string Pattern(size_t size) {
    std::string bytes(size, '\0');
    std::minstd_rand random(static_cast<unsigned>(size) + 1);
    for (char& byte : bytes) byte = static_cast<char>(random());
    return bytes;
  }

 private:
  cohort_testing::LeakGuard guard_;
};

TEST_F(PipeTest, AnyTypePerMessageBothWays) {
  const Ends ends = Make();
  ASSERT_OK(ends.left.Send(std::map<std::string, int>{{"x", 1}}));
  ASSERT_OK(ends.left.Send(5));
  ASSERT_OK(ends.left.Send("text"));
  ASSERT_OK(ends.right.Send(Job{7, "/a"}));
  const std::vector<int> lvalue = {1, 2, 3};
  ASSERT_OK(ends.right.Send(lvalue));
  EXPECT_THAT((ends.right.Recv<std::map<std::string, int>>(absl::Seconds(1))),
              IsOkAndHolds(std::map<std::string, int>{{"x", 1}}));
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(5));
  EXPECT_THAT(ends.right.Recv<std::string>(), IsOkAndHolds("text"));
  ASSERT_OK_AND_ASSIGN(const Job job, ends.left.Recv<Job>());
  EXPECT_EQ(job.id, 7);
  EXPECT_EQ(job.path, "/a");
  EXPECT_THAT(ends.left.Recv<std::vector<int>>(), IsOkAndHolds(lvalue));
  for (const PipeEnd* end : {&ends.left, &ends.right}) {
    EXPECT_THAT(end->Recv<int>(kNow),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
    EXPECT_THAT(end->Recv<int>(kSoon),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
    EXPECT_THAT(end->Recv<int>(-absl::InfiniteDuration()),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
  }
}

TEST_F(PipeTest, MessageOfAnotherTypeStaysTheNext) {
  const Ends ends = Make();
  ASSERT_OK(ends.left.Send(5));
  ASSERT_OK(ends.left.SendBytes("bytes"));
  ASSERT_OK(ends.left.Send(Pattern(1 << 20)));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(ends.right.Recv<int64_t>(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("another type")));
    EXPECT_THAT(ends.right.RecvBytes(),
                StatusIs(absl::StatusCode::kFailedPrecondition));
  }
  EXPECT_TRUE(ends.right.Poll());
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(5));
  EXPECT_THAT(ends.right.Recv<std::string>(),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(ends.right.RecvBytes(), IsOkAndHolds("bytes"));
  EXPECT_THAT(ends.right.Recv<int>(),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(ends.right.Recv<std::string>(), IsOkAndHolds(Pattern(1 << 20)));
  EXPECT_FALSE(ends.right.Poll());
}

TEST_F(PipeTest, BytesAreNeverMerged) {
  const Ends ends = Make();
  ASSERT_OK(ends.left.SendBytes(""));
  ASSERT_OK(ends.left.SendBytes("abc"));
  ASSERT_OK(ends.left.SendBytes(std::string("\0d", 2)));
  EXPECT_TRUE(ends.right.Poll());  // An empty message counts.
  EXPECT_THAT(ends.right.RecvBytes(), IsOkAndHolds(""));
  EXPECT_THAT(
      ends.right.RecvBytes(absl::InfiniteDuration(), 2),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("has 3 bytes")));
  EXPECT_THAT(ends.right.RecvBytes(absl::InfiniteDuration(), 3),
              IsOkAndHolds("abc"));
  EXPECT_THAT(ends.right.RecvBytes(), IsOkAndHolds(std::string("\0d", 2)));
}

TEST_F(PipeTest, CarriesEverySize) {
  const Ends ends = Make({.bytes = 16 << 10});
  for (const size_t size : {0, 1, 47, 48, 49, 4000, 4086, 4087, 4088, 4089,
                            5000, 16 << 10, 100'000, 10'000'000}) {
    ASSERT_OK(ends.left.SendBytes(Pattern(size)));
    EXPECT_THAT(ends.right.RecvBytes(), IsOkAndHolds(Pattern(size))) << size;
    ASSERT_OK(ends.right.Send(Pattern(size)));
    EXPECT_THAT(ends.left.Recv<std::string>(), IsOkAndHolds(Pattern(size)));
  }
  // None of the large ones holds the sender up.
  for (int i = 0; i < 20; ++i) ASSERT_OK(ends.left.SendBytes(Pattern(50'000)));
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(ends.right.RecvBytes(), IsOkAndHolds(Pattern(50'000)));
  }
}

TEST_F(PipeTest, FullPipeWaitsForTheReceiver) {
  const Ends ends = Make({.bytes = 4096});
  int sent = 0;
  while (ends.left.Send(sent, kNow).ok()) ++sent;
  EXPECT_GT(sent, 30);
  EXPECT_THAT(ends.left.Send(sent, kSoon),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  Child child = Child::Fork([&] {
    for (int i = 0; i <= sent; ++i) {
      EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(i));
    }
  });
  ASSERT_OK(ends.left.Send(sent));
  EXPECT_EQ(child.Wait(), Exited(0));
}

// The end. --------------------------------------------------------------------

TEST_F(PipeTest, DroppedEndIsToldAfterTheLastMessage) {
  Ends ends = Make();
  ASSERT_OK(ends.left.Send(1));
  ends.left = PipeEnd();
  EXPECT_TRUE(ends.right.Poll());
  EXPECT_THAT(ends.right.Send(2), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(ends.right.SendBytes(Pattern(1 << 20)),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(ends.right.Poll());  // Nothing to wait for.
    EXPECT_THAT(ends.right.Recv<int>(),
                StatusIs(absl::StatusCode::kOutOfRange));
    EXPECT_THAT(ends.right.Recv<int>(kNow),
                StatusIs(absl::StatusCode::kOutOfRange));
    EXPECT_THAT(ends.right.RecvBytes(kSoon),
                StatusIs(absl::StatusCode::kOutOfRange));
  }
}

TEST_F(PipeTest, SleepingReceiverIsWokenByTheDrop) {
  Ends ends = Make();
  Child child = Child::Fork([&] {
    ends.left = PipeEnd();
    EXPECT_THAT(ends.right.Recv<int>(),
                StatusIs(absl::StatusCode::kOutOfRange));
  });
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  ends.right = PipeEnd();
  ends.left = PipeEnd();
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST_F(PipeTest, KilledProcessIsNoticedByReceiverAndSender) {
  for (const bool asleep : {false, true}) {
    Ends ends = Make({.bytes = 4096});
    Child peer = Child::Fork([&] {
      ends.left = PipeEnd();
      EXPECT_OK(ends.right.Send("last words"));
      pause();
    });
    ends.right = PipeEnd();
    ASSERT_TRUE(ends.left.Poll(absl::InfiniteDuration()));
    if (asleep) {
      Child survivor = Child::Fork([&] {
        EXPECT_THAT(ends.left.Recv<std::string>(), IsOkAndHolds("last words"));
        EXPECT_THAT(ends.left.Recv<std::string>(),
                    StatusIs(absl::StatusCode::kOutOfRange));
        // Waiting for room is in vain, too.
        EXPECT_THAT(ends.left.Send(1),
                    StatusIs(absl::StatusCode::kUnavailable));
      });
      ASSERT_TRUE(survivor.AwaitAsleepInFutex());
      peer.Kill(SIGKILL);
      EXPECT_EQ(peer.Wait(), KilledBy(SIGKILL));
      EXPECT_EQ(survivor.Wait(), Exited(0));
    } else {
      peer.Kill(SIGKILL);
      EXPECT_EQ(peer.Wait(), KilledBy(SIGKILL));
      EXPECT_THAT(ends.left.Send(1), StatusIs(absl::StatusCode::kUnavailable));
      EXPECT_THAT(ends.left.Recv<std::string>(), IsOkAndHolds("last words"));
      EXPECT_THAT(ends.left.Recv<std::string>(),
                  StatusIs(absl::StatusCode::kOutOfRange));
    }
  }
}

TEST_F(PipeTest, SenderThatWaitsForRoomNoticesTheDeath) {
  Ends ends = Make({.bytes = 4096});
  while (ends.left.Send(1, kNow).ok()) {
  }
  Child sender = Child::Fork([&] {
    ends.right = PipeEnd();
    EXPECT_THAT(ends.left.Send(2), StatusIs(absl::StatusCode::kUnavailable));
  });
  ASSERT_TRUE(sender.AwaitAsleepInFutex());
  ends.right = PipeEnd();
  EXPECT_EQ(sender.Wait(), Exited(0));
}

TEST_F(PipeTest, EndIsOpenAsLongAsAChildOfForkHasIt) {
  Ends ends = Make();
  Child child = Child::Fork([&] {
    ends.left = PipeEnd();
    EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
    EXPECT_OK(ends.right.Send(2));
    EXPECT_THAT(ends.right.Recv<int>(),
                StatusIs(absl::StatusCode::kOutOfRange));
  });
  ends.right = PipeEnd();  // The child's copy is unharmed.
  EXPECT_THAT(ends.left.Recv<int>(kSoon),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_OK(ends.left.Send(1));
  EXPECT_THAT(ends.left.Recv<int>(), IsOkAndHolds(2));
  ends.left = PipeEnd();
  EXPECT_EQ(child.Wait(), Exited(0));
}

// Whoever merely passed an end on must not be heard as a message.
TEST_F(PipeTest, DropOfACopyIsNoMessage) {
  Ends ends = Make();
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Child::Fork([] {}).Wait(), Exited(0));
    Child child = Child::Fork([&] { ends.left = PipeEnd(); });
    EXPECT_EQ(child.Wait(), Exited(0));
    EXPECT_FALSE(ends.right.Poll());
    EXPECT_THAT(ends.right.Recv<int>(kNow),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
    Child again = Child::Fork([&] { ends.left = PipeEnd(); });
    EXPECT_EQ(again.Wait(), Exited(0));
    ASSERT_OK(ends.left.Send(round));
    EXPECT_THAT(ends.right.Recv<int>(kNow), IsOkAndHolds(round));
  }
}

TEST_F(PipeTest, PollWaits) {
  Ends ends = Make();
  EXPECT_FALSE(ends.right.Poll());
  EXPECT_FALSE(ends.right.Poll(kSoon));
  Child child = Child::Fork([&] {
    ends.left = PipeEnd();
    EXPECT_TRUE(ends.right.Poll(absl::InfiniteDuration()));
    EXPECT_TRUE(ends.right.Poll());
    EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
    EXPECT_TRUE(ends.right.Poll(absl::InfiniteDuration()));
    EXPECT_THAT(ends.right.Recv<int>(),
                StatusIs(absl::StatusCode::kOutOfRange));
  });
  ends.right = PipeEnd();
  ASSERT_TRUE(child.AwaitAsleepInFutex());
  ASSERT_OK(ends.left.Send(1));
  ends.left = PipeEnd();
  EXPECT_EQ(child.Wait(), Exited(0));
}

// Ends and handles as values. -------------------------------------------------

TEST_F(PipeTest, EndTravelsThroughAnotherPipe) {
  Ends carrier = Make();
  Ends ends = Make();
  Child child = Child::Fork([&] {
    carrier.left = PipeEnd();
    ends = {};
    ASSERT_OK_AND_ASSIGN(const Parcel parcel, carrier.right.Recv<Parcel>());
    EXPECT_EQ(parcel.label, "yours");
    EXPECT_THAT(parcel.end.Recv<std::string>(), IsOkAndHolds("hello"));
    EXPECT_OK(parcel.end.Send(42));
  });
  Parcel parcel{"yours", std::move(ends.right)};
  EXPECT_TRUE(ends.right.empty_handle());
  ASSERT_OK(ends.left.Send("hello"));  // Before the other side has it.
  ASSERT_OK(carrier.left.Send(std::move(parcel)));
  EXPECT_TRUE(parcel.end.empty_handle());
  EXPECT_THAT(ends.left.Recv<int>(), IsOkAndHolds(42));
  // Nobody else has it: the child's end is the pipe's.
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_THAT(ends.left.Recv<int>(), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(PipeTest, EndInTransitIsNotClosed) {
  const Ends carrier = Make();
  Ends ends = Make();
  ASSERT_OK(carrier.left.Send(std::move(ends.right)));
  EXPECT_THAT(ends.left.Recv<int>(kSoon),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  ASSERT_OK(ends.left.Send(1));
  ASSERT_OK_AND_ASSIGN(PipeEnd right, carrier.right.Recv<PipeEnd>());
  EXPECT_THAT(right.Recv<int>(), IsOkAndHolds(1));
  right = PipeEnd();
  EXPECT_THAT(ends.left.Send(1), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(PipeTest, EndIsKeptWhereItCouldNotBeSent) {
  Ends carrier = Make();
  Ends ends = Make();
  carrier.right = PipeEnd();
  EXPECT_THAT(carrier.left.Send(std::move(ends.right)),
              StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_FALSE(ends.right.empty_handle());  // NOLINT(bugprone-use-after-move)
  ASSERT_OK(ends.left.Send(1));
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
}

TEST_F(PipeTest, EndLeftToBothIsOneEndInTwoHands) {
  const Ends carrier = Make();
  Ends ends = Make();
  ASSERT_OK(carrier.left.Send(ends.right));  // Not moved.
  ASSERT_OK_AND_ASSIGN(PipeEnd twin, carrier.right.Recv<PipeEnd>());
  ASSERT_OK(ends.left.Send(1));
  ASSERT_OK(ends.left.Send(2));
  EXPECT_THAT(twin.Recv<int>(), IsOkAndHolds(1));
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(2));
  twin = PipeEnd();
  EXPECT_OK(ends.left.Send(3));
  ends.right = PipeEnd();
  EXPECT_THAT(ends.left.Send(4), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(PipeTest, EndWithARefusedMessageStays) {
  const Ends carrier = Make();
  Ends ends = Make();
  ASSERT_OK(ends.left.Send(1));
  EXPECT_THAT(ends.right.Recv<std::string>(),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(carrier.left.Send(std::move(ends.right)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("nobody wanted")));
  // NOLINTNEXTLINE(bugprone-use-after-move)
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
  EXPECT_OK(carrier.left.Send(std::move(ends.right)));
}

TEST_F(PipeTest, RegionsAndQueuesTravel) {
  const Ends ends = Make();
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(100));
  ASSERT_OK_AND_ASSIGN(const Queue<int> queue, Queue<int>::Create());
  Child child = Child::Fork([&] {
    using Both = std::pair<Region, Queue<int>>;
    ASSERT_OK_AND_ASSIGN(const Both both, ends.right.Recv<Both>());
    both.first.bytes()[99] = std::byte{7};
    EXPECT_OK(both.second.Put(8));
  });
  ASSERT_OK(ends.left.Send(std::pair(region, queue)));
  EXPECT_THAT(queue.Get(), IsOkAndHolds(8));
  EXPECT_EQ(region.bytes()[99], std::byte{7});
  EXPECT_EQ(child.Wait(), Exited(0));
  // With more than fits beside them.
  ASSERT_OK(ends.left.Send(std::pair(region, Pattern(1 << 20))));
  using Large = std::pair<Region, std::string>;
  ASSERT_OK_AND_ASSIGN(const Large large, ends.right.Recv<Large>());
  EXPECT_EQ(large.second, Pattern(1 << 20));
  EXPECT_EQ(large.first.bytes()[99], std::byte{7});
}

TEST_F(PipeTest, EmptyEndsTravelAndAreFatalToUse) {
  const Ends ends = Make();
  ASSERT_OK(ends.left.Send(PipeEnd()));
  ASSERT_OK_AND_ASSIGN(const PipeEnd empty, ends.right.Recv<PipeEnd>());
  EXPECT_TRUE(empty.empty_handle());
  EXPECT_DEATH(empty.Send(1).IgnoreError(), "never created or received");
  EXPECT_DEATH((void)empty.Recv<int>(), "never created or received");
  EXPECT_DEATH((void)empty.Poll(), "never created or received");
}

// What cannot be. -------------------------------------------------------------

TEST_F(PipeTest, RefusesImpossibleOptions) {
  EXPECT_THAT(CreatePipe({.bytes = (size_t{1} << 32) + 1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(PipeTest, RefusesTooManyDescriptors) {
  const Ends ends = Make();
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  EXPECT_THAT(ends.left.Send(std::vector<Region>(254, region)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(ends.left.Send(std::vector<Region>(253, region)));
  ASSERT_OK_AND_ASSIGN(const std::vector<Region> regions,
                       ends.right.Recv<std::vector<Region>>());
  EXPECT_EQ(regions.size(), 253u);
}

TEST_F(PipeTest, UndecodableMessageIsLostAlone) {
  struct Liar {
    void save(Encoder& encoder) const { encoder(uint8_t{7}); }
    void load(Decoder& decoder) {
      uint8_t seven = 0;
      decoder(seven);
      decoder.Fail(absl::InvalidArgumentError("not today"));
    }
  };
  const Ends ends = Make();
  ASSERT_OK(ends.left.Send(Liar()));
  ASSERT_OK(ends.left.Send(1));
  EXPECT_THAT(ends.right.Recv<Liar>(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not today")));
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
}

TEST_F(PipeTest, ForeignBytesAreNoEnd) {
  const Ends ends = Make();
  for (int round = 0; round < 2000; ++round) {
    ASSERT_OK_AND_ASSIGN(Frame frame, Encode(ends.left));
    std::minstd_rand random(static_cast<unsigned>(round) + 1);
    frame.data()[random() % frame.size()] ^= static_cast<char>(1 + random());
    if (round % 3 == 0)
      std::swap(frame.descriptors()[0], frame.descriptors()[1]);
    (void)Decode<PipeEnd>(std::move(frame));
  }
  ASSERT_OK(ends.left.Send(1));
  EXPECT_THAT(ends.right.Recv<int>(), IsOkAndHolds(1));
}

// Many. -----------------------------------------------------------------------

// A peer that says of memory with a name, which it could cut off at any time,
// that a message is in it.
TEST_F(PipeTest, AMessageInMemoryWithANameIsDamage) {
  const std::string name =
      "pipe_test." + std::to_string(std::random_device()());
  Ends ends = Make();
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(ends.left));
  std::vector<os::Descriptor>& parts = frame.descriptors();
  ASSERT_EQ(parts.size(), 7u);  // As save() has them: two rings, a socket.
  ASSERT_OK_AND_ASSIGN(Region memory, Region::Attach(std::move(parts[3])));
  const uint64_t ring_tag = memory.type_tag();
  ASSERT_OK_AND_ASSIGN(
      const ipc_internal::Ring out,
      ipc_internal::Ring::Attach(std::move(memory), ring_tag,
                                 std::move(parts[4]), std::move(parts[5])));
  for (const bool named : {false, true}) {
    const RegionOptions options = {.size = 4096};
    ASSERT_OK_AND_ASSIGN(Region region, named
                                            ? Region::CreateNamed(name, options)
                                            : Region::Create(options));
    constexpr uint64_t kBytes = 2;
    std::memcpy(region.bytes().data(), &kBytes, sizeof(kBytes));
    std::vector<os::Descriptor> one;
    ASSERT_OK_AND_ASSIGN(os::Descriptor twin, region.descriptor().Duplicate());
    one.push_back(std::move(twin));
    const uint64_t record[] = {1, region.size()};
    ASSERT_EQ(out.Put(record, sizeof(record), Deadline::Infinite(), one),
              ipc_internal::RingEnd::kDone);
    // What is too long is said to be without a copy, and stays.
    EXPECT_THAT(ends.right.RecvBytes(kNow, 10),
                StatusIs(named ? absl::StatusCode::kDataLoss
                               : absl::StatusCode::kResourceExhausted));
    if (!named) {
      EXPECT_OK(ends.right.RecvBytes(kNow));
    }
  }
}

TEST_F(PipeTest, PingPongBetweenProcesses) {
  constexpr int kRounds = 20'000;
  Ends ends = Make();
  Child child = Child::Fork([&] {
    ends.left = PipeEnd();
    for (int i = 0; i < kRounds; ++i) {
      const absl::StatusOr<int> ball = ends.right.Recv<int>();
      ASSERT_THAT(ball, IsOkAndHolds(i));
      ASSERT_OK(ends.right.Send(-*ball));
    }
  });
  ends.right = PipeEnd();
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_OK(ends.left.Send(i));
    ASSERT_THAT(ends.left.Recv<int>(), IsOkAndHolds(-i));
  }
  EXPECT_EQ(ends.left.rescues(), 0u);
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST_F(PipeTest, ThreadsOnOneEndNeverMixMessages) {
  constexpr int kThreads = 4;
  constexpr int kEach = 3'000;
  Ends ends = Make({.bytes = 1 << 14});
  Child child = Child::Fork([&] {
    ends.left = PipeEnd();
    std::vector<std::thread> senders;
    for (int t = 0; t < kThreads; ++t) {
      senders.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          // Now and then one that does not fit.
          const size_t size = i % 500 == 0 ? 10'000 : 10 + i % 300;
          EXPECT_OK(ends.right.Send(std::vector<int>(size, t * kEach + i)));
        }
      });
    }
    for (std::thread& sender : senders) sender.join();
  });
  ends.right = PipeEnd();
  std::array<std::atomic<int>, kThreads* kEach> seen = {};
  std::vector<std::thread> receivers;
  for (int t = 0; t < kThreads; ++t) {
    receivers.emplace_back([&] {
      for (;;) {
        const absl::StatusOr<std::vector<int>> message =
            ends.left.Recv<std::vector<int>>();
        if (absl::IsOutOfRange(message.status())) return;
        ASSERT_OK(message);
        const int which = message->front();
        ASSERT_EQ(std::count(message->begin(), message->end(), which),
                  static_cast<std::ptrdiff_t>(message->size()));
        ++seen[static_cast<size_t>(which)];
      }
    });
  }
  for (std::thread& receiver : receivers) receiver.join();
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kThreads * kEach);
  EXPECT_EQ(child.Wait(), Exited(0));
}

// One thread's refusal must not hide the message from another for ever.
TEST_F(PipeTest, RefusedMessageReachesAnotherThread) {
  const Ends ends = Make();
  std::thread wants_text([&] {
    for (;;) {
      const absl::StatusOr<std::string> text = ends.right.Recv<std::string>();
      if (absl::IsFailedPrecondition(text.status())) {
        std::this_thread::yield();
        continue;
      }
      EXPECT_THAT(text, IsOkAndHolds("text"));
      return;
    }
  });
  std::thread wants_number([&] {
    for (;;) {
      const absl::StatusOr<int> number = ends.right.Recv<int>();
      if (absl::IsFailedPrecondition(number.status())) {
        std::this_thread::yield();
        continue;
      }
      EXPECT_THAT(number, IsOkAndHolds(1));
      return;
    }
  });
  ASSERT_OK(ends.left.Send(1));
  ASSERT_OK(ends.left.Send("text"));
  wants_text.join();
  wants_number.join();
}

}  // namespace
}  // namespace cohort
