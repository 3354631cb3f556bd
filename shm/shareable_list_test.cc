// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/shareable_list.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
using cohort_testing::StatusIs;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

using Value = ShareableList::Value;
using Bytes = ShareableList::Bytes;
using None = ShareableList::None;

constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Matches a Value that holds `value` in the same type.
template <typename T>
auto Holds(const T& value) {
  return testing::Eq(Value(value));
}

class ShareableListTest : public testing::Test {
 protected:
  static ShareableList Make(const std::vector<Value>& values) {
    absl::StatusOr<ShareableList> list = ShareableList::Create(values);
    EXPECT_OK(list);
    return *std::move(list);
  }

  // The word at this offset of the list's memory.
  static uint64_t& Word(const ShareableList& list, size_t offset) {
    return *reinterpret_cast<uint64_t*>(list.region().bytes().data() + offset);
  }

 private:
  cohort_testing::LeakGuard guard_;
};

TEST_F(ShareableListTest, GivesBackWhatItWasMadeOf) {
  const std::vector<Value> values = {1,
                                     kLeast,
                                     kMost,
                                     2.5,
                                     -0.0,
                                     kInfinity,
                                     -kInfinity,
                                     true,
                                     false,
                                     None(),
                                     "",
                                     "text",
                                     "grüße, 世界 🙂",
                                     std::string(1000, 'x'),
                                     Bytes{""},
                                     Bytes{std::string("\xff\0\x80", 3)}};
  const ShareableList list = Make(values);
  EXPECT_EQ(list.size(), values.size());
  EXPECT_THAT(list.Values(), IsOkAndHolds(ElementsAreArray(values)));
  size_t at = 0;
  for (const absl::StatusOr<Value> value : list) {
    EXPECT_THAT(value, IsOkAndHolds(values[at++]));
  }
  EXPECT_EQ(at, values.size());
  const ShareableList nan = Make({std::nan("")});
  ASSERT_OK_AND_ASSIGN(const Value value, nan.Get(0));
  EXPECT_TRUE(std::isnan(std::get<double>(value)));
}

TEST_F(ShareableListTest, MayBeEmpty) {
  const ShareableList list = Make({});
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.region().size(), 16u);
  EXPECT_THAT(list.Values(), IsOkAndHolds(ElementsAre()));
  EXPECT_THAT(list.Format(), IsOkAndHolds(""));
  EXPECT_THAT(list.Get(0), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(list.Get(-1), StatusIs(absl::StatusCode::kOutOfRange));
}

// docs/formats/shareable_list.md, byte for byte.
TEST_F(ShareableListTest, HasPythonsLayout) {
  const ShareableList list = Make({7, "abc", None(), true});
  EXPECT_EQ(list.region().size(), 8u + 5 * 8 + 4 * 8 + 4 * 8 + 4);
  const auto bytes = [&](size_t offset, size_t size) {
    return std::string(
        reinterpret_cast<const char*>(list.region().bytes().data()) + offset,
        size);
  };
  EXPECT_EQ(Word(list, 0), 4u);
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(Word(list, 8 + 8 * i), 8 * i);
  EXPECT_EQ(Word(list, 48), 7u);
  EXPECT_EQ(bytes(56, 8), std::string("abc\0\0\0\0\0", 8));
  EXPECT_EQ(Word(list, 64), 0u);
  EXPECT_EQ(bytes(72, 8), std::string("\0\0\0\0\0\0\0\1", 8));
  EXPECT_EQ(bytes(80, 8), std::string("q\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes(88, 8), std::string("8s\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes(96, 8), "xxxxxx?x");
  EXPECT_EQ(bytes(104, 8), "xxxxxxx?");
  EXPECT_EQ(bytes(112, 4), std::string("\0\1\3\0", 4));
  EXPECT_THAT(list.Format(), IsOkAndHolds("q8sxxxxxx?xxxxxxxx?"));
}

TEST_F(ShareableListTest, TextHasRoomUpToTheNextMultipleOf8) {
  const ShareableList list = Make({"", "1234567", "12345678", Bytes{"x"}, 1});
  EXPECT_THAT(list.Format(), IsOkAndHolds("8s8s16s8sq"));
  EXPECT_OK(list.Set(0, "12345678"));
  EXPECT_OK(list.Set(1, Bytes{"12345678"}));
  EXPECT_OK(list.Set(2, "1234567890123456"));
  EXPECT_OK(list.Set(4, "a number"));
  EXPECT_THAT(list.Values(), IsOkAndHolds(ElementsAre(
                                 Holds("12345678"), Holds(Bytes{"12345678"}),
                                 Holds("1234567890123456"), Holds(Bytes{"x"}),
                                 Holds("a number"))));
  for (const int64_t position : {0, 1, 3, 4}) {
    EXPECT_THAT(list.Set(position, "123456789"),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         HasSubstr("which has room for 8")));
  }
  EXPECT_THAT(list.Get(4), IsOkAndHolds(Value("a number")));  // Untouched.
}

TEST_F(ShareableListTest, EachElementMayBecomeOfAnyTypeThatFits) {
  const std::vector<Value> kinds = {None(), true, 12, 1.5, "text", Bytes{"b"}};
  const ShareableList list = Make({"room for 24 bytes here", "around", "it"});
  for (const Value& from : kinds) {
    for (const Value& to : kinds) {
      ASSERT_OK(list.Set(0, from));
      ASSERT_OK(list.Set(0, to));
      EXPECT_THAT(list.Get(0), IsOkAndHolds(to));
    }
  }
  // The room is not forgotten while a number stands there.
  ASSERT_OK(list.Set(0, 1));
  EXPECT_OK(list.Set(0, std::string(24, 'x')));
  EXPECT_THAT(list.Values(),
              IsOkAndHolds(ElementsAre(Holds(std::string(24, 'x')),
                                       Holds("around"), Holds("it"))));
}

TEST_F(ShareableListTest, ZerosAtTheEndOfATextAreLost) {
  const ShareableList list = Make({Bytes{std::string("a\0b\0\0", 5)}, "x"});
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Value(Bytes{{"a\0b", 3}})));
  ASSERT_OK(list.Set(1, std::string("y\0", 2)));
  EXPECT_THAT(list.Get(1), IsOkAndHolds(Value("y")));
  // A shorter text leaves nothing of a longer one.
  ASSERT_OK(list.Set(0, "abcdefgh"));
  ASSERT_OK(list.Set(0, "z"));
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Value("z")));
}

TEST_F(ShareableListTest, NegativePositionsCountFromTheEnd) {
  const ShareableList list = Make({1, 2, 3});
  EXPECT_THAT(list.Get(-1), IsOkAndHolds(Value(3)));
  EXPECT_THAT(list.Get(-3), IsOkAndHolds(Value(1)));
  EXPECT_OK(list.Set(-2, 5));
  EXPECT_THAT(list.Get(1), IsOkAndHolds(Value(5)));
  for (const int64_t position : {int64_t{3}, int64_t{-4}, kLeast, kMost}) {
    EXPECT_THAT(list.Get(position), StatusIs(absl::StatusCode::kOutOfRange));
    EXPECT_THAT(list.Set(position, 1), StatusIs(absl::StatusCode::kOutOfRange));
  }
}

TEST_F(ShareableListTest, CountsAndFindsAsPythonCompares) {
  const ShareableList list = Make({1, true, 1.0, "1", Bytes{"1"}, None(), 0,
                                   false, -0.0, std::nan(""), kMost, kLeast});
  EXPECT_THAT(list.Count(1), IsOkAndHolds(3u));
  EXPECT_THAT(list.Count(false), IsOkAndHolds(3u));
  EXPECT_THAT(list.Count("1"), IsOkAndHolds(1u));
  EXPECT_THAT(list.Count(None()), IsOkAndHolds(1u));
  EXPECT_THAT(list.Count(std::nan("")), IsOkAndHolds(0u));
  EXPECT_THAT(list.Count(0x1p63), IsOkAndHolds(0u));  // Not kMost, rounded.
  EXPECT_THAT(list.Count(-0x1p63), IsOkAndHolds(1u));
  EXPECT_THAT(list.Count(0.5), IsOkAndHolds(0u));
  EXPECT_THAT(list.Index(true), IsOkAndHolds(0u));
  EXPECT_THAT(list.Index(Bytes{"1"}), IsOkAndHolds(4u));
  EXPECT_THAT(list.Index(0.0), IsOkAndHolds(6u));
  EXPECT_THAT(list.Index(2), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ShareableListTest, RefusesAStrThatIsNoUtf8) {
  const ShareableList list = Make({"grüße"});
  for (const char* text :
       {"\x80", "\xc3", "\xc1\xbf", "\xe2\x82", "\xe0\x80\x80", "\xed\xa0\x80",
        "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_THAT(list.Set(0, text),
                StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(ShareableList::Create({text}),
                StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_OK(list.Set(0, Bytes{text}));
  }
  for (const char* text : {"\x7f", "\xc2\x80", "\xef\xbf\xbf", "\xed\x9f\xbf",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    ASSERT_OK(list.Set(0, text));
    EXPECT_THAT(list.Get(0), IsOkAndHolds(Value(text)));
  }
}

TEST_F(ShareableListTest, RefusesATextThatNoFormatCanName) {
  const std::string most(9'999'991, 'x');
  ASSERT_OK_AND_ASSIGN(const ShareableList list, ShareableList::Create({most}));
  EXPECT_THAT(list.Format(), IsOkAndHolds("9999992s"));
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Value(most)));
  EXPECT_THAT(
      ShareableList::Create({most + "x"}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("9999992 bytes")));
}

TEST_F(ShareableListTest, TravelsAndMeansTheSameList) {
  const ShareableList list = Make({1, "text"});
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(list));
  ASSERT_OK_AND_ASSIGN(const ShareableList far,
                       Decode<ShareableList>(std::move(frame)));
  Child child = Child::Fork([&] { EXPECT_OK(far.Set(0, "from far")); });
  EXPECT_EQ(child.Wait(), Exited(0));
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Value("from far")));
  ASSERT_OK_AND_ASSIGN(frame, Encode(ShareableList()));
  ASSERT_OK_AND_ASSIGN(const ShareableList none,
                       Decode<ShareableList>(std::move(frame)));
  EXPECT_TRUE(none.empty_handle());
}

TEST_F(ShareableListTest, ValuesTravelToo) {
  const std::vector<Value> values = {None(), true, 1, 1.5, "x", Bytes{"y"}};
  ASSERT_OK_AND_ASSIGN(Frame frame, Encode(values));
  EXPECT_THAT(Decode<std::vector<Value>>(std::move(frame)),
              IsOkAndHolds(values));
}

TEST_F(ShareableListTest, RefusesARegionOfAnotherType) {
  ASSERT_OK_AND_ASSIGN(Region other,
                       Region::Create({.size = 4096, .type_tag = 5}));
  EXPECT_THAT(ShareableList::Attach(std::move(other)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ShareableListTest, RefusesMemoryWithoutAList) {
  for (const size_t size : {1, 15, 16, 33, 100, 4096}) {
    for (const uint64_t count :
         {uint64_t{1}, uint64_t{2}, uint64_t{1} << 32, uint64_t{1} << 60,
          uint64_t{1} << 61, uint64_t{1} << 63, ~uint64_t{0}}) {
      for (const uint64_t data_size :
           {uint64_t{7}, uint64_t{4096}, ~uint64_t{7}, ~uint64_t{0}}) {
        ASSERT_OK_AND_ASSIGN(Region memory, Region::Create(size));
        const std::span<std::byte> bytes = memory.bytes();
        if (size >= 8) std::memcpy(bytes.data(), &count, 8);
        if (count < 3 && (count + 2) * 8 <= size) {
          std::memcpy(bytes.data() + (count + 1) * 8, &data_size, 8);
        } else if (count < 3 && size == 4096) {
          continue;
        }
        EXPECT_THAT(ShareableList::Attach(std::move(memory)),
                    StatusIs(absl::StatusCode::kDataLoss))
            << size << " " << count << " " << data_size;
      }
    }
  }
  // Sixteen zero bytes are an empty list.
  ASSERT_OK_AND_ASSIGN(Region zeros, Region::Create(16));
  EXPECT_OK(ShareableList::Attach(std::move(zeros)));
}

TEST_F(ShareableListTest, ChecksEachFieldOfAnElement) {
  // One element: offsets at 8 and 16, data at 24, format at 40, code at 48.
  const auto get_with = [&](size_t offset, uint64_t word) {
    const ShareableList list = Make({"12345678"});
    EXPECT_THAT(list.Format(), IsOkAndHolds("16s"));
    Word(list, offset) = word;
    absl::StatusOr<Value> value = list.Get(0);
    // Whatever it was, it can be set, unless the offsets are wrong.
    if (offset >= 40) {
      EXPECT_OK(list.Set(0, "new"));
      EXPECT_THAT(list.Get(0), IsOkAndHolds(Value("new")));
    }
    return value.status();
  };
  const auto lost = StatusIs(absl::StatusCode::kDataLoss);
  for (const uint64_t offset :
       {uint64_t{1}, uint64_t{16}, uint64_t{24}, uint64_t{1} << 40,
        ~uint64_t{7}, ~uint64_t{0}}) {
    EXPECT_THAT(get_with(8, offset), lost) << offset;
  }
  for (const uint64_t offset : {uint64_t{0}, uint64_t{12}, uint64_t{24},
                                uint64_t{1} << 40, ~uint64_t{7}}) {
    EXPECT_THAT(get_with(16, offset), lost) << offset;
  }
  for (const std::string_view format :
       {"", "s", "q", "24s", "9999999s", "-16s", "16", "1 6s", "16sq",
        "xxxxxx?x", "999999999"}) {
    uint64_t word = 0;
    std::memcpy(&word, format.data(), std::min<size_t>(format.size(), 8));
    EXPECT_THAT(get_with(40, word), lost) << format;
  }
  for (const std::byte code :
       {std::byte{0}, std::byte{3}, std::byte{4}, std::byte{0xff}}) {
    const ShareableList list = Make({"12345678"});
    list.region().bytes()[48] = code;
    EXPECT_THAT(list.Get(0), lost) << int(code);
  }
  const ShareableList list = Make({"12345678"});
  Word(list, 24) = ~uint64_t{0};
  EXPECT_THAT(list.Get(0),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no UTF-8")));
}

// Whatever a peer writes, and whenever: a status or a value, and no access
// outside, which a sanitizer or the guard of the next mapping would see.
// Python could not make such a list, but somebody else did.
TEST_F(ShareableListTest, RoomMayBeMoreThanAFormatCanName) {
  constexpr size_t kRoom = 10'000'000;
  ASSERT_OK_AND_ASSIGN(Region region, Region::Create({.size = 24 + kRoom + 9}));
  const std::array<uint64_t, 3> head = {1, 0, kRoom};
  std::memcpy(region.bytes().data(), head.data(), sizeof(head));
  ASSERT_OK_AND_ASSIGN(const ShareableList list,
                       ShareableList::Attach(std::move(region)));
  ASSERT_OK(list.Set(0, "text"));
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Holds(std::string("text"))));
}

TEST_F(ShareableListTest, SurvivesAnyBytes) {
  std::mt19937_64 random(7);
  const std::vector<Value> values = {1,    "12345678", None(), Bytes{"bytes"},
                                     true, 2.5,        ""};
  const ShareableList model = Make(values);
  const std::span<std::byte> sound = model.region().bytes();
  const std::array<uint64_t, 8> odd = {
      0,           1, 7, 8, uint64_t{1} << 31, uint64_t{1} << 63, ~uint64_t{0},
      ~uint64_t{7}};
  for (int round = 0; round < 20'000; ++round) {
    // A region of its own for each.
    ASSERT_OK_AND_ASSIGN(Region memory, Region::Create(sound.size()));
    const std::span<std::byte> bytes = memory.bytes();
    std::copy(sound.begin(), sound.end(), bytes.begin());
    const auto mutate = [&] {
      const int changes = 1 + static_cast<int>(random() % 4);
      for (int i = 0; i < changes; ++i) {
        const size_t word = random() % (bytes.size() / 8);
        const uint64_t value =
            random() % 2 == 0 ? odd[random() % odd.size()] : random();
        if (random() % 2 == 0) {
          std::memcpy(bytes.data() + 8 * word, &value, 8);
        } else {
          bytes[random() % bytes.size()] = static_cast<std::byte>(value);
        }
      }
    };
    const bool before = random() % 2 == 0;
    if (before) mutate();
    absl::StatusOr<ShareableList> list =
        ShareableList::Attach(std::move(memory));
    if (!list.ok()) continue;
    if (!before) mutate();
    for (const absl::StatusOr<Value> value : *list) (void)value;
    (void)list->Format();
    (void)list->Count(1);
    (void)list->Index("text");
    for (int i = 0; i < 3; ++i) {
      const auto position = static_cast<int64_t>(random() % (list->size() + 1));
      const Value& value = values[random() % values.size()];
      if (list->Set(position, value).ok()) {
        EXPECT_THAT(list->Get(position), IsOkAndHolds(value));
      }
    }
  }
}

TEST_F(ShareableListTest, EmptyHandleIsFatalToUse) {
  const ShareableList none;
  EXPECT_EQ(none.size(), 0u);
  EXPECT_DEATH((void)none.Get(0), "never created or received");
}

}  // namespace
}  // namespace cohort
