// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/callable.h"

#include <fcntl.h>

#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cohort/os/descriptor.h"
#include "cohort/serialize/code_ref.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;

// Encodes, decodes, runs and decodes the result, as two processes would.
template <class F, class... A>
RemoteResult<F, A...> Call(F&& function, A&&... arguments) {
  Frame call;
  absl::Status encoded = EncodeCall(call, std::forward<F>(function),
                                    std::forward<A>(arguments)...);
  if (!encoded.ok()) return encoded;
  absl::StatusOr<BoundCall> bound =
      DecodeCall(call.bytes(), std::move(call.descriptors()));
  if (!bound.ok()) return bound.status();
  Frame result;
  (void)std::move(*bound).Run(result);
  return DecodeResult<RemoteValue<F, A...>>(result.bytes(),
                                            std::move(result.descriptors()));
}

struct Job {
  int id = 0;
  std::string path;
  template <class Archive>
  void serialize(Archive& a) {
    a(id, path);
  }
};

class Scale {
 public:
  explicit Scale(int by = 2) : by_(by) {}
  virtual ~Scale() = default;
  int operator()(int x) const { return x * by_; }
  int Twice(int x) const { return 2 * x * by_; }
  int Grow(int x) { return by_ += x; }
  virtual std::string Name() const { return "scale"; }
  template <class Archive>
  void serialize(Archive& a) {
    a(by_);
  }

 private:
  int by_;
};
struct Ruler : Scale {
  using Scale::Scale;
  std::string Name() const override { return "ruler"; }
};

struct Offset {  // Travels as its bytes.
  int by = 0;
  int operator()(int x) const { return x + by; }
};

int Square(int x) { return x * x; }
int Negate(int x) noexcept { return -x; }
void Nothing() {}
std::string Join(const std::string& a, std::string b) { return a + b; }
absl::Status Refuse(const Job& job) { return absl::AbortedError(job.path); }
absl::StatusOr<int> Half(int x) {
  if (x % 2 != 0) return absl::InvalidArgumentError("odd");
  return x / 2;
}
const std::string& Same(const std::string& text) { return text; }
int Throw(int) { throw std::runtime_error("boom"); }
void ThrowNumber() { throw 5; }
std::unique_ptr<Job> Rename(std::unique_ptr<Job> job, std::string path) {
  job->path = std::move(path);
  return job;
}

// A result that decides by itself that it cannot be sent.
struct Stubborn {
  void save(Encoder& e) const { e.Fail(absl::PermissionDeniedError("mine")); }
  void load(Decoder&) {}
};
Stubborn MakeStubborn() { return {}; }

os::Descriptor OpenNull() {
  return os::Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
}
struct Handle {
  os::Descriptor descriptor;
  template <class Archive>
  void serialize(Archive& a) {
    a(descriptor);
  }
};
Handle Pass(Handle handle) { return handle; }
bool Valid(Handle handle) { return handle.descriptor.valid(); }
absl::Status Twins(Handle, Stubborn) { return absl::OkStatus(); }

template <class F, class... A>
using Result = RemoteResult<F, A...>;
static_assert(std::same_as<Result<decltype(Square), int>, absl::StatusOr<int>>);
static_assert(std::same_as<Result<decltype(Nothing)>, absl::Status>);
static_assert(std::same_as<Result<decltype(Refuse), Job>, absl::Status>);
static_assert(std::same_as<Result<decltype(Half), int>, absl::StatusOr<int>>);
static_assert(std::same_as<Result<decltype(Same), const char*>,
                           absl::StatusOr<std::string>>);
static_assert(std::same_as<RemoteValue<decltype(Half), int>, int>);
static_assert(std::same_as<RemoteValue<decltype(Nothing)>, void>);
// Soft where there is nothing to call.
static_assert(std::same_as<RemoteValue<decltype(Square), std::string>, int>);
static_assert(std::same_as<RemoteValue<int, int>, void>);

// What callable_compile_test.cc shows the sentences for, in its other forms.
struct Summer {
  int value = 0;
  int Add(int& sum) const { return sum += value; }
};
struct Immovable {  // As a lock is.
  Immovable() = default;
  Immovable(const Immovable&) = delete;
  Immovable& operator=(const Immovable&) = delete;
  int word = 0;
};
struct WithImmovable {
  Immovable lock;
  int guarded = 0;
};
struct WithView {
  int numbers[3] = {};
  Offset offset;
  std::string_view name;
};
template <class F, class... A>
constexpr bool Sends(F, A&&...) {
  return serialize_internal::IsCall<F, A...>();
}
static_assert(Sends([](auto x) { return x; }, 1));
static_assert(Sends(&Scale::Twice, Offset(), 1) == false);
static_assert(!Sends([](auto text) { return sizeof(text); }, "text"));
static_assert(!Sends([](const char*) {}, "text"));
static_assert(!Sends([](std::span<int>) {}, std::span<int>()));
static_assert(!Sends([](std::function<void()>) {}, [] {}));
static_assert(!Sends([](Offset& s) { s.by = 1; }, Offset()));
static_assert(!Sends(&Summer::Add, Summer(), 1));
static_assert(!Sends(Square, 1, 2));
static_assert(!Encodable<std::vector<int*>>);
static_assert(!Encodable<std::map<int, std::pair<int, std::string_view>>>);
static_assert(!Encodable<std::vector<WithView>>);
static_assert(!Encodable<Immovable> && !Encodable<WithImmovable>);
static_assert(!Encodable<std::unique_ptr<int[]>>);
static_assert(!Encodable<std::optional<std::function<void()>>>);

TEST(CallableTest, FunctionsAreCalled) {
  EXPECT_THAT(Call(Square, 7), IsOkAndHolds(49));
  EXPECT_THAT(Call(&Square, 7), IsOkAndHolds(49));
  EXPECT_THAT(Call(Negate, 7), IsOkAndHolds(-7));
  EXPECT_THAT(Call(Nothing), IsOk());
}

TEST(CallableTest, ArgumentsBecomeTheParametersTypes) {
  EXPECT_THAT(Call(Join, "a", "b"), IsOkAndHolds("ab"));
  EXPECT_THAT(Call(Square, 7.9), IsOkAndHolds(49));
  EXPECT_THAT(Call(Square, 'a'), IsOkAndHolds(97 * 97));
  EXPECT_THAT(Call(Refuse, Job{1, "path"}),
              StatusIs(absl::StatusCode::kAborted, "path"));
}

TEST(CallableTest, ResultsAreFlattened) {
  EXPECT_THAT(Call(Half, 4), IsOkAndHolds(2));
  EXPECT_THAT(Call(Half, 5),
              StatusIs(absl::StatusCode::kInvalidArgument, "odd"));
  EXPECT_THAT(Call(Same, "copied"), IsOkAndHolds("copied"));
}

TEST(CallableTest, LambdasWithoutCapturesAreCalled) {
  EXPECT_THAT(Call([](int x) { return x + 1; }, 1), IsOkAndHolds(2));
  EXPECT_THAT(Call([](auto x, const auto& y) { return x + y; }, 1, 0.5),
              IsOkAndHolds(1.5));
  EXPECT_THAT(Call([] {}), IsOk());
}

TEST(CallableTest, FunctorsTravelWithTheirMembers) {
  EXPECT_THAT(Call(Scale(3), 5), IsOkAndHolds(15));
  EXPECT_THAT(Call(Offset{4}, 5), IsOkAndHolds(9));
  const Scale scale(6);
  EXPECT_THAT(Call(scale, 1), IsOkAndHolds(6));
}

TEST(CallableTest, MemberFunctionsAreCalledOnTheirFirstArgument) {
  EXPECT_THAT(Call(&Scale::Twice, Scale(3), 5), IsOkAndHolds(30));
  EXPECT_THAT(Call(&Scale::Grow, Scale(3), 5), IsOkAndHolds(8));
  EXPECT_THAT(Call(&Scale::Name, Scale()), IsOkAndHolds("scale"));
  EXPECT_THAT(Call(&Scale::Name, Ruler()), IsOkAndHolds("ruler"));
}

TEST(CallableTest, ExceptionsArriveWithTheirTypes) {
  EXPECT_THAT(Call(Throw, 1), StatusIs(absl::StatusCode::kUnknown,
                                       "the function threw "
                                       "std::runtime_error: boom"));
  EXPECT_THAT(Call(ThrowNumber),
              StatusIs(absl::StatusCode::kUnknown, "the function threw int"));
}

TEST(CallableTest, AResultThatCannotBeSentIsAnError) {
  Frame call;
  ASSERT_THAT(EncodeCall(call, MakeStubborn), IsOk());
  Frame result("before");
  absl::StatusOr<BoundCall> bound = DecodeCall(call.bytes());
  ASSERT_THAT(bound, IsOk());
  EXPECT_THAT(std::move(*bound).Run(result),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(DecodeResult<Stubborn>(result.bytes().substr(6)),
              StatusIs(absl::StatusCode::kPermissionDenied, "mine"));
}

TEST(CallableTest, ArgumentsWithOneOwnerAreMovedAcross) {
  auto job = std::make_unique<Job>(Job{1, "old"});
  auto back = Call(Rename, std::move(job), "new");
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((*back)->path, "new");
  EXPECT_EQ(job, nullptr);  // NOLINT: that is the point.
}

TEST(CallableTest, ArgumentsStayWhereTheyAreWhenEncodingFails) {
  cohort_testing::LeakGuard guard;
  Handle handle{OpenNull()};
  Frame frame("before");
  EXPECT_THAT(EncodeCall(frame, Twins, std::move(handle), Stubborn()),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_TRUE(handle.descriptor.valid());  // NOLINT
  EXPECT_EQ(frame.bytes(), "before");
  EXPECT_TRUE(frame.descriptors().empty());
}

TEST(CallableTest, DescriptorsGoThereAndBack) {
  cohort_testing::LeakGuard guard;
  absl::StatusOr<Handle> back = Call(Pass, Handle{OpenNull()});
  ASSERT_THAT(back, IsOk());
  EXPECT_TRUE(back->descriptor.valid());
  Handle mine{OpenNull()};
  EXPECT_THAT(Call(Valid, std::move(mine)), IsOkAndHolds(true));
  EXPECT_FALSE(mine.descriptor.valid());  // NOLINT
}

TEST(CallableTest, ABoundCallHasNotRunYet) {
  static int runs = 0;
  Frame call;
  ASSERT_THAT(EncodeCall(
                  call, [](int by) { return runs += by; }, 3),
              IsOk());
  {
    absl::StatusOr<BoundCall> dropped = DecodeCall(call.bytes());
    ASSERT_THAT(dropped, IsOk());
  }
  EXPECT_EQ(runs, 0);
  Decoder decoder(call.bytes());
  Frame result;
  EXPECT_THAT(RunCall(decoder, result), IsOk());
  EXPECT_EQ(runs, 3);
  EXPECT_THAT(DecodeResult<int>(result.bytes()), IsOkAndHolds(3));
}

TEST(CallableTest, AProcessEndsWithWhatItsFunctionReturns) {
  auto code = [](auto&& function, auto... arguments) -> absl::StatusOr<int> {
    Frame call;
    absl::Status encoded = EncodeCall(call, function, arguments...);
    if (!encoded.ok()) return encoded;
    absl::StatusOr<BoundCall> bound = DecodeCall(call.bytes());
    if (!bound.ok()) return bound.status();
    return std::move(*bound).RunForExitCode();
  };
  EXPECT_THAT(code(Nothing), IsOkAndHolds(0));
  EXPECT_THAT(code(Square, 3), IsOkAndHolds(9));
  EXPECT_THAT(code(Half, 6), IsOkAndHolds(3));
  EXPECT_THAT(code(Join, "a", "b"), IsOkAndHolds(0));
  EXPECT_THAT(code(Refuse, Job{1, "p"}), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(code(Throw, 1), StatusIs(absl::StatusCode::kUnknown));
}

TEST(CallableTest, BrokenCallsAreRefusedBeforeAnythingRuns) {
  static int runs = 0;
  Frame call;
  auto count = [](std::string, Job) { ++runs; };
  ASSERT_THAT(EncodeCall(call, count, "text", Job{1, "p"}), IsOk());
  for (size_t size = 0; size < call.size(); ++size) {
    EXPECT_FALSE(DecodeCall(call.bytes().substr(0, size)).ok());
  }
  EXPECT_THAT(DecodeCall(std::string(call.bytes()) + "x"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("the end")));
  std::string other(call.bytes());
  other[0] = static_cast<char>(other[0] ^ 1);  // The build's fingerprint.
  EXPECT_THAT(DecodeCall(other), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("different build")));
  EXPECT_EQ(runs, 0);
}

TEST(CallableTest, ManyCallsShareAnEncoder) {
  Frame frame;
  {
    Encoder encoder(frame);
    ASSERT_THAT(EncodeCall(encoder, Square, 2), IsOk());
    ASSERT_THAT(EncodeCall(encoder, Join, "a", "b"), IsOk());
  }
  Decoder decoder(frame.bytes());
  Frame results;
  ASSERT_THAT(RunCall(decoder, results), IsOk());
  ASSERT_THAT(RunCall(decoder, results), IsOk());
  EXPECT_THAT(decoder.Finish(), IsOk());
  Decoder reader(results.bytes());
  EXPECT_THAT(DecodeNextResult<int>(reader), IsOkAndHolds(4));
  EXPECT_THAT(DecodeNextResult<std::string>(reader), IsOkAndHolds("ab"));
}

// Runs F over the elements in pieces of `piece`.
template <class F, class T>
auto RunMap(F function, const std::vector<T>& elements, size_t piece) {
  using Value = RemoteValue<F, const T&>;
  std::vector<typename ResultOf<Value>::type> values;
  Frame code;
  Frame bytes;
  Frame results;
  EXPECT_THAT((EncodeFunction<F, const T&>(code, function)), IsOk());
  for (const T& element : elements) {
    EXPECT_THAT((EncodeElement<F, const T&>(bytes, element)), IsOk());
  }
  Decoder decoder(code.bytes(), std::move(code.descriptors()));
  absl::StatusOr<BoundMap> map = DecodeFunction(decoder);
  EXPECT_THAT(map, IsOk());
  EXPECT_THAT(decoder.Finish(), IsOk());
  Decoder input(bytes.bytes(), std::move(bytes.descriptors()));
  size_t left = elements.size();
  while (map.ok() && input.remaining() > 0) {
    size_t calls = 0;
    absl::StatusOr<size_t> ran = map->Run(input, left, results, [&] {
      EXPECT_FALSE(results.empty());
      return ++calls < piece;
    });
    EXPECT_THAT(ran, IsOkAndHolds(calls));
    if (!ran.ok()) break;
    left -= *ran;
  }
  Decoder output(results.bytes(), std::move(results.descriptors()));
  while (output.remaining() > 0) {
    values.push_back(DecodeNextResult<Value>(output));
    if (values.size() > elements.size()) break;
  }
  EXPECT_EQ(values.size(), elements.size());
  return values;
}

TEST(BoundMapTest, RunsAFunctionOverNumbers) {
  std::vector<int> numbers(100);
  for (int i = 0; i < 100; ++i) numbers[i] = i;
  for (size_t piece : {1, 7, 100, 1000}) {
    auto values = RunMap(&Square, numbers, piece);
    for (int i = 0; i < 100; ++i) EXPECT_THAT(values[i], IsOkAndHolds(i * i));
  }
}

TEST(BoundMapTest, ElementsMayHaveTables) {
  std::vector<std::shared_ptr<std::string>> texts(
      3, std::make_shared<std::string>("t"));
  auto values = RunMap(
      [](std::shared_ptr<std::string> text) {
        return std::make_pair(text, text);
      },
      texts, 2);
  for (auto& value : values) {
    ASSERT_THAT(value, IsOk());
    EXPECT_EQ(*value->first, "t");
    EXPECT_EQ(value->first, value->second);
  }
}

TEST(BoundMapTest, FunctorsAndConvertedArguments) {
  auto values = RunMap(Scale(3), std::vector<short>{1, 2}, 1);
  EXPECT_THAT(values[0], IsOkAndHolds(3));
  EXPECT_THAT(values[1], IsOkAndHolds(6));
}

TEST(BoundMapTest, AnErrorIsTheResultOfItsElementAlone) {
  auto values = RunMap(&Half, std::vector<int>{2, 3, 4}, 10);
  EXPECT_THAT(values[0], IsOkAndHolds(1));
  EXPECT_THAT(values[1], StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(values[2], IsOkAndHolds(2));
  auto thrown = RunMap(&Throw, std::vector<int>{1, 2}, 10);
  EXPECT_THAT(thrown[1], StatusIs(absl::StatusCode::kUnknown));
  auto refused = RunMap(&Refuse, std::vector<Job>{{1, "a"}, {2, "b"}}, 1);
  EXPECT_THAT(refused[1], StatusIs(absl::StatusCode::kAborted, "b"));
}

TEST(BoundMapTest, BrokenElementsAreRefused) {
  Frame code;
  ASSERT_THAT((EncodeFunction<decltype(&Square), int>(code, Square)), IsOk());
  Decoder decoder(code.bytes());
  absl::StatusOr<BoundMap> map = DecodeFunction(decoder);
  ASSERT_THAT(map, IsOk());
  Decoder elements("123");
  Frame result("before");
  EXPECT_THAT(map->RunNext(elements, result),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(result.bytes(), "before");
}

// A reference to a call is none to a map, whatever its bytes.
TEST(BoundMapTest, ACallIsNoMap) {
  Frame call;
  ASSERT_THAT(EncodeCall(call, Square, 1), IsOk());
  Decoder decoder(call.bytes());
  EXPECT_THAT(
      DecodeFunction(decoder),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another type")));
}

}  // namespace
}  // namespace cohort
