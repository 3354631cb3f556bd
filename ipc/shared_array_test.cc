// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/shared_array.h"

#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "cohort/ipc/internal/array_memory.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/region.h"
#include "cohort/shm/type_tag.h"
#include "cohort/sync/mutex.h"
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
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::StatusCode kDamaged = absl::StatusCode::kDataLoss;
constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

struct Point {
  int x = 1;
  int y = 2;
};

class SharedArrayTest : public testing::Test {
 private:
  cohort_testing::LeakGuard guard_;
};

// A handle as another process receives it.
template <typename To, typename From>
absl::StatusOr<To> Sent(const From& from) {
  absl::StatusOr<Frame> frame = Encode(from);
  if (!frame.ok()) return frame.status();
  return Decode<To>(*std::move(frame));
}

TEST_F(SharedArrayTest, BeginsAsAsked) {
  ASSERT_OK_AND_ASSIGN(const auto zeros, SharedArray<int>::Create(3));
  EXPECT_THAT(zeros.Load(), IsOkAndHolds(ElementsAre(0, 0, 0)));
  ASSERT_OK_AND_ASSIGN(const auto listed, SharedArray<int>::Create({4, 5}));
  EXPECT_THAT(listed.Load(), IsOkAndHolds(ElementsAre(4, 5)));
  const std::vector<double> values = {0.5, 1.5};
  ASSERT_OK_AND_ASSIGN(const auto copied, SharedArray<double>::Create(values));
  EXPECT_THAT(copied.Load(), IsOkAndHolds(ElementsAre(0.5, 1.5)));
  ASSERT_OK_AND_ASSIGN(const auto points, SharedArray<Point>::Create(2));
  EXPECT_EQ(points.raw()[1].y, 2) << "members have their initial values";
  ASSERT_OK_AND_ASSIGN(const auto flags, SharedArray<bool>::Create({true}));
  EXPECT_THAT(flags.Load(), IsOkAndHolds(ElementsAre(true)));
  ASSERT_OK_AND_ASSIGN(const auto locks, SharedArray<Mutex>::Create(5));
  const MutexLock lock(locks.raw()[4]);
}

TEST_F(SharedArrayTest, MayHaveNoElements) {
  ASSERT_OK_AND_ASSIGN(const auto none, SharedArray<int>::Create(0));
  EXPECT_FALSE(none.empty_handle());
  EXPECT_EQ(none.size(), 0u);
  EXPECT_THAT(none.Load(), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(none.With([](absl::Span<int> all) { return all.size(); }),
              IsOkAndHolds(0));
  none.Store({});
  ASSERT_OK_AND_ASSIGN(const auto got, Sent<SharedArray<int>>(none));
  EXPECT_EQ(got.size(), 0u);
}

TEST_F(SharedArrayTest, RefusesImpossibleSizes) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  for (const size_t size :
       {kMost, kMost - 1, kMost / 8, kMost / 8 + 1, kMost / 8 - 15}) {
    EXPECT_THAT(SharedArray<int64_t>::Create(size),
                StatusIs(kInvalid, HasSubstr("than there are addresses")))
        << size;
  }
  EXPECT_THAT(SharedArray<char>::Create(kMost), StatusIs(kInvalid));
  EXPECT_FALSE(SharedArray<char>::Create(kMost / 4).ok());
}

TEST_F(SharedArrayTest, TakesMemoryWhenItIsUsed) {
  // Far more than there is; a first value for each would end the test.
  ASSERT_OK_AND_ASSIGN(const auto large,
                       SharedArray<int64_t>::Create(size_t{1} << 33));
  large.raw()[large.size() - 1] = 7;
  EXPECT_THAT(large.Load(large.size() - 1), IsOkAndHolds(7));
  EXPECT_THAT(large.Load(large.size() / 2), IsOkAndHolds(0));
}

TEST_F(SharedArrayTest, IsChangedExactlyByManyProcesses) {
  constexpr int kRounds = 5'000;
  ASSERT_OK_AND_ASSIGN(const auto sums, SharedArray<int64_t>::Create(5));
  const auto add = [&] {
    for (int i = 0; i < kRounds; ++i) {
      EXPECT_OK(sums.With([](absl::Span<int64_t> all) {
        for (int64_t& sum : all) ++sum;
      }));
    }
  };
  std::vector<Child> children;
  for (int i = 0; i < 3; ++i) children.push_back(Child::Fork(add));
  add();
  for (Child& child : children) EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_THAT(sums.Load(), IsOkAndHolds(Each(4 * kRounds)));
  EXPECT_THAT(sums.Load(), IsOkAndHolds(SizeIs(5)));
}

TEST_F(SharedArrayTest, ElementsAreLoadedAndStoredAlone) {
  ASSERT_OK_AND_ASSIGN(const auto array, SharedArray<int>::Create({1, 2, 3}));
  EXPECT_THAT(array.Load(2), IsOkAndHolds(3));
  EXPECT_OK(array.Store(1, 7));
  EXPECT_THAT(array.Load(), IsOkAndHolds(ElementsAre(1, 7, 3)));
  array.Store({4, 5, 6});
  EXPECT_THAT(array.Load(), IsOkAndHolds(ElementsAre(4, 5, 6)));
  EXPECT_THAT(array.raw(), ElementsAre(4, 5, 6));
}

TEST_F(SharedArrayTest, AtomicsNeedNoLock) {
  constexpr int kRounds = 10'000;
  ASSERT_OK_AND_ASSIGN(const auto hits, SharedArray<int>::Create(2));
  const MutexLock lock(hits.mutex());  // Keeps nobody out.
  const auto count = [&] {
    for (int i = 0; i < kRounds; ++i) ++hits.atomic(1);
  };
  Child child = Child::Fork(count);
  count();
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_THAT(hits.raw(), ElementsAre(0, 2 * kRounds));
}

TEST_F(SharedArrayTest, DeathInsideIsDataLossUntilRepaired) {
  ASSERT_OK_AND_ASSIGN(const auto array, SharedArray<int>::Create(3));
  const auto die = [&] {
    ASSERT_EQ(Child::Fork([&] {
                (void)array.With([](absl::Span<int> all) {
                  all[0] = 9;
                  raise(SIGKILL);
                });
              }).Wait(),
              KilledBy(SIGKILL));
  };
  const auto never = [](absl::Span<int>) { ADD_FAILURE() << "torn"; };
  die();
  EXPECT_THAT(array.With(never), StatusIs(kDamaged, HasSubstr("repair")));
  EXPECT_THAT(array.Load(), StatusIs(kDamaged));
  EXPECT_THAT(array.Load(2), StatusIs(kDamaged));
  EXPECT_THAT(array.Store(2, 1), StatusIs(kDamaged));
  EXPECT_THAT(array.With([](absl::Span<int> all) { return all[2]; },
                         [](absl::Span<int> all) { all[2] = all[0]; }),
              IsOkAndHolds(9));
  EXPECT_THAT(array.Load(), IsOkAndHolds(ElementsAre(9, 0, 9)));
  die();
  array.Store({1, 2, 3});
  EXPECT_THAT(array.Load(), IsOkAndHolds(ElementsAre(1, 2, 3)));
}

TEST_F(SharedArrayTest, CopiesAndReceivedHandlesMeanOneArray) {
  ASSERT_OK_AND_ASSIGN(const auto made, SharedArray<int>::Create(3));
  const SharedArray<int> copy = made;
  EXPECT_EQ(copy.raw().data(), made.raw().data());
  ASSERT_OK_AND_ASSIGN(const auto got, Sent<SharedArray<int>>(made));
  EXPECT_NE(got.raw().data(), made.raw().data());
  made.Store({1, 2, 3});
  EXPECT_THAT(got.Load(), IsOkAndHolds(ElementsAre(1, 2, 3)));
  const SharedArray<int> empty;
  EXPECT_EQ(empty.size(), 0u);
  ASSERT_OK_AND_ASSIGN(const auto nothing, Sent<SharedArray<int>>(empty));
  EXPECT_TRUE(nothing.empty_handle());
}

TEST_F(SharedArrayTest, RefusesWhatIsNoSuchArray) {
  ASSERT_OK_AND_ASSIGN(const auto array, SharedArray<int>::Create(3));
  EXPECT_THAT(Sent<SharedArray<unsigned>>(array), StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(const auto bytes, Region::Create(128));
  EXPECT_THAT(Sent<SharedArray<int>>(bytes), StatusIs(kRefused));
  // The right type, but no place for what must be there.
  for (const size_t size : {1, 63, 65, 64 + 63}) {
    ASSERT_OK_AND_ASSIGN(
        const auto odd,
        Region::Create({.size = size, .type_tag = TypeTag<int>("array")}));
    EXPECT_THAT(Sent<SharedArray<int>>(odd), StatusIs(kRefused)) << size;
  }
}

TEST_F(SharedArrayTest, BelievesNoCountThatTheMemoryDoesNotBearOut) {
  // 16 ints to a line of 64 bytes: 33 to 48 fill three lines, others do not.
  for (const uint64_t count :
       {uint64_t{0}, uint64_t{32}, uint64_t{49}, uint64_t{1} << 62,
        ~uint64_t{0}, ~uint64_t{0} / 4, ~uint64_t{0} / 4 - 15}) {
    ASSERT_OK_AND_ASSIGN(const auto array, SharedArray<int>::Create(40));
    auto* const control =
        reinterpret_cast<ipc_internal::ArrayControl*>(&array.mutex());
    ASSERT_EQ(control->size, 40u);
    control->size = count;
    EXPECT_THAT(Sent<SharedArray<int>>(array),
                StatusIs(kRefused, HasSubstr("do not fill a region")))
        << count;
    EXPECT_EQ(array.size(), 40u) << "who has checked it looks once";
  }
}

// As docs/formats/shared_value.md draws it.
TEST_F(SharedArrayTest, ElementsStandFirst) {
  for (const size_t size : {0, 1, 16, 17}) {
    ASSERT_OK_AND_ASSIGN(const auto array, SharedArray<int>::Create(size));
    const auto* const first =
        reinterpret_cast<const std::byte*>(array.raw().data());
    const auto* const lock = reinterpret_cast<const std::byte*>(&array.mutex());
    EXPECT_EQ(lock - first,
              static_cast<std::ptrdiff_t>((size * 4 + 63) / 64 * 64));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 4096, 0u);
    uint64_t count = 0;
    std::memcpy(&count, lock + 40, sizeof(count));
    EXPECT_EQ(count, size);
  }
}

TEST_F(SharedArrayTest, ProgramsMeetByName) {
  const std::string name = absl::StrCat("cohort-test-array-", getpid());
  EXPECT_THAT(SharedArray<int>::Open(name),
              StatusIs(absl::StatusCode::kNotFound));
  {
    ASSERT_OK_AND_ASSIGN(const auto made,
                         SharedArray<int>::OpenOrCreate(name, {1, 2, 3}));
    EXPECT_EQ(
        Child::Fork([&] {
          ASSERT_OK_AND_ASSIGN(const auto opened, SharedArray<int>::Open(name));
          EXPECT_EQ(opened.size(), 3u);
          ASSERT_OK_AND_ASSIGN(const auto likewise,
                               SharedArray<int>::OpenOrCreate(name, 3));
          EXPECT_OK(likewise.Store(0, 7));
          EXPECT_THAT(SharedArray<unsigned>::Open(name), StatusIs(kRefused));
          // In a region of the same size, and of another one.
          EXPECT_THAT(SharedArray<int>::OpenOrCreate(name, 4),
                      StatusIs(kRefused));
          EXPECT_THAT(SharedArray<int>::OpenOrCreate(name, 400),
                      StatusIs(kRefused));
        }).Wait(),
        Exited(0));
    EXPECT_THAT(made.Load(), IsOkAndHolds(ElementsAre(7, 2, 3)));
  }
  EXPECT_THAT(SharedArray<int>::Open(name),
              StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto again,
                       SharedArray<int>::OpenOrCreate(name, 2));
  EXPECT_OK(SharedArray<int>::Unlink(name));
  EXPECT_THAT(again.Load(), IsOkAndHolds(ElementsAre(0, 0)));
  EXPECT_THAT(SharedArray<int>::OpenOrCreate("", 2), StatusIs(kInvalid));
}

TEST(SharedArrayDeathTest, MisuseIsFatal) {
  ASSERT_OK_AND_ASSIGN(const auto array, SharedArray<int>::Create(2));
  EXPECT_DEATH((void)array.Load(2), "index is out of range");
  EXPECT_DEATH((void)array.Store(2, 1), "index is out of range");
  EXPECT_DEATH((void)array.atomic(2), "index is out of range");
  EXPECT_DEATH(array.Store({1, 2, 3}), "as many values");
  EXPECT_DEATH((void)array.With([&](absl::Span<int>) {
    array.Store({1, 2});
  }),
               "locked again by its holder");
  const SharedArray<int> empty;
  EXPECT_DEATH((void)empty.Load(), "empty SharedArray<T> was used");
}

}  // namespace
}  // namespace cohort
