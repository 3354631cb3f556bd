// SPDX-License-Identifier: Apache-2.0
//
// Every type that brings descriptors, through everything that carries values:
// sent, used at the far end after the sender's copy has gone, sent back, used
// again. Each cell counts what all processes hold before and after.
//
// A new type is a struct below and its name in `Kinds`; a new carrier is a
// TYPED_TEST. docs/design/handles.md shows the table.

#include <dirent.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cohort/ipc/pipe.h"
#include "cohort/ipc/queue.h"
#include "cohort/ipc/shared_array.h"
#include "cohort/ipc/shared_value.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/memfd.h"
#include "cohort/os/or_die.h"
#include "cohort/pool/process_pool.h"
#include "cohort/process/exit_status.h"
#include "cohort/process/process.h"
#include "cohort/shm/arena.h"
#include "cohort/shm/buffer.h"
#include "cohort/shm/read_only_region.h"
#include "cohort/shm/region.h"
#include "cohort/shm/shareable_list.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/event.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

// A kind of handle. Make() returns one whose object says 1; Mark() makes it say
// 2, or leaves it where the object can only be read.

struct File {
  using Handle = os::Descriptor;
  static constexpr bool kCanMark = true;
  static Handle Make() { return OrDie(os::CreateSealedMemfd("file", 4096)); }
  static int Look(const Handle& handle) {
    char said = 0;
    return pread(handle.get(), &said, 1, 0) == 1 ? said + 1 : -1;
  }
  static void Mark(const Handle& handle) {
    const char two = 1;
    (void)!pwrite(handle.get(), &two, 1, 0);
  }
};

struct AnonymousRegion {
  using Handle = Region;
  static constexpr bool kCanMark = true;
  static Handle Make() {
    Region region = OrDie(Region::Create(100));
    region.bytes()[99] = std::byte{1};
    return region;
  }
  static int Look(const Handle& handle) {
    return handle.size() == 100 ? static_cast<int>(handle.bytes()[99]) : -1;
  }
  static void Mark(const Handle& handle) { handle.bytes()[99] = std::byte{2}; }
};

struct NamedRegion : AnonymousRegion {
  static Handle Make() {
    static int made = 0;
    Region region = OrDie(Region::CreateNamed(
        absl::StrCat("cohort.handles_test.", getpid(), ".", ++made),
        {.size = 100}));
    region.bytes()[99] = std::byte{1};
    return region;
  }
  static int Look(const Handle& handle) {
    return handle.name().empty() ? -1 : AnonymousRegion::Look(handle);
  }
};

struct RegionToRead {
  using Handle = ReadOnlyRegion;
  static constexpr bool kCanMark = false;
  static Handle Make() { return OrDie(AnonymousRegion::Make().ReadOnly()); }
  static int Look(const Handle& handle) {
    return handle.size() == 100 ? static_cast<int>(handle.bytes()[99]) : -1;
  }
  static void Mark(const Handle&) {}
};

struct Bytes {
  using Handle = Buffer;
  static constexpr bool kCanMark = false;
  static Handle Make() {
    Buffer buffer = OrDie(Buffer::Create(100));
    buffer.mutable_bytes()[99] = std::byte{1};
    return buffer;
  }
  static int Look(const Handle& handle) {
    return handle.size() == 100 ? static_cast<int>(handle.bytes()[99]) : -1;
  }
  static void Mark(const Handle&) {}
};

struct Number {
  using Handle = Shared<int>;
  static constexpr bool kCanMark = true;
  static Handle Make() { return OrDie(Shared<int>::Create(1)); }
  static int Look(const Handle& handle) {
    return handle.empty() ? -1 : *handle;
  }
  static void Mark(const Handle& handle) { *handle = 2; }
};

struct Signal {
  using Handle = Shared<Event>;
  static constexpr bool kCanMark = true;
  static Handle Make() { return OrDie(Shared<Event>::Create()); }
  static int Look(const Handle& handle) {
    return handle.empty() ? -1 : handle->is_set() ? 2 : 1;
  }
  static void Mark(const Handle& handle) { handle->set(); }
};

struct Heap {
  using Handle = Arena;
  static constexpr bool kCanMark = true;
  static Handle Make() {
    Arena arena = OrDie(Arena::Create({.size = 1 << 16}));
    *OrDie(arena.FindOrConstruct<int>("said")) = 1;
    return arena;
  }
  static int Look(const Handle& handle) {
    return handle.empty() ? -1 : *OrDie(handle.Find<int>("said"));
  }
  static void Mark(const Handle& handle) {
    *OrDie(handle.Find<int>("said")) = 2;
  }
};

struct List {
  using Handle = ShareableList;
  static constexpr bool kCanMark = true;
  static Handle Make() {
    return OrDie(ShareableList::Create({int64_t{1}, "text"}));
  }
  static int Look(const Handle& handle) {
    if (handle.empty_handle()) return -1;
    return static_cast<int>(std::get<int64_t>(OrDie(handle.Get(0))));
  }
  static void Mark(const Handle& handle) { OrDie(handle.Set(0, int64_t{2})); }
};

struct Value {
  using Handle = SharedValue<int>;
  static constexpr bool kCanMark = true;
  static Handle Make() { return OrDie(Handle::Create(1)); }
  static int Look(const Handle& handle) {
    return handle.empty() ? -1 : OrDie(handle.Load());
  }
  static void Mark(const Handle& handle) { handle.Store(2); }
};

struct Array {
  using Handle = SharedArray<int>;
  static constexpr bool kCanMark = true;
  static Handle Make() { return OrDie(Handle::Create({0, 1})); }
  static int Look(const Handle& handle) {
    return handle.empty_handle() ? -1 : OrDie(handle.Load(1));
  }
  static void Mark(const Handle& handle) { OrDie(handle.Store(1, 2)); }
};

// A queue that carries nothing else.
struct FlatQueue {
  using Handle = Queue<int>;
  static constexpr bool kCanMark = true;
  static Handle Make() {
    Handle queue = OrDie(Handle::Create({.max_items = 4}));
    OrDie(queue.Put(1));
    return queue;
  }
  static int Look(const Handle& handle) {
    if (handle.empty_handle()) return -1;
    const int said = handle.TryGet().value_or(-1);
    OrDie(handle.TryPut(said));
    return said;
  }
  static void Mark(const Handle& handle) {
    (void)handle.TryGet();
    OrDie(handle.TryPut(2));
  }
};

// One with something in it that has descriptors.
struct LoadedQueue {
  using Handle = Queue<Region>;
  static constexpr bool kCanMark = true;
  static Handle Make() {
    Handle queue = OrDie(Handle::Create());
    OrDie(queue.Put(AnonymousRegion::Make()));
    return queue;
  }
  static int Look(const Handle& handle) {
    if (handle.empty_handle()) return -1;
    const Region region = handle.TryGet().value_or(Region());
    OrDie(handle.TryPut(region));
    return AnonymousRegion::Look(region);
  }
  static void Mark(const Handle& handle) {
    const Region region = OrDie(handle.TryGet());
    AnonymousRegion::Mark(region);
    OrDie(handle.TryPut(region));
  }
};

// Both ends of a pipe, with a message between them.
struct BothEnds {
  PipeEnd left = {};
  PipeEnd right = {};
  template <class A>
  void serialize(A& a) {
    a(left, right);
  }
};

struct Ends {
  using Handle = BothEnds;
  static constexpr bool kCanMark = true;
  static Handle Make() {
    Handle ends;
    std::tie(ends.left, ends.right) = OrDie(CreatePipe({.bytes = 4096}));
    OrDie(ends.left.Send(1));
    return ends;
  }
  static int Look(const Handle& handle) {
    if (handle.left.empty_handle()) return -1;
    const int said = handle.right.Recv<int>(absl::ZeroDuration()).value_or(-1);
    OrDie(handle.left.Send(said));
    return said;
  }
  static void Mark(const Handle& handle) {
    (void)handle.right.Recv<int>(absl::ZeroDuration());
    OrDie(handle.left.Send(2));
  }
};

using Kinds = testing::Types<File, AnonymousRegion, NamedRegion, RegionToRead,
                             Bytes, Number, Signal, Heap, List, Value, Array,
                             FlatQueue, LoadedQueue, Ends>;

// A handle wherever a value may have one.
template <typename Kind>
struct Inside {
  using Handle = typename Kind::Handle;
  int id = 0;
  Handle member = {};
  std::vector<Handle> list = {};
  std::optional<Handle> maybe = {};
  std::variant<int, Handle> either = {};
  template <class A>
  void serialize(A& a) {
    a(id, member, list, maybe, either);
  }
};

// What travels: a handle alone, or inside others. Fill() makes it, Hand() calls
// `use` for each handle in it.
template <typename Kind>
struct Alone {
  using Value = typename Kind::Handle;
  static Value Fill() { return Kind::Make(); }
  template <typename Use>
  static void Hand(const Value& value, Use use) {
    use(value);
  }
};

template <typename Kind>
struct WithinOthers {
  using Value = Inside<Kind>;
  static Value Fill() {
    Value value;
    value.member = Kind::Make();
    value.list.push_back(Kind::Make());
    value.list.push_back(Kind::Make());
    value.maybe = Kind::Make();
    value.either = Kind::Make();
    return value;
  }
  template <typename Use>
  static void Hand(const Value& value, Use use) {
    use(value.member);
    for (const auto& one : value.list) use(one);
    if (value.maybe) use(*value.maybe);
    if (value.either.index() == 1) use(std::get<1>(value.either));
  }
};

template <typename Kind, template <typename> class Form>
bool AllSay(const typename Form<Kind>::Value& value, int expected) {
  bool all = true;
  int count = 0;
  Form<Kind>::Hand(value, [&](const typename Kind::Handle& handle) {
    all = Kind::Look(handle) == expected && all;
    ++count;
  });
  return all && count == (std::is_same_v<Form<Kind>, Alone<Kind>> ? 1 : 5);
}

template <typename Kind, template <typename> class Form>
void MarkAll(const typename Form<Kind>::Value& value) {
  Form<Kind>::Hand(
      value, [](const typename Kind::Handle& handle) { Kind::Mark(handle); });
}

// What this process holds: descriptors, and mappings of shared memory.
struct Holdings {
  int descriptors = 0;
  int mappings = 0;
  friend bool operator==(const Holdings&, const Holdings&) = default;
};

Holdings Count() {
  Holdings held;
  DIR* const open = opendir("/proc/self/fd");
  while (readdir(open) != nullptr) ++held.descriptors;
  closedir(open);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:") != std::string::npos ||
        line.find("/dev/shm/") != std::string::npos) {
      ++held.mappings;
    }
  }
  return held;
}

// The far ends, which say by their exit code what was wrong.
constexpr int kWrongContent = 1;
constexpr int kNotSent = 2;
constexpr int kLeaked = 3;

int Report(Queue<Holdings> to) {
  Holdings held = Count();
  --held.descriptors;  // That of `to`.
  --held.mappings;
  return to.Put(held).ok() ? 0 : kNotSent;
}

template <typename Kind, template <typename> class Form>
int AnswerAnArgument(typename Form<Kind>::Value value,
                     Queue<typename Form<Kind>::Value> back, Holdings nothing) {
  if (!AllSay<Kind, Form>(value, 1)) return kWrongContent;
  MarkAll<Kind, Form>(value);
  if (!back.Put(value).ok()) return kNotSent;
  value = {};
  back = {};
  const Holdings left = Count();
  return left.descriptors <= nothing.descriptors &&
                 left.mappings <= nothing.mappings
             ? 0
             : kLeaked;
}

template <typename Kind, template <typename> class Form>
int AnswerAQueue(Queue<typename Form<Kind>::Value> to,
                 Queue<typename Form<Kind>::Value> back) {
  const Holdings before = Count();
  for (absl::StatusOr<typename Form<Kind>::Value> item : to.Items()) {
    typename Form<Kind>::Value value = OrDie(std::move(item));
    if (!AllSay<Kind, Form>(value, 1)) return kWrongContent;
    MarkAll<Kind, Form>(value);
    if (!back.Put(value).ok()) return kNotSent;
  }
  return Count() == before ? 0 : kLeaked;
}

template <typename Kind, template <typename> class Form>
int AnswerAPipe(PipeEnd end) {
  const Holdings before = Count();
  for (;;) {
    absl::StatusOr<typename Form<Kind>::Value> value =
        end.Recv<typename Form<Kind>::Value>();
    if (absl::IsOutOfRange(value.status())) break;
    if (!value.ok() || !AllSay<Kind, Form>(*value, 1)) return kWrongContent;
    MarkAll<Kind, Form>(*value);
    if (!end.Send(*std::move(value)).ok()) return kNotSent;
  }
  return Count() == before ? 0 : kLeaked;
}

template <typename Kind, template <typename> class Form>
absl::StatusOr<typename Form<Kind>::Value> AnswerACall(
    typename Form<Kind>::Value value) {
  if (!AllSay<Kind, Form>(value, 1)) return absl::DataLossError("wrong");
  MarkAll<Kind, Form>(value);
  return value;
}

template <typename Kind>
class HandlesTest : public testing::Test {
 protected:
  static constexpr int kSaid = Kind::kCanMark ? 2 : 1;

  // The last to have a named region may have been a message on its way, which
  // removes no name; this, or the next who asks for that name, does.
  void TearDown() override { ASSERT_OK(Region::Sweep()); }

  // Calls `test.operator()<Form>()` for each form.
  template <typename Test>
  static void InEachForm(Test test) {
    {
      SCOPED_TRACE("alone");
      test.template operator()<Alone>();
    }
    {
      SCOPED_TRACE("inside others");
      test.template operator()<WithinOthers>();
    }
  }

 private:
  cohort_testing::LeakGuard guard_;
};
TYPED_TEST_SUITE(HandlesTest, Kinds);

TYPED_TEST(HandlesTest, AsStartArguments) {
  for (const StartMethod method : {StartMethod::kSpawn, StartMethod::kFork}) {
    SCOPED_TRACE(method == StartMethod::kSpawn ? "spawn" : "fork");
    const ProcessOptions options = {.start_method = method};
    this->InEachForm([&]<template <typename> class Form>() {
      using Value = typename Form<TypeParam>::Value;
      ASSERT_OK_AND_ASSIGN(const auto back, Queue<Value>::Create());
      ASSERT_OK_AND_ASSIGN(const auto counts, Queue<Holdings>::Create());
      absl::StatusOr<Process> process;
      {
        Value value = Form<TypeParam>::Fill();
        // A child of fork() has what its parent holds, whatever its arguments;
        // less, where the parent has given away its own by then.
        Holdings nothing;
        {
          ASSERT_OK_AND_ASSIGN(Process other,
                               Process::Start(options, Report, counts));
          ASSERT_OK_AND_ASSIGN(nothing, counts.Get());
          ASSERT_OK(other.Join());
        }
        process = Process::Start(options, AnswerAnArgument<TypeParam, Form>,
                                 std::move(value), back, nothing);
      }
      ASSERT_OK(process);
      ASSERT_OK_AND_ASSIGN(const Value value, back.Get(absl::Seconds(20)));
      EXPECT_TRUE((AllSay<TypeParam, Form>(value, TestFixture::kSaid)));
      ASSERT_OK_AND_ASSIGN(const ExitStatus end, process->Join());
      EXPECT_EQ(end.code, 0);
    });
  }
}

TYPED_TEST(HandlesTest, ThroughAQueue) {
  this->InEachForm([&]<template <typename> class Form>() {
    using Value = typename Form<TypeParam>::Value;
    ASSERT_OK_AND_ASSIGN(const auto to, Queue<Value>::Create());
    ASSERT_OK_AND_ASSIGN(const auto back, Queue<Value>::Create());
    ASSERT_OK_AND_ASSIGN(
        Process process,
        Process::Start(AnswerAQueue<TypeParam, Form>, to, back));
    for (int i = 0; i < 3; ++i) {
      ASSERT_OK(to.Put(Form<TypeParam>::Fill()));
      ASSERT_OK_AND_ASSIGN(const Value value, back.Get(absl::Seconds(20)));
      EXPECT_TRUE((AllSay<TypeParam, Form>(value, TestFixture::kSaid)));
    }
    to.Close();
    ASSERT_OK_AND_ASSIGN(const ExitStatus end, process.Join());
    EXPECT_EQ(end.code, 0);
  });
}

TYPED_TEST(HandlesTest, ThroughAPipe) {
  this->InEachForm([&]<template <typename> class Form>() {
    using Value = typename Form<TypeParam>::Value;
    auto ends = CreatePipe();
    ASSERT_OK(ends);
    absl::StatusOr<Process> process =
        Process::Start(AnswerAPipe<TypeParam, Form>, std::move(ends->second));
    ASSERT_OK(process);
    for (int i = 0; i < 3; ++i) {
      ASSERT_OK(ends->first.Send(Form<TypeParam>::Fill()));
      absl::StatusOr<Value> value = ends->first.Recv<Value>(absl::Seconds(20));
      ASSERT_OK(value);
      EXPECT_TRUE((AllSay<TypeParam, Form>(*value, TestFixture::kSaid)));
    }
    ends->first = PipeEnd();
    ASSERT_OK_AND_ASSIGN(const ExitStatus end, process->Join());
    EXPECT_EQ(end.code, 0);
  });
}

// What lies in a queue when all who had it are gone.
TYPED_TEST(HandlesTest, LeftInAQueue) {
  this->InEachForm([&]<template <typename> class Form>() {
    using Value = typename Form<TypeParam>::Value;
    ASSERT_OK_AND_ASSIGN(const auto queue, Queue<Value>::Create());
    for (int i = 0; i < 3; ++i) ASSERT_OK(queue.Put(Form<TypeParam>::Fill()));
  });
}

TYPED_TEST(HandlesTest, AsArgumentsAndResultsOfAPool) {
  for (const StartMethod method : {StartMethod::kSpawn, StartMethod::kFork}) {
    SCOPED_TRACE(method == StartMethod::kSpawn ? "spawn" : "fork");
    ASSERT_OK_AND_ASSIGN(
        ProcessPool pool,
        ProcessPool::Create({.workers = 1, .start_method = method}));
    this->InEachForm([&]<template <typename> class Form>() {
      using Value = typename Form<TypeParam>::Value;
      ASSERT_OK_AND_ASSIGN(const Holdings before, pool.Apply(Count));
      for (int i = 0; i < 3; ++i) {
        absl::StatusOr<Value> value =
            pool.Apply(AnswerACall<TypeParam, Form>, Form<TypeParam>::Fill());
        ASSERT_OK(value);
        EXPECT_TRUE((AllSay<TypeParam, Form>(*value, TestFixture::kSaid)));
      }
      ASSERT_OK_AND_ASSIGN(const Holdings after, pool.Apply(Count));
      EXPECT_EQ(after, before) << after.descriptors << " descriptors, "
                               << after.mappings << " mappings; before "
                               << before.descriptors << ", " << before.mappings;
    });
  }
}

}  // namespace
}  // namespace cohort
