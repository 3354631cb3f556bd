// SPDX-License-Identifier: Apache-2.0
//
// A table of what travels, with its bytes: whoever changes them, by a new
// version of a compiler or of Abseil, say, learns of it here.
// docs/formats/wire.md explains them.

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <initializer_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <span>
#include <stack>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/fixed_array.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/container/node_hash_map.h"
#include "absl/container/node_hash_set.h"
#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "absl/types/variant.h"
#include "cereal/types/map.hpp"
#include "cereal/types/string.hpp"
#include "cereal/types/vector.hpp"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/encodable.h"
#include "cohort/serialize/frame.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace user {

// What users wrote for cereal, as cereal's documentation has it.
struct Member {
  int32_t n = 0;
  std::string text;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(CEREAL_NVP(n), cereal::make_nvp("the text", text));
  }
  friend bool operator==(const Member&, const Member&) = default;
};
struct SaveLoad {
  int32_t n = 0;
  template <class Archive>
  void save(Archive& archive) const {
    archive(n + 1);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(n);
    --n;
  }
  friend bool operator==(const SaveLoad&, const SaveLoad&) = default;
};
struct Minimal {
  int16_t n = 0;
  template <class Archive>
  int16_t save_minimal(const Archive&) const {
    return n;
  }
  template <class Archive>
  void load_minimal(const Archive&, const int16_t& value) {
    n = value;
  }
  friend bool operator==(const Minimal&, const Minimal&) = default;
};
struct Versioned {
  int32_t n = 0;
  template <class Archive>
  void serialize(Archive& archive, const uint32_t version) {
    archive(n);
    if (version != 5) n = -1;
  }
  friend bool operator==(const Versioned&, const Versioned&) = default;
};
struct Free {
  int32_t n = 0;
  friend bool operator==(const Free&, const Free&) = default;
};
template <class Archive>
void serialize(Archive& archive, Free& value) {
  archive& value.n;
}
struct FreePair {
  int32_t n = 0;
  friend bool operator==(const FreePair&, const FreePair&) = default;
};
template <class Archive>
void save(Archive& archive, const FreePair& value) {
  archive << value.n;
}
template <class Archive>
void load(Archive& archive, FreePair& value) {
  archive >> value.n;
}
struct FreeMinimal {
  std::string text;
  friend bool operator==(const FreeMinimal&, const FreeMinimal&) = default;
};
template <class Archive>
std::string save_minimal(const Archive&, const FreeMinimal& value) {
  return value.text;
}
template <class Archive>
void load_minimal(const Archive&, FreeMinimal& value, const std::string& text) {
  value.text = text;
}
class Secret {
 public:
  Secret() = default;
  explicit Secret(int32_t n) : n_(n) {}
  friend bool operator==(const Secret&, const Secret&) = default;

 private:
  friend class cereal::access;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(n_);
  }
  int32_t n_ = 0;
};
struct Derived : Member {
  double more = 0;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::base_class<Member>(this), more);
  }
  friend bool operator==(const Derived&, const Derived&) = default;
};
struct Left : virtual Member {
  Left() = default;
  Left(const Left&) = default;
  Left& operator=(const Left&) = default;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::virtual_base_class<Member>(this));
  }
};
struct Right : virtual Member {
  Right() = default;
  Right(const Right&) = default;
  Right& operator=(const Right&) = default;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::virtual_base_class<Member>(this));
  }
};
struct Diamond : Left, Right {
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::base_class<Left>(this), cereal::base_class<Right>(this));
  }
  friend bool operator==(const Diamond& a, const Diamond& b) {
    return a.n == b.n && a.text == b.text;
  }
};
struct Counter {
  std::atomic<int32_t> n = 0;
  Counter() = default;
  Counter(const Counter& other) : n(other.n.load()) {}
  template <class Archive>
  void serialize(Archive& archive) {
    archive(n);
  }
  friend bool operator==(const Counter& a, const Counter& b) {
    return a.n == b.n;
  }
};
struct Raw {
  std::array<char, 3> bytes = {};
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::binary_data(bytes.data(), bytes.size()));
  }
  friend bool operator==(const Raw&, const Raw&) = default;
};

// Without a serialize().
struct Padded {
  int8_t small = 0;
  int32_t large = 0;
  friend bool operator==(const Padded&, const Padded&) = default;
};
struct Checked {
  int32_t n = 0;
  bool on = false;
  std::optional<int8_t> maybe;
  bool more[2] = {};
  friend bool operator==(const Checked&, const Checked&) = default;
};
struct BitFields {
  bool a : 1;
  uint32_t b : 7;
  bool c;
  friend bool operator==(const BitFields&, const BitFields&) = default;
};
enum class Color : uint8_t { kRed, kGreen = 7 };

// Polymorphic, with CEREAL_REGISTER_TYPE below.
struct Animal {
  virtual ~Animal() = default;
  [[nodiscard]] virtual std::string Says() const = 0;
};
struct Dog : Animal {
  int32_t age = 0;
  [[nodiscard]] std::string Says() const override { return "woof"; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(age);
  }
};
class Cat : public Animal {
 public:
  explicit Cat(std::string name) : name_(std::move(name)) {}
  [[nodiscard]] std::string Says() const override { return name_; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(name_);
  }
  template <class Archive>
  static void load_and_construct(Archive& archive,
                                 cereal::construct<Cat>& construct) {
    std::string name;
    archive(name);
    construct(name);
  }

 private:
  std::string name_;
};

// A tree whose leaves know their parent.
struct Node {
  int32_t n = 0;
  std::weak_ptr<Node> parent;
  std::vector<std::shared_ptr<Node>> kids;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(n, parent, kids);
  }
};

// A graph that puts off what would nest.
struct Station {
  int32_t n = 0;
  std::vector<std::weak_ptr<Station>> lines;
  std::shared_ptr<Station> next;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(n, cereal::defer(lines), cereal::defer(next));
  }
};

}  // namespace user

CEREAL_CLASS_VERSION(user::Versioned, 5)
CEREAL_REGISTER_TYPE(user::Dog)
CEREAL_REGISTER_TYPE_WITH_NAME(user::Cat, "Cat")
CEREAL_REGISTER_POLYMORPHIC_RELATION(user::Animal, user::Dog)
CEREAL_REGISTER_POLYMORPHIC_RELATION(user::Animal, user::Cat)

namespace cohort {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;

std::string Hex(std::string_view bytes) {
  return absl::BytesToHexString({bytes.data(), bytes.size()});
}

// A heap has no operator==.
template <class T>
concept Comparable = requires(const T& value) {
  { value == value } -> std::same_as<bool>;
};

template <class T, bool compare = true>
void Row(const T& value, std::string_view bytes) {
  SCOPED_TRACE(typeid(T).name());
  absl::StatusOr<Frame> frame = Encode(value);
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(Hex(frame->bytes()), bytes);
  absl::StatusOr<T> back = Decode<T>(frame->bytes());
  // Not IsOk(): a bitset can be made of any pointer, clang 14 finds.
  ASSERT_TRUE(back.ok()) << back.status();
  if constexpr (compare) {
    if constexpr (Comparable<T>) {
      EXPECT_TRUE(*back == value);
    }
  }
  // What arrived, which was built in another order, is sent on alike.
  EXPECT_EQ(Hex(Encode(*back)->bytes()), bytes);
}
// Pointers that arrive are others.
template <class T>
void RowOfPointers(const T& value, std::string_view bytes) {
  Row<T, false>(value, bytes);
}

template <class T>
T Pushed(std::initializer_list<int> values) {
  T adaptor;
  for (int value : values) adaptor.push(value);
  return adaptor;
}

TEST(CodecTypesTest, OfTheLanguage) {
  Row(true, "01");
  Row('x', "78");
  Row(int16_t{-2}, "feff");
  Row(uint64_t{1} << 40, "0000000000010000");
  Row(0.5, "000000000000e03f");
  Row(1.0L / 4, "0000000000000080fd3f000000000000");
  Row(user::Color::kGreen, "07");
  Row(std::byte{9}, "09");
  Row(U'x', "78000000");
}

TEST(CodecTypesTest, OfTheStandardLibrary) {
  Row(std::string("ab"), "026162");
  Row(std::wstring(L"a"), "0161000000");
  Row(std::u8string(u8"a"), "0161");
  Row(std::u16string(u"ab"), "0261006200");
  Row(std::filesystem::path("/a"), "022f61");
  Row(std::vector<int16_t>{1, 2}, "0201000200");
  Row(std::vector<bool>{true, false, true}, "0305");
  Row(std::bitset<10>("1000000001"), "0102");
  Row(std::bitset<0>(), "00");
  Row(std::deque<int8_t>{1, 2}, "020102");
  Row(std::list<std::string>{"a", ""}, "02016100");
  Row(std::forward_list<int8_t>{3, 2, 1}, "03030201");
  Row(std::array<int8_t, 3>{1, 2, 3}, "010203");
  Row(std::array<std::string, 2>{"a", "b"}, "01610162");
  Row(std::valarray<int16_t>{1, 2}, "0201000200");
  Row(std::set<int8_t>{3, 1, 2}, "03010203");
  Row(std::multiset<int8_t>{2, 1, 2}, "03010202");
  Row(std::map<std::string, int8_t>{{"b", 1}, {"a", 2}},
      "0201610201"
      "6201");
  Row(std::multimap<int8_t, bool>{{1, true}, {1, false}}, "0201010100");
  Row(std::unordered_set<int8_t>{3, 1, 2}, "03010203");
  Row(std::unordered_multiset<int8_t>{2, 1, 2}, "03010202");
  Row(std::unordered_map<std::string, int8_t>{{"b", 1}, {"a", 2}},
      "02016102016201");
  Row(std::unordered_multimap<int8_t, bool>{{1, true}, {1, false}},
      "0201000101");
  Row(Pushed<std::stack<int>>({1, 2}), "020100000002000000");
  Row(Pushed<std::queue<int>>({1, 2}), "020100000002000000");
  Row(Pushed<std::priority_queue<int>>({1, 2}), "020200000001000000");
  Row(std::pair<int8_t, std::string>(1, "a"), "010161");
  Row(std::tuple<int8_t, bool, char>(1, true, 'a'), "010161");
  Row(std::tuple<>(), "00");
  Row(std::monostate(), "00");
  Row(std::optional<int8_t>(5), "0105");
  Row(std::optional<int8_t>(), "00");
  Row(std::variant<int8_t, std::string>("a"), "010161");
  Row(std::complex<float>(1, -1), "0000803f000080bf");
  Row(std::chrono::seconds(5), "0500000000000000");
  Row(std::chrono::system_clock::time_point(std::chrono::nanoseconds(1)),
      "0100000000000000");
  Row(std::chrono::year_month_day(std::chrono::year(2024),
                                  std::chrono::month(2), std::chrono::day(29)),
      "e807021d");
}

TEST(CodecTypesTest, OfAbseil) {
  Row(absl::Nanoseconds(1), "000000000000000004000000");
  Row(absl::InfiniteDuration(), "0100000000000000ffffffff");
  Row(absl::FromUnixSeconds(1), "010000000000000000000000");
  Row(absl::CivilSecond(2024, 2, 29, 1, 2, 3), "e807000000000000021d010203");
  Row(absl::CivilMinute(2024, 2, 29, 1, 2), "e807000000000000021d010200");
  Row(absl::CivilHour(2024, 2, 29, 1), "e807000000000000021d010000");
  Row(absl::CivilDay(2024, 2, 29), "e807000000000000021d000000");
  Row(absl::CivilMonth(2024, 2), "e8070000000000000201000000");
  Row(absl::CivilYear(-1), "ffffffffffffffff0101000000");
  Row(absl::flat_hash_map<std::string, int8_t>{{"b", 1}, {"a", 2}},
      "02016102016201");
  Row(absl::flat_hash_set<int8_t>{3, 1, 2}, "03010203");
  Row(absl::node_hash_map<int8_t, bool>{{2, true}, {1, false}}, "0201000201");
  Row(absl::node_hash_set<int8_t>{3, 1, 2}, "03010203");
  Row(absl::btree_map<int8_t, bool>{{2, true}, {1, false}}, "0201000201");
  Row(absl::btree_set<int8_t>{3, 1, 2}, "03010203");
  Row(absl::btree_multimap<int8_t, bool>{{1, true}, {1, false}}, "0201010100");
  Row(absl::btree_multiset<int8_t>{2, 1, 2}, "03010202");
  Row(absl::InlinedVector<int8_t, 2>{1, 2, 3}, "03010203");
  Row(absl::InlinedVector<std::string, 2>{"a"}, "010161");
  Row(absl::Cord("ab"), "026162");
  Row(absl::optional<int8_t>(5), "0105");
  Row(absl::variant<int8_t, std::string>("a"), "010161");
  Row(absl::uint128(1) << 64, "00000000000000000100000000000000");
  Row(absl::int128(-2), "feffffffffffffffffffffffffffffff");
  Row(std::optional<absl::Status>(absl::OkStatus()), "0100");
  absl::Status status = absl::AbortedError("a");
  status.SetPayload("y", absl::Cord("1"));
  status.SetPayload("x", absl::Cord("2"));
  Row(std::optional<absl::Status>(status),
      "010a01610201780132017"
      "90131");
  Row(absl::StatusOr<int8_t>(7), "0107");
  Row(absl::StatusOr<int8_t>(absl::AbortedError("")), "000a0000");
}

TEST(CodecTypesTest, AFixedArrayIsReadWhereItStands) {
  struct Holder {
    absl::FixedArray<int8_t> values = absl::FixedArray<int8_t>(3, 0);
    void save(Encoder& e) const { e(values); }
    void load(Decoder& d) { d(values); }
  } holder;
  holder.values[1] = 5;
  absl::StatusOr<Frame> frame = Encode(holder);
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(Hex(frame->bytes()), "03000500");
  EXPECT_EQ(Decode<Holder>(frame->bytes())->values[1], 5);
  EXPECT_THAT(Decode<Holder>(std::string_view("\2\0\0", 3)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("as many")));
}

TEST(CodecTypesTest, OfUsers) {
  Row(user::Member{1, "a"}, "010000000161");
  Row(user::SaveLoad{1}, "02000000");
  Row(user::Minimal{1}, "0100");
  Row(std::vector<user::Versioned>{{1}, {2}}, "02050000000100000002000000");
  Row(user::Free{1}, "01000000");
  Row(user::FreePair{1}, "01000000");
  Row(user::FreeMinimal{"a"}, "0161");
  Row(user::Secret(1), "01000000");
  Row(user::Derived{{1, "a"}, 0.5}, "010000000161000000000000e03f");
  user::Diamond diamond;
  diamond.n = 1;
  Row(diamond, "0100000000");
  user::Counter counter;
  counter.n = 5;
  Row(counter, "05000000");
  Row(user::Raw{{'a', 'b', 'c'}}, "616263");
}

TEST(CodecTypesTest, OfUsersWithoutSerialize) {
  // Padding has no meaning, and none of what stood there leaves.
  user::Padded padded;
  std::memset(static_cast<void*>(&padded), 0xee, sizeof(padded));
  padded.small = 1;
  padded.large = 2;
  Row(padded, "0100000002000000");
  Row(std::vector<user::Padded>{padded}, "010100000002000000");
  Row(user::Checked{1, true, 5, {false, true}}, "010000000101050001");
  Row(std::vector<user::Checked>(1),
      "01000000000000"
      "0000");
  const user::BitFields bits = {true, 3, true};  // As they stand.
  EXPECT_EQ(*Decode<user::BitFields>(Encode(bits)->bytes()), bits);
  static_assert(kEncodesAsBytes<user::Padded>);
  static_assert(!kEncodesAsBytes<user::Checked>);
}

TEST(CodecTypesTest, WhatStaysAtHome) {
  static_assert(!Encodable<std::span<int>>);
  static_assert(!Encodable<absl::Span<int>>);
  static_assert(!Encodable<std::string_view>);
  static_assert(!Encodable<std::vector<int>::iterator>);
  static_assert(!Encodable<std::error_code>);
  static_assert(!Encodable<absl::TimeZone>);
  static_assert(!Encodable<std::optional<std::error_code>>);
}

TEST(CodecTypesTest, Pointers) {
  RowOfPointers(std::make_unique<int8_t>(5), "0105");
  RowOfPointers(std::unique_ptr<int8_t>(), "00");
  struct Deleter {
    void operator()(int8_t* p) const { delete p; }
  };
  RowOfPointers(std::unique_ptr<int8_t, Deleter>(new int8_t(5)), "0105");
  auto shared = std::make_shared<int8_t>(5);
  RowOfPointers(std::vector<std::shared_ptr<int8_t>>{shared, shared, nullptr},
                "03010000800501000000"
                "00000000");
  RowOfPointers(std::pair(shared, std::weak_ptr<int8_t>(shared)),
                "010000800501000000");
}

TEST(CodecTypesTest, Polymorphs) {
  std::vector<std::shared_ptr<user::Animal>> animals = {
      std::make_shared<user::Dog>(), std::make_shared<user::Cat>("tom")};
  animals.push_back(animals[0]);
  absl::StatusOr<Frame> frame = Encode(animals);
  ASSERT_THAT(frame, IsOk());
  auto back =
      Decode<std::vector<std::shared_ptr<user::Animal>>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((*back)[0]->Says(), "woof");
  EXPECT_EQ((*back)[1]->Says(), "tom");
  EXPECT_EQ((*back)[2], (*back)[0]);
  std::unique_ptr<user::Animal> alone = std::make_unique<user::Cat>("kit");
  auto there = Decode<std::unique_ptr<user::Animal>>(Encode(alone)->bytes());
  ASSERT_THAT(there, IsOk());
  EXPECT_EQ((*there)->Says(), "kit");
}

TEST(CodecTypesTest, CyclesThroughWeakPointers) {
  auto root = std::make_shared<user::Node>();
  for (int32_t n : {1, 2}) {
    auto kid = std::make_shared<user::Node>();
    kid->n = n;
    kid->parent = root;
    root->kids.push_back(kid);
  }
  absl::StatusOr<Frame> frame = Encode(root);
  ASSERT_THAT(frame, IsOk());
  auto back = Decode<std::shared_ptr<user::Node>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((*back)->kids[1]->parent.lock(), *back);
  EXPECT_EQ(back->use_count(), 1);
}

TEST(CodecTypesTest, RingsAndLongChainsOfOwnersAreRefused) {
  auto ring = std::make_shared<user::Node>();
  ring->kids.push_back(ring);
  EXPECT_THAT(Encode(ring), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("std::weak_ptr")));
  ring->kids.clear();
  std::vector<std::shared_ptr<user::Node>> chain;
  for (int n = 0; n < kMaxChain + 1; ++n) {
    chain.push_back(std::make_shared<user::Node>());
    if (n > 0) chain[n]->kids.push_back(chain[n - 1]);
  }
  EXPECT_THAT(Encode(chain), IsOk());
  chain.push_back(std::make_shared<user::Node>());
  chain.back()->kids.push_back(chain[chain.size() - 2]);
  EXPECT_THAT(Encode(chain), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("one after the other")));
}

TEST(CodecTypesTest, DeferredPointersMayNestDeeperThanValues) {
  auto first = std::make_shared<user::Station>();
  auto last = first;
  for (int32_t n = 1; n < 4 * kMaxDepth; ++n) {
    last->next = std::make_shared<user::Station>();
    last->next->n = n;
    last->next->lines = {first, last};
    last = last->next;
  }
  absl::StatusOr<Frame> frame = Encode(first);
  ASSERT_THAT(frame, IsOk());
  auto back = Decode<std::shared_ptr<user::Station>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  std::shared_ptr<user::Station> at = *back;
  while (at->next != nullptr) at = at->next;
  EXPECT_EQ(at->n, last->n);
  EXPECT_EQ(at->lines[0].lock(), *back);
  // Also a chain whose links are all put off is bounded, and a ring of them.
  last->next = first;
  EXPECT_THAT(Encode(first), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("in a ring")));
  last->next = nullptr;
  // In a vector the stations themselves would move.
  EXPECT_THAT(Encode(std::vector<user::Station>(1)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("pointers to them")));
}

TEST(CodecTypesTest, AnotherVersionIsRefusedInWords) {
  absl::StatusOr<Frame> frame = Encode(WireVersion());
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(Hex(frame->bytes()), "02004357");
  EXPECT_THAT(Decode<WireVersion>(frame->bytes()), IsOk());
  EXPECT_THAT(Decode<WireVersion>("\x03\x01\x43\x57"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("version 259")));
  EXPECT_THAT(
      Decode<WireVersion>(std::string_view("\x57\x43\x00\x02", 4)),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("byte order")));
}

// Containers of one content and different histories.
TEST(CodecTypesTest, EqualValuesHaveEqualBytes) {
  std::unordered_map<std::string, int> a;
  std::unordered_map<std::string, int> b(1000);
  absl::flat_hash_map<std::string, int> c;
  for (int i = 0; i < 300; ++i) a.emplace(std::to_string(i), i);
  for (int i = 299; i >= 0; --i) b.emplace(std::to_string(i), i);
  for (int i = 0; i < 2000; ++i) c.emplace(std::to_string(i), i);
  for (int i = 300; i < 2000; ++i) c.erase(std::to_string(i));
  ASSERT_EQ(a, b);
  EXPECT_EQ(Encode(a)->bytes(), Encode(b)->bytes());
  EXPECT_EQ(Encode(a)->bytes(), Encode(c)->bytes());
}

}  // namespace
}  // namespace cohort
