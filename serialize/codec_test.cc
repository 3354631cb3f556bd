// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/codec.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <cmath>
#include <complex>
#include <cstdint>
#include <deque>
#include <forward_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <stack>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/cord.h"
#include "absl/time/time.h"
#include "cohort/os/descriptor.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;

struct Point {
  int32_t x = 0;
  int32_t y = 0;
  friend bool operator==(const Point&, const Point&) = default;
};

enum class Color : uint16_t { kRed, kGreen = 700 };

struct Empty {
  friend bool operator==(const Empty&, const Empty&) = default;
};

// Says nothing in its serialize(), and so is encoded as a byte all the same.
struct Silent {
  std::string forgotten;
  template <class Archive>
  void serialize(Archive&) {}
  friend bool operator==(const Silent&, const Silent&) { return true; }
};

struct Job {
  int32_t id = 0;
  std::string path;
  std::vector<Point> points;
  template <class Archive>
  void serialize(Archive& a) {
    a(id, path, points);
  }
  friend bool operator==(const Job&, const Job&) = default;
};

// A pair of functions outside the class.
struct Outside {
  std::string name;
  friend bool operator==(const Outside&, const Outside&) = default;
};
template <class Archive>
void save(Archive& a, const Outside& value) {
  a(cereal::make_nvp("name", value.name));
}
template <class Archive>
void load(Archive& a, Outside& value) {
  a(cereal::make_nvp("name", value.name));
}

// One value stands for all.
struct Minimal {
  std::string text;
  template <class Archive>
  std::string save_minimal(const Archive&) const {
    return text;
  }
  template <class Archive>
  void load_minimal(const Archive&, const std::string& from) {
    text = from;
  }
  friend bool operator==(const Minimal&, const Minimal&) = default;
};

struct Versioned {
  int32_t value = 0;
  uint32_t version = 0;
  template <class Archive>
  void serialize(Archive& a, uint32_t v) {
    version = v;
    a(value);
  }
  friend bool operator==(const Versioned& a, const Versioned& b) {
    return a.value == b.value;
  }
};

struct Derived : Job {
  double more = 0;
  template <class Archive>
  void serialize(Archive& a) {
    a(cereal::base_class<Job>(this), more);
  }
  friend bool operator==(const Derived&, const Derived&) = default;
};

// Values within values, to any depth.
struct Tree {
  std::vector<Tree> kids;
  template <class Archive>
  void serialize(Archive& a) {
    a(kids);
  }
  friend bool operator==(const Tree&, const Tree&) = default;
};

Tree TreeOfDepth(int depth) {
  Tree tree;
  if (depth > 1) tree.kids.push_back(TreeOfDepth(depth - 1));
  return tree;
}

struct Shape {
  virtual ~Shape() = default;
  virtual double Area() const = 0;
};
struct Square : Shape {
  double side = 0;
  double Area() const override { return side * side; }
  template <class Archive>
  void serialize(Archive& a) {
    a(side);
  }
};
struct Circle : Shape {
  double radius = 0;
  double Area() const override { return 3 * radius * radius; }
  template <class Archive>
  void serialize(Archive& a) {
    a(radius);
  }
};

struct Thrower {
  bool on_load = false;
  template <class Archive>
  void serialize(Archive& a) {
    a(on_load);
    if (on_load == Archive::is_loading::value) throw std::runtime_error("no!");
  }
};

// Has no default constructor, which cereal allows behind a pointer.
class Fixed {
 public:
  explicit Fixed(int n) : n_(n) {}
  int n() const { return n_; }
  template <class Archive>
  void save(Archive& a) const {
    a(n_);
  }
  template <class Archive>
  static void load_and_construct(Archive& a, cereal::construct<Fixed>& make) {
    int n = 0;
    a(n);
    make(n);
  }

 private:
  int n_;
};

// Owns descriptors as a handle of a higher room does.
struct Handle {
  os::Descriptor first;
  os::Descriptor second;
  std::string name;
  template <class Archive>
  void serialize(Archive& a) {
    a(first, second, name);
  }
};

struct Late {  // Fails after its descriptors are written.
  Handle handle;
  void save(Encoder& e) const {
    e(handle);
    e.Fail(absl::OutOfRangeError("too late"));
  }
  void load(Decoder& d) { d(handle); }
};

os::Descriptor OpenNull() {
  return os::Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
}

// Every message that is shorter or longer is refused. Not a template: it is
// compiled once and not for each of the many types.
void ExpectRefusedUnlessWhole(std::string_view bytes,
                              absl::Status (*decode)(std::string_view)) {
  ASSERT_GE(bytes.size(), 1u);
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A copy of its own, so that AddressSanitizer sees one byte too many.
    std::unique_ptr<char[]> cut(new char[size]);
    std::copy_n(bytes.data(), size, cut.get());
    EXPECT_THAT(decode({cut.get(), size}),
                StatusIs(absl::StatusCode::kDataLoss))
        << "cut at " << size << " of " << bytes.size();
  }
  EXPECT_THAT(decode(std::string(bytes) + '\0'),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("the end")));
}

void ExpectSame(const absl::Status& status, bool same) {
  ASSERT_THAT(status, IsOk());
  EXPECT_TRUE(same);
}

// Encodes, decodes, compares.
template <class T>
void ExpectTravels(const T& value) {
  SCOPED_TRACE(typeid(T).name());
  absl::StatusOr<Frame> frame = Encode(value);
  if (!frame.ok()) return ExpectSame(frame.status(), false);
  absl::StatusOr<T> back = Decode<T>(frame->bytes());
  ExpectSame(back.status(), back.ok() && *back == value);
  ExpectRefusedUnlessWhole(frame->bytes(), [](std::string_view bytes) {
    return Decode<T>(bytes).status();
  });
  if (kEncodesAsBytes<T>) ExpectSame({}, frame->size() == sizeof(T));
}

TEST(CodecTest, NumbersTravel) {
  ExpectTravels(true);
  ExpectTravels(false);
  ExpectTravels('x');
  ExpectTravels(std::numeric_limits<int8_t>::min());
  ExpectTravels(std::numeric_limits<uint16_t>::max());
  ExpectTravels(std::numeric_limits<int32_t>::min());
  ExpectTravels(std::numeric_limits<uint64_t>::max());
  ExpectTravels(1.5f);
  ExpectTravels(-std::numeric_limits<double>::infinity());
  ExpectTravels(1.0L / 3);
  ExpectTravels(U'\x1F600');
  ExpectTravels(std::byte{0xff});
  ExpectTravels(Color::kGreen);
  ExpectTravels(std::complex<double>(1, -2));
}

TEST(CodecTest, NotANumberTravels) {
  absl::StatusOr<Frame> frame = Encode(std::nan(""));
  ASSERT_THAT(frame, IsOk());
  EXPECT_TRUE(std::isnan(*Decode<double>(frame->bytes())));
}

TEST(CodecTest, AnEnumeratorNobodyNamedIsLeftAlone) {
  ExpectTravels(static_cast<Color>(12345));
}

TEST(CodecTest, TextTravels) {
  ExpectTravels(std::string());
  ExpectTravels(std::string("with \0 zero and \xff, which is no UTF-8", 32));
  ExpectTravels(std::string(200, 'x'));  // Its length takes two bytes.
  ExpectTravels(std::u16string(u"wide"));
  ExpectTravels(std::wstring(L"wider"));
}

TEST(CodecTest, SequencesTravel) {
  ExpectTravels(std::vector<int>());
  ExpectTravels(std::vector<int>{1, 2, 3});
  ExpectTravels(std::vector<Point>{{1, 2}, {3, 4}});
  ExpectTravels(std::vector<std::string>{"a", "", "ccc"});
  ExpectTravels(std::vector<std::vector<double>>{{1, 2}, {}, {3}});
  ExpectTravels(std::vector<Empty>(9));
  ExpectTravels(std::vector<Silent>(9));
  ExpectTravels(std::vector<std::tuple<>>(9));
  for (size_t size : {0, 1, 7, 8, 9, 17}) {
    std::vector<bool> bits(size);
    for (size_t i = 0; i < size; i += 3) bits[i] = true;
    ExpectTravels(bits);
  }
  ExpectTravels(std::deque<int>{1, 2, 3});
  ExpectTravels(std::list<std::string>{"x", "y"});
  ExpectTravels(std::forward_list<int>{3, 2, 1});
  ExpectTravels(std::array<int, 3>{1, 2, 3});
  ExpectTravels(std::array<std::string, 2>{"p", "q"});
  ExpectTravels(std::array<bool, 2>{true, false});
  ExpectTravels(std::array<int, 0>());
}

TEST(CodecTest, LargeVectorTravels) {
  std::vector<uint32_t> values(300'000);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<uint32_t>(i * i);
  }
  absl::StatusOr<Frame> frame = Encode(values);
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(frame->size(), 3 + 4 * values.size());
  EXPECT_EQ(*Decode<std::vector<uint32_t>>(frame->bytes()), values);
}

TEST(CodecTest, ValarrayTravels) {
  const std::valarray<double> values = {1, 2, 3};
  absl::StatusOr<Frame> frame = Encode(values);
  ASSERT_THAT(frame, IsOk());
  absl::StatusOr<std::valarray<double>> back =
      Decode<std::valarray<double>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  ASSERT_EQ(back->size(), 3u);
  EXPECT_TRUE((*back == values).min());
}

TEST(CodecTest, SetsAndMapsTravel) {
  ExpectTravels(std::set<std::string>{"a", "b"});
  ExpectTravels(std::multiset<int>{1, 1, 2});
  ExpectTravels(std::unordered_set<int>{1, 2, 3});
  ExpectTravels(std::unordered_multiset<int>{1, 1});
  ExpectTravels(std::map<std::string, int64_t>{{"x", 1}, {"y", 2}});
  ExpectTravels(std::map<int, std::map<int, Job>>{{1, {{2, {3, "j", {}}}}}});
  ExpectTravels(std::multimap<int, std::string>{{1, "a"}, {1, "b"}});
  ExpectTravels(std::unordered_map<std::string, Color>{{"r", Color::kRed}});
  ExpectTravels(std::unordered_multimap<int, int>{{1, 2}, {1, 2}});
  ExpectTravels(absl::flat_hash_map<std::string, int>{{"f", 1}, {"g", 2}});
  ExpectTravels(absl::flat_hash_set<int>{4, 5});
  ExpectTravels(std::map<int, int, std::greater<>>{{1, 2}, {3, 4}});
}

TEST(CodecTest, ProductsAndSumsTravel) {
  ExpectTravels(std::pair<int, std::string>{1, "one"});
  ExpectTravels(std::tuple<int, double, std::string>{1, 2.5, "three"});
  ExpectTravels(std::tuple<>());
  ExpectTravels(std::optional<std::string>());
  ExpectTravels(std::optional<std::string>("here"));
  ExpectTravels(std::optional<int>(5));
  ExpectTravels(std::variant<std::monostate, int, std::string>());
  ExpectTravels(std::variant<std::monostate, int, std::string>(5));
  ExpectTravels(std::variant<int, std::string, Job>(Job{1, "p", {{1, 2}}}));
}

TEST(CodecTest, TimesTravel) {
  using std::chrono::system_clock;
  ExpectTravels(std::chrono::milliseconds(-5));
  ExpectTravels(std::chrono::duration<double>(0.25));
  ExpectTravels(system_clock::time_point(std::chrono::seconds(1'700'000'000)));
  for (absl::Duration d :
       {absl::ZeroDuration(), absl::Nanoseconds(1) / 4, -absl::Nanoseconds(1),
        absl::Seconds(3) + absl::Nanoseconds(999'999'999), -absl::Hours(1),
        absl::Seconds(std::numeric_limits<int64_t>::max()),
        absl::Seconds(std::numeric_limits<int64_t>::min()),
        absl::InfiniteDuration(), -absl::InfiniteDuration()}) {
    ExpectTravels(d);
  }
  ExpectTravels(absl::FromUnixNanos(1'700'000'000'123'456'789));
  ExpectTravels(absl::InfinitePast());
  ExpectTravels(absl::InfiniteFuture());
}

TEST(CodecTest, StatusTravelsWithItsPayloads) {
  absl::Status status = absl::AbortedError("worker died");
  status.SetPayload("cohort/pid", absl::Cord("17"));
  status.SetPayload("cohort/signal", absl::Cord("SIGKILL"));
  ExpectTravels(std::vector<absl::Status>{absl::OkStatus(), status,
                                          absl::InternalError("")});
  ExpectTravels(absl::StatusOr<std::string>("fine"));
  ExpectTravels(absl::StatusOr<std::string>(status));
}

TEST(CodecTest, TypesWithSerializeTravel) {
  ExpectTravels(Point{1, 2});
  ExpectTravels(Empty());
  ExpectTravels(Silent());
  ExpectTravels(Job{7, "/tmp", {{1, 2}}});
  ExpectTravels(Outside{"n"});
  ExpectTravels(Minimal{"m"});
  ExpectTravels(Versioned{5});
  Derived derived;
  derived.id = 3;
  derived.more = 1.5;
  ExpectTravels(derived);
  ExpectTravels(std::bitset<70>("1011"));
}

TEST(CodecTest, AVersionArrives) {
  absl::StatusOr<Frame> frame = Encode(std::vector<Versioned>{{1}, {2}});
  ASSERT_THAT(frame, IsOk());
  auto back = Decode<std::vector<Versioned>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((*back)[0].version, 3u);
  EXPECT_EQ((*back)[1].version, 3u);
}

TEST(CodecTest, AdaptersOfContainersTravel) {
  std::stack<int> stack;
  stack.push(1);
  stack.push(2);
  ExpectTravels(stack);
  std::queue<std::string> queue;
  queue.push("q");
  ExpectTravels(queue);
  std::priority_queue<int> heap;
  for (int i : {3, 1, 2}) heap.push(i);
  absl::StatusOr<Frame> frame = Encode(heap);
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(Decode<std::priority_queue<int>>(frame->bytes())->top(), 3);
}

TEST(CodecTest, AtomicTravels) {
  struct Counter {
    std::atomic<int> n = 0;
    Counter() = default;
    Counter(Counter&& other) noexcept : n(other.n.load()) {}
    void save(Encoder& e) const { e(n); }
    void load(Decoder& d) { d(n); }
  } counter;
  counter.n = 4;
  absl::StatusOr<Frame> frame = Encode(counter);
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(Decode<Counter>(frame->bytes())->n, 4);
}

TEST(CodecTest, OwnedObjectsTravel) {
  auto job = std::make_unique<Job>(Job{1, "x", {}});
  absl::StatusOr<Frame> frame = Encode(job);
  ASSERT_THAT(frame, IsOk());
  auto back = Decode<std::unique_ptr<Job>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(**back, *job);
  EXPECT_EQ(
      *Decode<std::unique_ptr<Job>>(Encode(std::unique_ptr<Job>())->bytes()),
      nullptr);
  auto fixed = std::make_unique<Fixed>(9);
  EXPECT_EQ((*Decode<std::unique_ptr<Fixed>>(Encode(fixed)->bytes()))->n(), 9);
  auto shared = std::make_shared<Fixed>(10);
  EXPECT_EQ((*Decode<std::shared_ptr<Fixed>>(Encode(shared)->bytes()))->n(),
            10);
}

TEST(CodecTest, SharedObjectsArriveOnceEach) {
  using Pointers = std::vector<std::shared_ptr<std::string>>;
  auto a = std::make_shared<std::string>("a");
  auto b = std::make_shared<std::string>("b");
  auto back = Decode<Pointers>(Encode(Pointers{a, b, a, nullptr})->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((*back)[0], (*back)[2]);
  EXPECT_EQ((*back)[0].use_count(), 2);
  EXPECT_EQ(*(*back)[1], "b");
  EXPECT_EQ((*back)[3], nullptr);
}

TEST(CodecTest, TwoTypesAtOneAddressAreTwoObjects) {
  struct Inner {
    int32_t n = 5;
  };
  struct Outer {
    Inner inner;
    int32_t more = 6;
  };
  using Both = std::pair<std::shared_ptr<Outer>, std::shared_ptr<Inner>>;
  auto outer = std::make_shared<Outer>();
  auto back = Decode<Both>(
      Encode(Both{outer, std::shared_ptr<Inner>(outer, &outer->inner)})
          ->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->first->more, 6);
  EXPECT_EQ(back->second->n, 5);
}

TEST(CodecTest, PolymorphicObjectsArriveAsWhatTheyAre) {
  std::vector<std::shared_ptr<Shape>> shapes;
  auto square = std::make_shared<Square>();
  square->side = 2;
  auto circle = std::make_shared<Circle>();
  circle->radius = 1;
  shapes = {square, circle, square};
  absl::StatusOr<Frame> frame = Encode(shapes);
  ASSERT_THAT(frame, IsOk());
  auto back = Decode<std::vector<std::shared_ptr<Shape>>>(frame->bytes());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((*back)[0]->Area(), 4);
  EXPECT_EQ((*back)[1]->Area(), 3);
  EXPECT_EQ((*back)[0], (*back)[2]);
}

TEST(CodecTest, APolymorphicTypeThatIsNotRegisteredIsRefused) {
  struct Secret : Shape {
    double Area() const override { return 0; }
  };
  std::shared_ptr<Shape> shape = std::make_shared<Secret>();
  EXPECT_THAT(Encode(shape), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("unregistered")));
  shape = std::make_shared<Square>();
  std::string bytes(Encode(shape)->bytes());
  const size_t name = bytes.find("Square");
  ASSERT_NE(name, std::string::npos);
  bytes[name] = 'X';
  EXPECT_THAT(Decode<std::shared_ptr<Shape>>(bytes),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("unregistered")));
}

TEST(CodecTest, EncodeToAppendsOrLeavesTheFrameAlone) {
  Frame frame("begun");
  EXPECT_THAT(EncodeTo(frame, Thrower{.on_load = false}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("std::runtime_error: no!")));
  EXPECT_EQ(frame.bytes(), "begun");
  EXPECT_THAT(EncodeTo(frame, 'x'), IsOk());
  EXPECT_EQ(frame.bytes(), "begunx");
}

TEST(CodecTest, AThrowingSerializeIsAStatus) {
  const std::string bytes(Encode(Thrower{.on_load = true})->bytes());
  EXPECT_THAT(Decode<Thrower>(bytes),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("std::runtime_error: no!")));
}

TEST(CodecTest, DepthIsBoundedOnBothSides) {
  ExpectTravels(TreeOfDepth(kMaxDepth));
  EXPECT_THAT(
      Encode(TreeOfDepth(kMaxDepth + 1)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("64 deep")));
  // A million trees, each the only kid of the one before.
  EXPECT_THAT(Decode<Tree>(std::string(1'000'000, '\x01') + '\0'),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("64 deep")));
}

// A key is a message of its own, and what it puts off ends with it.
struct Knot;
struct KnotKey {
  std::shared_ptr<Knot> knot;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(knot);
  }
  friend bool operator==(const KnotKey&, const KnotKey&) = default;
};
struct KnotHash {
  size_t operator()(const KnotKey&) const { return 0; }
};
struct Knot {
  std::unordered_set<KnotKey, KnotHash> keys;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::defer(keys));
  }
};
KnotKey Tie(int knots) {
  KnotKey key;
  for (int i = 0; i < knots; ++i) {
    KnotKey outer{std::make_shared<Knot>()};
    if (key.knot != nullptr) outer.knot->keys.insert(std::move(key));
    key = std::move(outer);
  }
  return key;
}

TEST(CodecTest, DepthIsBoundedThroughDeferredKeys) {
  EXPECT_OK(Decode<KnotKey>(*Encode(Tie(100))));
  EXPECT_THAT(Encode(Tie(2 * kMaxChain)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("deep")));
  ASSERT_OK_AND_ASSIGN(const Frame two, Encode(Tie(2)));
  ASSERT_OK_AND_ASSIGN(const Frame three, Encode(Tie(3)));
  const std::string_view knot =
      three.bytes().substr(0, three.size() - two.size());
  std::string endless;
  for (int i = 0; i < 100'000; ++i) endless += knot;
  EXPECT_THAT(Decode<KnotKey>(endless),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("deep")));
}

TEST(CodecTest, KeysThatDifferInNoByteAreRefused) {
  constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();
  EXPECT_OK(Encode(std::unordered_set<double>{1.0, kNotANumber}));
  EXPECT_THAT(Encode(std::unordered_set<double>{kNotANumber, kNotANumber}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CodecTest, ManyValuesShareOneMessage) {
  auto shared = std::make_shared<std::string>("once");
  Frame frame;
  {
    Encoder encoder(frame);
    EXPECT_THAT(EncodeTo(encoder, shared), IsOk());
    EXPECT_THAT(EncodeTo(encoder, 7), IsOk());
    EXPECT_THAT(EncodeTo(encoder, shared), IsOk());
  }
  Decoder decoder(frame.bytes());
  auto first = DecodeFrom<std::shared_ptr<std::string>>(decoder);
  EXPECT_EQ(*DecodeFrom<int>(decoder), 7);
  EXPECT_THAT(decoder.Finish(), StatusIs(absl::StatusCode::kDataLoss));
  auto second = DecodeFrom<std::shared_ptr<std::string>>(decoder);
  EXPECT_EQ(*first, *second);
  EXPECT_THAT(decoder.Finish(), IsOk());
}

TEST(CodecTest, AClearedFrameIsFilledWithoutAllocation) {
  const Job job = {1, std::string(100, 'x'), {{1, 2}}};
  Frame frame;
  ASSERT_THAT(EncodeTo(frame, job), IsOk());
  const char* data = frame.data();
  frame.Clear();
  ASSERT_THAT(EncodeTo(frame, job), IsOk());
  EXPECT_EQ(frame.data(), data);
}

TEST(CodecDescriptorTest, DescriptorsTravelAsDuplicates) {
  cohort_testing::LeakGuard guard;
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  os::Descriptor read_end(ends[0]);
  Handle handle;
  handle.first = os::Descriptor(ends[1]);
  handle.name = "writer";
  absl::StatusOr<Frame> frame = Encode(handle);
  ASSERT_THAT(frame, IsOk());
  EXPECT_EQ(frame->descriptors().size(), 1u);  // The second was invalid.
  EXPECT_TRUE(handle.first.valid());
  absl::StatusOr<Handle> back = Decode<Handle>(*std::move(frame));
  ASSERT_THAT(back, IsOk());
  EXPECT_FALSE(back->second.valid());
  EXPECT_EQ(back->name, "writer");
  ASSERT_NE(back->first.get(), handle.first.get());
  ASSERT_EQ(write(back->first.get(), "hi", 2), 2);
  char got[2];
  EXPECT_EQ(read(read_end.get(), got, 2), 2);
}

TEST(CodecDescriptorTest, ErrorsCloseEveryDescriptor) {
  cohort_testing::LeakGuard guard;
  Handle handle{OpenNull(), OpenNull(), "both"};
  for (size_t cut = 0; cut < Encode(handle)->size(); ++cut) {
    absl::StatusOr<Frame> frame = Encode(handle);
    ASSERT_THAT(frame, IsOk());
    frame->Truncate(cut);
    EXPECT_THAT(Decode<Handle>(*std::move(frame)),
                StatusIs(absl::StatusCode::kDataLoss));
  }
  Frame frame;
  frame.descriptors().push_back(OpenNull());
  EXPECT_THAT(EncodeTo(frame, Late{{OpenNull(), OpenNull(), "late"}}),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("too late")));
  EXPECT_EQ(frame.descriptors().size(), 1u);
  EXPECT_TRUE(frame.empty());
}

TEST(CodecDescriptorTest, DescriptorsThatNoValueClaimsAreClosed) {
  cohort_testing::LeakGuard guard;
  Frame frame = *Encode(5);
  frame.descriptors().push_back(OpenNull());
  EXPECT_THAT(Decode<int>(std::move(frame)), IsOk());
  frame = *Encode(Job());
  frame.descriptors().push_back(OpenNull());
  EXPECT_THAT(Decode<Job>(std::move(frame)), IsOk());
}

TEST(CodecDescriptorTest, EachDescriptorIsTakenOnce) {
  cohort_testing::LeakGuard guard;
  using Two = std::array<os::Descriptor, 2>;
  auto decode = [](std::string bytes) {
    std::vector<os::Descriptor> descriptors;
    descriptors.push_back(OpenNull());
    return Decode<Two>(bytes, std::move(descriptors));
  };
  EXPECT_THAT(decode({1, 0}), IsOk());
  EXPECT_THAT(decode({1, 1}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("taken before")));
  EXPECT_THAT(decode({1, 2}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not number 1")));
  EXPECT_THAT(
      Decode<Two>(std::string_view("\1\0", 2)),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("0 descriptors")));
}

TEST(CodecDescriptorTest, ADescriptorCanBeGivenAway) {
  cohort_testing::LeakGuard guard;
  Frame frame;
  Encoder encoder(frame);
  os::Descriptor mine = OpenNull();
  const int number = mine.get();
  EXPECT_EQ(encoder.AddDescriptor(std::move(mine)), 0u);
  EXPECT_EQ(frame.descriptors()[0].get(), number);
  Decoder decoder(frame.bytes(), std::move(frame.descriptors()));
  EXPECT_EQ(decoder.TakeDescriptor(0).get(), number);
}

}  // namespace
}  // namespace cohort

CEREAL_CLASS_VERSION(cohort::Versioned, 3)
CEREAL_REGISTER_TYPE_WITH_NAME(cohort::Square, "Square")
CEREAL_REGISTER_TYPE_WITH_NAME(cohort::Circle, "Circle")
CEREAL_REGISTER_POLYMORPHIC_RELATION(cohort::Shape, cohort::Square)
CEREAL_REGISTER_POLYMORPHIC_RELATION(cohort::Shape, cohort::Circle)
