// SPDX-License-Identifier: Apache-2.0
//
// What the codec does with bytes that no Encoder wrote: a status that says
// where, no crash, no memory to speak of. testdata/malformed has a file for each
// kind of them, with what is said of it in MANIFEST.

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <sstream>
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
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/codec.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

// The largest block that was asked for since it was last set to zero, and all
// of them together.
size_t g_largest = 0;
size_t g_total = 0;

}  // namespace

// Not inlined: GCC would pair the malloc() of one with the delete of another.
[[gnu::noinline]] void* operator new(size_t size,
                                     const std::nothrow_t&) noexcept {
  if (size > g_largest) g_largest = size;
  g_total += size;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void* operator new(size_t size) {
  void* block = operator new(size, std::nothrow);
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
using ::testing::AllOf;
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

// Can be made to own itself, and to be the last of a long chain.
struct Link {
  std::shared_ptr<Link> next;
  template <class Archive>
  void serialize(Archive& a) {
    a(next);
  }
};

struct Tree {
  std::vector<Tree> kids;
  template <class Archive>
  void serialize(Archive& a) {
    a(kids);
  }
};

struct Flags {
  int32_t n = 0;
  bool one = false;
  bool more[3] = {};
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
  std::unordered_map<std::string, bool> hashed;
  std::vector<Flags> flags;
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
    a(number, flag, text, numbers, bits, texts, map, set, hashed, flags,
      optional, variant, tuple, unique, shared, again, base, status, result,
      duration, kids);
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
  e.hashed = {{"one", true}, {"two", false}, {"three", true}};
  e.flags = {{1, true, {true, false, true}}, {}};
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

std::string Bytes(std::initializer_list<int> bytes) {
  std::string result;
  for (int byte : bytes) result += static_cast<char>(byte);
  return result;
}
std::string Times(int count, int byte) {
  return std::string(static_cast<size_t>(count), static_cast<char>(byte));
}

// What the manifest calls types.
using Read = absl::Status (*)(std::string_view);
const std::map<std::string, Read>& Types() {
  static const auto* const types = new std::map<std::string, Read>{
      {"bits", StatusOfDecode<std::vector<bool>>},
      {"bitset", StatusOfDecode<std::bitset<15>>},
      {"bool", StatusOfDecode<bool>},
      {"bool_set", StatusOfDecode<std::set<bool>>},
      {"civil_day", StatusOfDecode<absl::CivilDay>},
      {"civil_second", StatusOfDecode<absl::CivilSecond>},
      {"cord", StatusOfDecode<absl::Cord>},
      {"deque", StatusOfDecode<std::deque<int>>},
      {"descriptor", StatusOfDecode<os::Descriptor>},
      {"duration", StatusOfDecode<absl::Duration>},
      {"everything", StatusOfDecode<Everything>},
      {"flags", StatusOfDecode<Flags>},
      {"forward_list", StatusOfDecode<std::forward_list<int>>},
      {"ints", StatusOfDecode<std::vector<int32_t>>},
      {"large", StatusOfDecode<std::vector<Large>>},
      {"link", StatusOfDecode<std::shared_ptr<Link>>},
      {"links", StatusOfDecode<std::vector<std::shared_ptr<Link>>>},
      {"list", StatusOfDecode<std::list<Large>>},
      {"map", StatusOfDecode<std::map<std::string, int32_t>>},
      {"optional", StatusOfDecode<std::optional<int>>},
      {"path", StatusOfDecode<std::filesystem::path>},
      {"polymorphic", StatusOfDecode<std::shared_ptr<Base>>},
      {"priority_queue", StatusOfDecode<std::priority_queue<uint8_t>>},
      {"result", StatusOfDecode<absl::StatusOr<int>>},
      {"self", StatusOfDecode<std::shared_ptr<Ring>>},
      {"set", StatusOfDecode<std::set<int>>},
      {"shared_int", StatusOfDecode<std::shared_ptr<int32_t>>},
      {"shared_two",
       StatusOfDecode<
           std::pair<std::shared_ptr<uint64_t>, std::shared_ptr<std::string>>>},
      {"stack", StatusOfDecode<std::stack<int>>},
      {"status", StatusOfDecode<std::optional<absl::Status>>},
      {"string", StatusOfDecode<std::string>},
      {"texts", StatusOfDecode<std::vector<std::string>>},
      {"tree", StatusOfDecode<Tree>},
      {"u32string", StatusOfDecode<std::u32string>},
      {"unique", StatusOfDecode<std::unique_ptr<int32_t>>},
      {"unit", StatusOfDecode<std::monostate>},
      {"units", StatusOfDecode<std::vector<std::tuple<>>>},
      {"unordered_map", StatusOfDecode<std::unordered_map<int, int>>},
      {"unordered_multimap",
       StatusOfDecode<std::unordered_multimap<bool, uint8_t>>},
      {"unordered_set", StatusOfDecode<std::unordered_set<int>>},
      {"valarray", StatusOfDecode<std::valarray<double>>},
      {"variant", StatusOfDecode<std::variant<int, bool>>},
  };
  return *types;
}

std::string FileContent(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(CodecMalformedTest, EachIsRefusedWithAReasonAndWithoutMemory) {
  const std::filesystem::path folder = "serialize/testdata/malformed";
  std::ifstream manifest(folder / "MANIFEST");
  std::set<std::string> named = {"MANIFEST"};
  for (std::string line; std::getline(manifest, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string file;
    std::string type;
    std::string expected;
    words >> file >> type >> std::ws;
    std::getline(words, expected);
    SCOPED_TRACE(file);
    ASSERT_TRUE(std::filesystem::exists(folder / file));
    ASSERT_TRUE(Types().contains(type)) << type;
    named.insert(file);
    const std::string bytes = FileContent(folder / file);
    g_largest = 0;
    g_total = 0;
    const absl::Status status = Types().at(type)(bytes);
    // Messages take a little; the objects themselves up to 64 KiB.
    EXPECT_LT(g_largest, size_t{100'000});
    EXPECT_LT(g_total, 200'000 + 40 * bytes.size());
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr("at byte "), HasSubstr(expected))));
  }
  EXPECT_GT(named.size(), 100u);
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    EXPECT_TRUE(named.contains(file.path().filename()))
        << file.path() << " is not in MANIFEST";
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

// What is accepted after a change can be sent on, and is then what it was.
void ExpectReadOrRefused(const std::string& bytes, int* accepted) {
  g_largest = 0;
  absl::StatusOr<Everything> back = Decode<Everything>(bytes);
  ASSERT_LT(g_largest, size_t{100'000});
  if (!back.ok()) {
    ASSERT_THAT(back,
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("at byte ")));
    return;
  }
  ++*accepted;
  absl::StatusOr<Frame> first = Encode(*back);
  ASSERT_THAT(first, IsOk());
  absl::StatusOr<Everything> same = Decode<Everything>(first->bytes());
  ASSERT_THAT(same, IsOk());
  ASSERT_EQ(Encode(*same)->bytes(), first->bytes());
}

TEST(CodecMalformedTest, EverySingleBitFlippedItIsAnotherMessageOrNone) {
  absl::StatusOr<Frame> frame = Encode(MakeEverything(1));
  ASSERT_THAT(frame, IsOk());
  std::string bytes(frame->bytes());
  int accepted = 0;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    SCOPED_TRACE(bit);
    const char flip = static_cast<char>(1 << bit % 8);
    bytes[bit / 8] ^= flip;
    ASSERT_NO_FATAL_FAILURE(ExpectReadOrRefused(bytes, &accepted));
    bytes[bit / 8] ^= flip;
  }
  EXPECT_GT(accepted, 0);
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
    ASSERT_NO_FATAL_FAILURE(ExpectReadOrRefused(bytes, &accepted));
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
