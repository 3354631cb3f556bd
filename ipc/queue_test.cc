// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/queue.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/ordinary_user.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::IsOkAndHolds;
using cohort_testing::StatusIs;
using testing::HasSubstr;

constexpr absl::StatusCode kLate = absl::StatusCode::kDeadlineExceeded;
constexpr absl::StatusCode kEnd = absl::StatusCode::kOutOfRange;

struct Job {
  int id = 0;
  std::string path = {};
  template <class A>
  void serialize(A& a) {
    a(id, path);
  }
};

// Encodes well, and cannot be decoded.
struct OneWay {
  bool bad = false;
  template <class A>
  void save(A& a) const {
    a(bad);
  }
  template <class A>
  void load(A& a) {
    a(bad);
    if (bad) a.Fail(absl::OutOfRangeError("no such thing"));
  }
};

class QueueTest : public testing::Test {
 private:
  cohort_testing::LeakGuard guard_;
};

TEST_F(QueueTest, HandsValuesToAnotherProcess) {
  ASSERT_OK_AND_ASSIGN(const Queue<Job> jobs,
                       Queue<Job>::Create({.max_items = 16}));
  Child child = Child::Fork([&] {
    int expected = 0;
    for (absl::StatusOr<Job> job : jobs.Items()) {
      ASSERT_OK(job);
      EXPECT_EQ(job->id, expected);
      EXPECT_EQ(job->path, std::string(static_cast<size_t>(expected), 'x'));
      ++expected;
    }
    EXPECT_EQ(expected, 1000);
  });
  for (int i = 0; i < 1000; ++i) {
    ASSERT_OK(
        jobs.Put({.id = i, .path = std::string(static_cast<size_t>(i), 'x')}));
  }
  jobs.Close();
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(jobs.ApproxSize(), 0u);
  EXPECT_EQ(jobs.rescues(), 0u);
}

TEST_F(QueueTest, CarriesBytesContainersAndOwners) {
  ASSERT_OK_AND_ASSIGN(const auto numbers, Queue<int>::Create());
  ASSERT_OK(numbers.Put(-5));
  EXPECT_THAT(numbers.Get(), IsOkAndHolds(-5));

  ASSERT_OK_AND_ASSIGN(const auto truths, Queue<bool>::Create());
  ASSERT_OK(truths.Put(true));
  EXPECT_THAT(truths.Get(), IsOkAndHolds(true));

  using Map = std::map<std::string, std::vector<int>>;
  ASSERT_OK_AND_ASSIGN(const auto maps, Queue<Map>::Create());
  ASSERT_OK(maps.Put({{"a", {1, 2}}, {"b", {}}}));
  EXPECT_THAT(maps.Get(), IsOkAndHolds(Map{{"a", {1, 2}}, {"b", {}}}));

  using Array = std::array<uint64_t, 500>;
  ASSERT_OK_AND_ASSIGN(const auto arrays,
                       Queue<Array>::Create({.max_items = 2}));
  Array array;
  array.fill(9);
  ASSERT_OK(arrays.TryPut(array));
  ASSERT_OK(arrays.TryPut(array));
  EXPECT_THAT(arrays.TryPut(array), StatusIs(kLate));
  EXPECT_THAT(arrays.Get(), IsOkAndHolds(array));

  // Only to be moved.
  ASSERT_OK_AND_ASSIGN(const auto owners,
                       Queue<std::unique_ptr<int>>::Create());
  ASSERT_OK(owners.Put(std::make_unique<int>(3)));
  owners.Close();
  int sum = 0;
  for (absl::StatusOr<std::unique_ptr<int>> owner : owners.Items()) {
    ASSERT_OK(owner);
    sum += **owner;
  }
  EXPECT_EQ(sum, 3);
}

TEST_F(QueueTest, PollsOnceWhenThereIsNoTime) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<int>::Create({.max_items = 1}));
  for (const absl::Duration none :
       {absl::ZeroDuration(), absl::Seconds(-1), -absl::InfiniteDuration()}) {
    EXPECT_THAT(queue.Get(none), StatusIs(kLate, HasSubstr("empty")));
    EXPECT_OK(queue.Put(1, none));
    EXPECT_THAT(queue.Put(2, none), StatusIs(kLate, HasSubstr("full")));
    EXPECT_THAT(queue.Get(none), IsOkAndHolds(1));
  }
  EXPECT_THAT(queue.TryGet(), StatusIs(kLate));
  EXPECT_THAT(queue.Get(absl::Milliseconds(5)), StatusIs(kLate));
  EXPECT_OK(queue.TryPut(1));
  EXPECT_THAT(queue.Put(2, absl::Milliseconds(5)), StatusIs(kLate));
}

TEST_F(QueueTest, CloseEndsPutsAtOnceAndGetsWhenDrained) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<int>::Create());
  ASSERT_OK(queue.Put(1));
  ASSERT_OK(queue.Put(2));
  queue.Close();
  EXPECT_THAT(queue.Put(3), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(queue.TryPut(3), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(queue.Get(), IsOkAndHolds(1));
  EXPECT_THAT(queue.TryGet(), IsOkAndHolds(2));
  EXPECT_THAT(queue.Get(), StatusIs(kEnd));
  EXPECT_THAT(queue.TryGet(), StatusIs(kEnd));
  for (absl::StatusOr<int> item : queue.Items()) ADD_FAILURE() << *item;
}

TEST_F(QueueTest, RefusesWhatCanNeverFit) {
  ASSERT_OK_AND_ASSIGN(const auto queue,
                       Queue<std::string>::Create({.bytes = 1024}));
  EXPECT_THAT(
      queue.Put(std::string(1000, 'x')),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(".bytes = ")));
  EXPECT_OK(queue.Put(std::string(900, 'x')));
  EXPECT_THAT(queue.Get(), IsOkAndHolds(std::string(900, 'x')));

  // As large as it says, that it takes.
  ASSERT_OK_AND_ASSIGN(const auto large,
                       Queue<std::string>::Create({.bytes = 5 << 20}));
  const std::string huge(5 << 20, 'h');
  ASSERT_OK(large.Put(huge));
  EXPECT_THAT(large.Get(), IsOkAndHolds(huge));

  using Block = std::array<char, 4096>;
  EXPECT_THAT(Queue<Block>::Create({.bytes = 4096}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4096")));
  EXPECT_OK(Queue<Block>::Create({.bytes = 4097}));
  EXPECT_THAT(Queue<int>::Create({.max_items = size_t{1} << 60}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Queue<int>::Create({.bytes = size_t{1} << 60}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(QueueTest, HoldsAsManyAsWereAskedFor) {
  for (const size_t max_items : {1, 2, 3, 16, 1000}) {
    using Block = std::array<char, 64>;
    ASSERT_OK_AND_ASSIGN(const auto queue,
                         Queue<Block>::Create({.max_items = max_items}));
    for (size_t i = 0; i < max_items; ++i) ASSERT_OK(queue.TryPut({}));
    EXPECT_EQ(queue.ApproxSize(), max_items);
    EXPECT_THAT(queue.TryPut({}), StatusIs(kLate));
  }
}

// A value with descriptors, and something else beside them.
struct Parcel {
  int id = 0;
  std::vector<Region> regions = {};
  template <class A>
  void serialize(A& a) {
    a(id, regions);
  }
};

TEST_F(QueueTest, HandsOverValuesThatOwnDescriptors) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Parcel>::Create());
  ASSERT_OK_AND_ASSIGN(const auto back, Queue<Region>::Create());
  Child child = Child::Fork([&] {
    for (int i = 0; i < 100; ++i) {
      ASSERT_OK_AND_ASSIGN(const Parcel parcel, queue.Get());
      ASSERT_EQ(parcel.id, i);
      ASSERT_EQ(parcel.regions.size(), static_cast<size_t>(i % 3));
      for (const Region& region : parcel.regions) {
        EXPECT_EQ(region.bytes()[0], std::byte(i));
        region.bytes()[0] = std::byte(i + 1);
        ASSERT_OK(back.Put(region));
      }
    }
  });
  for (int i = 0; i < 100; ++i) {
    Parcel parcel = {.id = i};
    for (int j = 0; j < i % 3; ++j) {
      ASSERT_OK_AND_ASSIGN(parcel.regions.emplace_back(), Region::Create(1));
      parcel.regions.back().bytes()[0] = std::byte(i);
    }
    ASSERT_OK(queue.Put(parcel));
    for (const Region& region : parcel.regions) {
      ASSERT_OK_AND_ASSIGN(const Region same, back.Get());
      EXPECT_EQ(region.bytes()[0], std::byte(i + 1));
      region.bytes()[0] = std::byte(i + 2);
      EXPECT_EQ(same.bytes()[0], std::byte(i + 2));
    }
  }
  EXPECT_EQ(child.Wait(), Exited(0));
}

// Whoever gets a queue out of a queue may use it, and hand it on.
TEST_F(QueueTest, HandsOverQueues) {
  ASSERT_OK_AND_ASSIGN(const auto queues, Queue<Queue<Parcel>>::Create());
  Child child = Child::Fork([&] {
    ASSERT_OK_AND_ASSIGN(const Queue<Parcel> parcels, queues.Get());
    EXPECT_OK(parcels.Put({.id = 9}));
    EXPECT_OK(queues.Put(parcels));
  });
  {
    ASSERT_OK_AND_ASSIGN(const auto parcels, Queue<Parcel>::Create());
    ASSERT_OK(queues.Put(parcels));
  }
  EXPECT_EQ(child.Wait(), Exited(0));
  ASSERT_OK_AND_ASSIGN(const Queue<Parcel> parcels, queues.Get());
  ASSERT_OK_AND_ASSIGN(const Parcel parcel, parcels.Get());
  EXPECT_EQ(parcel.id, 9);
}

TEST_F(QueueTest, WhatNobodyTookGoesWithTheQueue) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Parcel>::Create());
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  for (int i = 0; i < 10; ++i) ASSERT_OK(queue.Put({.regions = {region}}));
  EXPECT_EQ(queue.ApproxSize(), 10u);
}

TEST_F(QueueTest, RefusesMoreDescriptorsThanOneItemCarries) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Parcel>::Create());
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  Parcel parcel;
  parcel.regions.resize(253, region);
  ASSERT_OK(queue.Put(parcel));
  parcel.regions.resize(254, region);
  EXPECT_THAT(queue.Put(parcel), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("at most 253")));
  EXPECT_EQ(queue.ApproxSize(), 1u);
  ASSERT_OK_AND_ASSIGN(parcel, queue.Get());
  EXPECT_EQ(parcel.regions.size(), 253u);
}

// A socket holds fewer messages than the ring; and a value without descriptors
// does not need it.
TEST_F(QueueTest, IsFullWhenItsSocketIs) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Parcel>::Create());
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  int count = 0;
  for (absl::Status put; put.ok(); ++count) {
    put = queue.TryPut({.id = count, .regions = {region}});
    if (!put.ok()) {
      EXPECT_THAT(put, StatusIs(kLate));
      break;
    }
  }
  EXPECT_GE(count, 100);
  ASSERT_OK(queue.TryPut({.id = count}));
  for (int i = 0; i <= count; ++i) {
    ASSERT_OK_AND_ASSIGN(const Parcel parcel, queue.Get());
    EXPECT_EQ(parcel.id, i);
    EXPECT_EQ(parcel.regions.size(), i < count ? 1u : 0u);
  }
  ASSERT_OK(queue.TryPut({.regions = {region}}));
  EXPECT_OK(queue.Get());
}

// The compiler sees which types need no sockets.
TEST_F(QueueTest, HasSocketsOnlyForTypesThatMayNeedThem) {
  ASSERT_OK_AND_ASSIGN(const auto numbers, Queue<int>::Create());
  ASSERT_OK_AND_ASSIGN(const auto texts, Queue<std::string>::Create());
  ASSERT_OK_AND_ASSIGN(const auto parcels, Queue<Parcel>::Create());
  EXPECT_EQ(Encode(numbers)->descriptors().size(), 1u);
  EXPECT_EQ(Encode(texts)->descriptors().size(), 1u);
  EXPECT_EQ(Encode(parcels)->descriptors().size(), 3u);
}

TEST_F(QueueTest, ItemThatCannotBeDecodedIsLostAlone) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<OneWay>::Create());
  ASSERT_OK(queue.Put({.bad = false}));
  ASSERT_OK(queue.Put({.bad = true}));
  ASSERT_OK(queue.Put({.bad = false}));
  queue.Close();
  std::vector<absl::StatusCode> codes;
  for (absl::StatusOr<OneWay> item : queue.Items()) {
    codes.push_back(item.status().code());
  }
  EXPECT_THAT(codes, testing::ElementsAre(absl::StatusCode::kOk,
                                          absl::StatusCode::kDataLoss,
                                          absl::StatusCode::kOk));
}

// What the handle of a queue consists of.
struct QueueParts {
  Region region = {};
  os::Descriptor in = {};
  os::Descriptor out = {};
  template <class A>
  void serialize(A& a) {
    a(region, in, out);
  }
};

TEST_F(QueueTest, HandleTravelsAndMeansTheSameQueue) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Job>::Create());
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(queue));
  ASSERT_OK_AND_ASSIGN(const auto twin, Decode<Queue<Job>>(std::move(frame)));
  ASSERT_OK(queue.Put({.id = 4}));
  ASSERT_OK_AND_ASSIGN(const Job job, twin.Get());
  EXPECT_EQ(job.id, 4);
  const Queue<Job> copy = twin;
  copy.Close();
  EXPECT_THAT(queue.Get(), StatusIs(kEnd));

  ASSERT_OK_AND_ASSIGN(Frame other, Encode(queue));
  EXPECT_THAT(Decode<Queue<int>>(std::move(other)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  const QueueParts no_sockets = {.region = Region::Create(1).value()};
  EXPECT_THAT(Decode<Queue<Job>>(*Encode(no_sockets)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK_AND_ASSIGN(Frame none, Encode(Queue<Job>()));
  ASSERT_OK_AND_ASSIGN(const auto empty, Decode<Queue<Job>>(std::move(none)));
  EXPECT_TRUE(empty.empty_handle());
}

// Opens descriptors until only `left` more can be had.
std::vector<os::Descriptor> LeaveNumbers(int left) {
  rlimit limit;
  EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = 100;
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  std::vector<os::Descriptor> taken;
  for (;;) {
    os::Descriptor one(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!one.valid()) break;
    taken.push_back(std::move(one));
  }
  EXPECT_GE(taken.size(), static_cast<size_t>(left));
  taken.resize(taken.size() - static_cast<size_t>(left));
  return taken;
}

TEST_F(QueueTest, RunningOutOfNumbersLosesNothing) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Parcel>::Create());
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
  const auto exhausted = [&] {
    cohort_testing::LeakGuard guard;
    const Parcel parcel = {.id = 1, .regions = {10, region}};
    ASSERT_OK(queue.Put(parcel));
    {
      // The receiver's numbers end in the middle of the item.
      const std::vector<os::Descriptor> taken = LeaveNumbers(5);
      const size_t before = LeaveNumbers(0).size();
      EXPECT_THAT(queue.Get(), StatusIs(absl::StatusCode::kResourceExhausted,
                                        HasSubstr("ulimit -n")));
      EXPECT_EQ(LeaveNumbers(0).size(), before) << "some are gone";
      EXPECT_EQ(queue.ApproxSize(), 1u);
      // The sender's, while it encodes.
      EXPECT_THAT(queue.Put(parcel),
                  StatusIs(absl::StatusCode::kResourceExhausted));
      EXPECT_EQ(LeaveNumbers(0).size(), before);
      EXPECT_EQ(queue.ApproxSize(), 1u);
      // An item without descriptors is not held up, once it is the oldest.
      EXPECT_OK(queue.Put({.id = 2}));
    }
    ASSERT_OK_AND_ASSIGN(const Parcel first, queue.Get());
    EXPECT_EQ(first.regions.size(), 10u);
    ASSERT_OK_AND_ASSIGN(const Parcel second, queue.Get());
    EXPECT_EQ(second.id, 2);
  };
  EXPECT_EQ(Child::Fork(exhausted).Wait(), Exited(0));
}

// What the kernel allows a user to have in unread messages.
TEST_F(QueueTest, TooManyInFlightIsFullUntilSomeAreRead) {
  const std::optional<cohort_testing::End> end =
      cohort_testing::RunAsOrdinaryUser([] {
        (void)LeaveNumbers(0);  // 100 in all from here on.
        ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Parcel>::Create());
        ASSERT_OK_AND_ASSIGN(const Region region, Region::Create(1));
        const Parcel parcel = {.regions = {20, region}};
        int count = 0;
        absl::Status put;
        while ((put = queue.TryPut(parcel)).ok()) ++count;
        EXPECT_THAT(put, StatusIs(kLate, HasSubstr("unread messages")));
        EXPECT_GE(count, 4);
        EXPECT_THAT(queue.Put(parcel, absl::Milliseconds(5)), StatusIs(kLate));
        // Others go on.
        EXPECT_OK(queue.TryPut({.id = 7}));
        for (int i = 0; i < count; ++i) {
          ASSERT_OK_AND_ASSIGN(const Parcel got, queue.Get());
          EXPECT_EQ(got.regions.size(), 20u);
        }
        ASSERT_OK_AND_ASSIGN(const Parcel other, queue.Get());
        EXPECT_EQ(other.id, 7);
        EXPECT_OK(queue.TryPut(parcel));
        EXPECT_OK(queue.Get());
      });
  if (!end) GTEST_SKIP() << "this sandbox allows no change of the user";
  EXPECT_EQ(*end, Exited(0));
}

// The kernel alone can find out that nobody can take it any more.
TEST_F(QueueTest, MayBePutIntoItself) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<QueueParts>::Create());
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(queue));
  ASSERT_OK_AND_ASSIGN(const QueueParts parts,
                       Decode<QueueParts>(std::move(frame)));
  ASSERT_OK(queue.Put(parts));
  ASSERT_OK_AND_ASSIGN(const QueueParts same, queue.Get());
  EXPECT_TRUE(same.in.valid());
}

// A serialize() function that itself uses a queue gets a buffer of its own.
struct Nosy {
  inline static Queue<std::string> others;
  template <class A>
  void save(A& a) const {
    EXPECT_OK(others.Put("from within"));
    EXPECT_THAT(others.Get(), IsOkAndHolds("from within"));
    a(std::string("kept"));
  }
  template <class A>
  void load(A& a) {
    EXPECT_OK(others.Put("from within"));
    EXPECT_THAT(others.Get(), IsOkAndHolds("from within"));
    std::string text;
    a(text);
    EXPECT_EQ(text, "kept");
  }
};

TEST_F(QueueTest, MayBeUsedWhileAnItemIsEncodedOrDecoded) {
  ASSERT_OK_AND_ASSIGN(Nosy::others, Queue<std::string>::Create());
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Nosy>::Create());
  ASSERT_OK(queue.Put({}));
  EXPECT_OK(queue.Get());
  Nosy::others = {};
}

// The bytes of an item, overwritten while it lies there.
TEST_F(QueueTest, DamagedMemoryIsSaidOnceByItems) {
  ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Job>::Create());
  ASSERT_OK(queue.Put({.id = 1}));
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(queue));
  ASSERT_OK_AND_ASSIGN(const QueueParts parts,
                       Decode<QueueParts>(std::move(frame)));
  constexpr size_t kFirstHeader = 384;
  parts.region.bytes()[kFirstHeader] = std::byte(0xff);
  int items = 0;
  for (absl::StatusOr<Job> item : queue.Items()) {
    EXPECT_THAT(item, StatusIs(absl::StatusCode::kDataLoss));
    ++items;
  }
  EXPECT_EQ(items, 1);
  EXPECT_THAT(queue.Put({}), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(QueueDeathTest, UseOfAnEmptyHandleIsFatal) {
  const Queue<int> empty;
  EXPECT_DEATH((void)empty.Put(1), "never created or received");
  EXPECT_DEATH((void)empty.Get(), "never created or received");
  EXPECT_DEATH(empty.Close(), "never created or received");
}

}  // namespace
}  // namespace cohort
