// SPDX-License-Identifier: Apache-2.0
//
// What the codec does with bytes that no Encoder wrote: a status that says
// where, no crash, no memory to speak of.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <forward_list>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <stack>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/time/time.h"
#include "cohort/serialize/codec.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

// The largest block that was asked for since it was last set to zero.
size_t g_largest = 0;

}  // namespace

// Not inlined: GCC would pair the malloc() of one with the delete of another.
[[gnu::noinline]] void* operator new(size_t size) {
  if (size > g_largest) g_largest = size;
  void* block = std::malloc(size == 0 ? 1 : size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
[[gnu::noinline]] void operator delete(void* block) noexcept {
  std::free(block);
}
[[gnu::noinline]] void operator delete(void* block, size_t) noexcept {
  std::free(block);
}

namespace cohort {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;

struct Base {
  int32_t n = 0;
  virtual ~Base() = default;
  template <class Archive>
  void serialize(Archive& a) {
    a(n);
  }
};
struct Leaf : Base {
  std::string text;
  template <class Archive>
  void serialize(Archive& a) {
    a(n, text);
  }
};

// A type with a load_and_construct(), which can be made to meet itself.
class Ring {
 public:
  explicit Ring(std::shared_ptr<Ring> next) : next_(std::move(next)) {}
  template <class Archive>
  void save(Archive& a) const {
    a(next_);
  }
  template <class Archive>
  static void load_and_construct(Archive& a, cereal::construct<Ring>& make) {
    std::shared_ptr<Ring> next;
    a(next);
    make(next);
  }

 private:
  std::shared_ptr<Ring> next_;
};

// Large in memory, one byte on the wire.
struct Large {
  char ballast[1 << 16] = {};
  uint8_t byte = 0;
  template <class Archive>
  void serialize(Archive& a) {
    a(byte);
  }
};

// Something of everything.
struct Everything {
  int32_t number = 0;
  bool flag = false;
  std::string text;
  std::vector<int32_t> numbers;
  std::vector<bool> bits;
  std::vector<std::string> texts;
  std::map<std::string, std::vector<double>> map;
  std::unordered_set<int32_t> set;
  std::optional<std::string> optional;
  std::variant<int32_t, std::string, std::vector<int32_t>> variant;
  std::tuple<int8_t, std::pair<std::string, bool>> tuple;
  std::unique_ptr<std::string> unique;
  std::shared_ptr<std::string> shared;
  std::shared_ptr<std::string> again;
  std::shared_ptr<Base> base;
  absl::Status status;
  absl::StatusOr<std::string> result;
  absl::Duration duration;
  std::vector<Everything> kids;

  template <class Archive>
  void serialize(Archive& a) {
    a(number, flag, text, numbers, bits, texts, map, set, optional, variant,
      tuple, unique, shared, again, base, status, result, duration, kids);
  }
};

Everything MakeEverything(int depth) {
  Everything e;
  e.number = 7;
  e.flag = true;
  e.text = "text";
  e.numbers = {1, 2, 3};
  e.bits = {true, false, true};
  e.texts = {"a", "bb", ""};
  e.map = {{"x", {1, 2}}, {"y", {}}};
  e.set = {4, 5};
  e.optional = "here";
  e.variant = std::vector<int32_t>{6};
  e.tuple = {1, {"p", true}};
  e.unique = std::make_unique<std::string>("unique");
  e.shared = std::make_shared<std::string>("shared");
  e.again = e.shared;
  auto leaf = std::make_shared<Leaf>();
  leaf->text = "leaf";
  e.base = leaf;
  e.status = absl::AbortedError("aborted");
  e.status.SetPayload("url", absl::Cord("payload"));
  e.result = "fine";
  e.duration = absl::Milliseconds(1500);
  if (depth > 0) {
    e.kids.push_back(MakeEverything(depth - 1));
    e.kids.emplace_back();
  }
  return e;
}

template <class T>
absl::Status StatusOfDecode(std::string_view bytes) {
  return Decode<T>(bytes).status();
}

struct Case {
  const char* name;
  std::function<absl::Status(std::string_view)> decode;
  std::string bytes;
  const char* expected;  // Part of the message.
};

std::string Bytes(std::initializer_list<int> bytes) {
  std::string result;
  for (int byte : bytes) result += static_cast<char>(byte);
  return result;
}
std::string Times(int count, int byte) {
  return std::string(static_cast<size_t>(count), static_cast<char>(byte));
}

// 2^31, 2^32 - 1, 2^63 and 2^64 - 1 as lengths; -1 is the last of them.
const std::string k2To31 = Bytes({0x80, 0x80, 0x80, 0x80, 0x08});
const std::string kMax32 = Bytes({0xff, 0xff, 0xff, 0xff, 0x0f});
const std::string k2To63 = Times(9, 0x80) + Bytes({0x01});
const std::string kMinusOne = Times(9, 0xff) + Bytes({0x01});

std::vector<Case> Cases() {
  using Ints = std::vector<int32_t>;
  using Texts = std::vector<std::string>;
  using Map = std::map<std::string, int32_t>;
  std::vector<Case> cases = {
      {"nothing", StatusOfDecode<std::string>, "", "byte 0 of 0"},
      {"overlong zero", StatusOfDecode<std::string>, Bytes({0x80, 0}),
       "shortest form"},
      {"overlong one", StatusOfDecode<std::string>, Bytes({0x81, 0x80, 0}),
       "shortest form"},
      {"more than 64 bits", StatusOfDecode<std::string>,
       Times(9, 0xff) + Bytes({0x02}), "shortest form"},
      {"eleven bytes of a number", StatusOfDecode<std::string>, Times(11, 0x80),
       "shortest form"},
      {"a number without end", StatusOfDecode<std::string>, Times(5, 0x80),
       "0 are left"},
      {"bool of 2", StatusOfDecode<bool>, Bytes({2}), "bool"},
      {"bool of 255", StatusOfDecode<std::optional<int>>, Bytes({255}), "bool"},
      {"alternative 3 of 2", StatusOfDecode<std::variant<int, bool>>,
       Bytes({3, 0}), "alternative"},
      {"duplicate key", StatusOfDecode<Map>,
       Bytes({2, 1, 'a', 1, 0, 0, 0, 1, 'a', 2, 0, 0, 0}), "another key"},
      {"duplicate element", StatusOfDecode<std::set<bool>>, Bytes({2, 1, 1}),
       "another key"},
      {"bits after the last", StatusOfDecode<std::vector<bool>>,
       Bytes({3, 0x0f}), "last bit"},
      {"status code 17", StatusOfDecode<std::optional<absl::Status>>,
       Bytes({1, 17, 0, 0}), "status code"},
      {"an error that is none", StatusOfDecode<absl::StatusOr<int>>,
       Bytes({0, 0}), "status of an error"},
      {"a second and a half of ticks", StatusOfDecode<absl::Duration>,
       Times(8, 0) + Bytes({0, 0x28, 0x6b, 0xee}), "part of a second"},
      {"an empty type of 1", StatusOfDecode<std::monostate>, Bytes({1}),
       "empty type"},
      {"a first object with id 2", StatusOfDecode<std::shared_ptr<int32_t>>,
       Bytes({2, 0, 0, 0x80, 1, 2, 3, 4}), "next id"},
      {"an object nobody sent", StatusOfDecode<std::shared_ptr<int32_t>>,
       Bytes({1, 0, 0, 0}), "id of a shared object"},
      {"an object of another type",
       StatusOfDecode<
           std::pair<std::shared_ptr<uint64_t>, std::shared_ptr<std::string>>>,
       Bytes({1, 0, 0, 0x80}) + Times(8, 0x41) + Bytes({1, 0, 0, 0}),
       "pointer's type"},
      {"an object that contains itself", StatusOfDecode<std::shared_ptr<Ring>>,
       Bytes({1, 0, 0, 0x80, 1, 0, 0, 0}), "is constructed"},
      {"an unknown polymorphic id", StatusOfDecode<std::shared_ptr<Base>>,
       Bytes({5, 0, 0, 0}), "id of a polymorphic type"},
      {"an unknown polymorphic name", StatusOfDecode<std::shared_ptr<Base>>,
       Bytes({1, 0, 0, 0x80, 3, 'X', 'Y', 'Z'}), "XYZ"},
  };
  for (const std::string& length : {k2To31, kMax32, k2To63, kMinusOne}) {
    for (const auto& decode :
         {StatusOfDecode<std::string>, StatusOfDecode<std::u32string>,
          StatusOfDecode<Ints>, StatusOfDecode<Texts>,
          StatusOfDecode<std::vector<bool>>, StatusOfDecode<std::deque<int>>,
          StatusOfDecode<std::list<Large>>,
          StatusOfDecode<std::forward_list<int>>,
          StatusOfDecode<std::vector<Large>>,
          StatusOfDecode<std::valarray<double>>, StatusOfDecode<Map>,
          StatusOfDecode<std::unordered_map<int, int>>,
          StatusOfDecode<std::unordered_set<int>>,
          StatusOfDecode<std::set<int>>,
          StatusOfDecode<std::vector<std::tuple<>>>,
          StatusOfDecode<std::stack<int>>}) {
      cases.push_back(
          {"a huge length", decode, length + Times(20, 0), "bytes are left"});
    }
  }
  return cases;
}

TEST(CodecMalformedTest, EachIsRefusedWithAReasonAndWithoutMemory) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    g_largest = 0;
    const absl::Status status = c.decode(c.bytes);
    // Messages take a little; the objects themselves up to 64 KiB.
    EXPECT_LT(g_largest, size_t{100'000});
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(c.expected)));
  }
}

TEST(CodecMalformedTest, NotATextAndNotANumberAreNoConcernOfTheCodec) {
  EXPECT_THAT(Decode<std::string>(Bytes({2, 0xc3, 0x28})), IsOk());
  const std::string nan = Times(6, 0) + Bytes({0xf8, 0x7f});
  auto map = Decode<std::map<double, bool>>(Bytes({1}) + nan + Bytes({1}));
  EXPECT_THAT(map, IsOk());
}

TEST(CodecMalformedTest, MemoryGrowsWithWhatIsReadNotWithWhatIsPromised) {
  // A thousand promised, as many as there are bytes, but the second is broken.
  std::string bytes = Bytes({0xe8, 0x07, 1, 2}) + Times(1000, 2);
  g_largest = 0;
  EXPECT_THAT(Decode<std::vector<std::optional<Large>>>(bytes),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("bool")));
  EXPECT_LT(g_largest, size_t{1'000'000});
}

// Every prefix of a message that holds something of everything.
TEST(CodecMalformedTest, CutAnywhereItIsRefused) {
  absl::StatusOr<Frame> frame = Encode(MakeEverything(1));
  ASSERT_THAT(frame, IsOk());
  ASSERT_THAT(Decode<Everything>(frame->bytes()), IsOk());
  for (size_t size = 0; size < frame->size(); ++size) {
    std::unique_ptr<char[]> cut(new char[size]);
    std::copy_n(frame->data(), size, cut.get());
    ASSERT_THAT(Decode<Everything>({cut.get(), size}),
                StatusIs(absl::StatusCode::kDataLoss))
        << "cut at " << size;
  }
}

// Messages with a few bytes changed: most are refused, some are others. What is
// accepted can be encoded again; under AddressSanitizer nothing is touched that
// should not be.
TEST(CodecMalformedTest, ChangedAnywhereItIsAnotherMessageOrNone) {
  constexpr int kRounds = 20'000;
  absl::StatusOr<Frame> frame = Encode(MakeEverything(2));
  ASSERT_THAT(frame, IsOk());
  std::mt19937 random(20'240'229);
  int accepted = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes(frame->bytes());
    for (uint32_t left = 1 + random() % 3; left > 0; --left) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
          break;
        case 2:
          bytes.erase(at, 1 + random() % 4);
          if (bytes.empty()) bytes = "x";
          break;
        default:
          bytes.insert(at, 1 + random() % 4, static_cast<char>(random()));
          break;
      }
    }
    g_largest = 0;
    absl::StatusOr<Everything> back = Decode<Everything>(bytes);
    ASSERT_LT(g_largest, size_t{100'000});
    if (back.ok()) {
      ++accepted;
      ASSERT_THAT(Encode(*back), IsOk());
    } else {
      ASSERT_THAT(back, StatusIs(absl::StatusCode::kDataLoss));
    }
  }
  // Numbers and letters may be anything, so some must get through, or the test
  // tests nothing; lengths and flags may not.
  EXPECT_GT(accepted, kRounds / 20);
  EXPECT_LT(accepted, kRounds);
}

TEST(CodecMalformedTest, NoiseIsRefused) {
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    g_largest = 0;
    (void)Decode<Everything>(bytes);
    (void)Decode<std::vector<std::map<int, std::string>>>(bytes);
    (void)Decode<std::vector<std::shared_ptr<Base>>>(bytes);
    ASSERT_LT(g_largest, size_t{100'000});
  }
}

}  // namespace
}  // namespace cohort

CEREAL_REGISTER_TYPE_WITH_NAME(cohort::Leaf, "Leaf")
CEREAL_REGISTER_POLYMORPHIC_RELATION(cohort::Base, cohort::Leaf)
