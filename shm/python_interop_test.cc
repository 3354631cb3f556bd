// SPDX-License-Identifier: Apache-2.0
//
// Stock Python and this library share regions, lists and NumPy's arrays, each
// made by either side and written from both.

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/shm/region.h"
#include "cohort/shm/shareable_list.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/python.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Exited;
using cohort_testing::IsOkAndHolds;
using cohort_testing::KilledBy;
using cohort_testing::Python;
using cohort_testing::PythonLiteral;
using cohort_testing::StatusIs;
using cohort_testing::UniqueShmName;
using testing::HasSubstr;

using Value = ShareableList::Value;
using Bytes = ShareableList::Bytes;
using None = ShareableList::None;

bool Exists(const std::string& name) {
  return std::filesystem::exists("/dev/shm/" + name);
}

// Python's resource tracker is a process of its own, which nobody can wait for.
bool AwaitGone(const std::string& name) {
  const Deadline until = Deadline::After(std::chrono::seconds(30));
  while (Exists(name)) {
    if (until.Passed()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// Has a Python with the modules, a `name` that is free, and functions:
//   attach(name)   SharedMemory(name), but its name stays when Python exits
class PythonInteropTest : public testing::Test {
 protected:
  PythonInteropTest() : name_(UniqueShmName()) { Prepare(python_); }

  ~PythonInteropTest() override { EXPECT_FALSE(Exists(name_)) << name_; }

  void Prepare(Python& python) const {
    EXPECT_TRUE(python.Run("name = " + PythonLiteral(name_) + R"(
import math, random
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory, ShareableList

def attach(name):
    memory = SharedMemory(name=name)
    resource_tracker.unregister(memory._name, 'shared_memory')
    return memory

def attach_list(name):
    values = ShareableList(name=name)
    resource_tracker.unregister(values.shm._name, 'shared_memory')
    return values
)"));
  }

  Region MakeNamed(size_t size) const {
    absl::StatusOr<Region> region = Region::CreateNamed(name_, {.size = size});
    EXPECT_OK(region);
    return *std::move(region);
  }

  static std::span<unsigned char> BytesOf(const Region& region) {
    return {reinterpret_cast<unsigned char*>(region.bytes().data()),
            region.size()};
  }

  cohort_testing::LeakGuard guard_;
  const std::string name_;
  Python python_;
};

// Regions. --------------------------------------------------------------------

TEST_F(PythonInteropTest, PythonAttachesToARegionByItsName) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{5000}}) {
    const Region region = MakeNamed(size);
    const std::span<unsigned char> bytes = BytesOf(region);
    ASSERT_TRUE(python_.Run("memory = attach(name)"));
    ASSERT_TRUE(python_.Run("assert memory.size >= " + std::to_string(size)));
    for (int round = 1; round <= 20; ++round) {
      bytes[0] = static_cast<unsigned char>(round);
      bytes[size - 1] = static_cast<unsigned char>(round);
      EXPECT_EQ(python_.Eval("memory.buf[0]"), std::to_string(round));
      ASSERT_TRUE(python_.Run("memory.buf[" + std::to_string(size - 1) +
                              "] = 100 + " + std::to_string(round)));
      EXPECT_EQ(bytes[size - 1], 100 + round);
    }
    ASSERT_TRUE(python_.Run("memory.close()"));
  }
}

TEST_F(PythonInteropTest, ARegionOfPythonsIsMereBytesHere) {
  for (const size_t size :
       {size_t{1}, size_t{123}, size_t{4096}, size_t{9000}}) {
    ASSERT_TRUE(python_.Run("memory = SharedMemory(name, True, " +
                            std::to_string(size) + ")\nmemory.buf[0] = 1"));
    {
      ASSERT_OK_AND_ASSIGN(const Region region, Region::Open(name_));
      EXPECT_EQ(region.size(), size);
      EXPECT_EQ(region.type_tag(), 0u);
      const std::span<unsigned char> bytes = BytesOf(region);
      for (int round = 1; round <= 20; ++round) {
        ASSERT_TRUE(python_.Run("memory.buf[-1] = " + std::to_string(round)));
        EXPECT_EQ(bytes[size - 1], round);
        bytes[0] = static_cast<unsigned char>(100 + round);
        EXPECT_EQ(python_.Eval("memory.buf[0]"), std::to_string(100 + round));
      }
    }
    // Ours was the last handle here, but the name is Python's.
    EXPECT_TRUE(Exists(name_));
    EXPECT_OK(Region::Sweep());
    EXPECT_TRUE(Exists(name_));
    EXPECT_THAT(Region::CreateNamed(name_, {.size = 1}),
                StatusIs(absl::StatusCode::kAlreadyExists));
    ASSERT_TRUE(python_.Run("memory.close(); memory.unlink()"));
    EXPECT_THAT(Region::Open(name_), StatusIs(absl::StatusCode::kNotFound));
  }
}

TEST_F(PythonInteropTest, AbandonedRegionOfPythonsStaysUntilItsTrackerComes) {
  ASSERT_TRUE(python_.Run("memory = SharedMemory(name, True, 100)"));
  ASSERT_OK_AND_ASSIGN(const Region region, Region::Open(name_));
  EXPECT_OK(Region::Sweep());
  EXPECT_TRUE(Exists(name_));
  python_.process().Kill(SIGKILL);
  EXPECT_EQ(python_.process().Wait(), KilledBy(SIGKILL));
  EXPECT_TRUE(AwaitGone(name_));
  BytesOf(region)[99] = 7;  // The memory stays with its users.
  EXPECT_EQ(BytesOf(region)[99], 7);
}

// Python forgets that it did not make what it attached to, and removes it when
// it exits: https://github.com/python/cpython/issues/82300.
TEST_F(PythonInteropTest, PythonThatMerelyAttachedTakesTheNameWithIt) {
  for (const bool killed : {false, true}) {
    Python python;
    Prepare(python);
    Region first = MakeNamed(100);
    ASSERT_TRUE(python.Run("memory = SharedMemory(name)\nmemory.buf[0] = 1"));
    if (killed) {
      python.process().Kill(SIGKILL);
      EXPECT_EQ(python.process().Wait(), KilledBy(SIGKILL));
    } else {
      EXPECT_EQ(python.Exit(), Exited(0));
    }
    ASSERT_TRUE(AwaitGone(name_));
    // The memory is as it was.
    EXPECT_EQ(BytesOf(first)[0], 1);
    EXPECT_THAT(Region::Open(name_), StatusIs(absl::StatusCode::kNotFound));
    EXPECT_OK(Region::Sweep());
    // The name is free for another, which the first one's end leaves alone.
    const Region second = MakeNamed(200);
    first = Region();
    EXPECT_TRUE(Exists(name_));
    ASSERT_OK_AND_ASSIGN(const Region again, Region::Open(name_));
    EXPECT_EQ(again.size(), 200u);
  }
}

TEST_F(PythonInteropTest, WhoUnregistersLeavesTheName) {
  const Region region = MakeNamed(100);
  for (int round = 0; round < 3; ++round) {
    Python python;
    Prepare(python);
    ASSERT_TRUE(python.Run("memory = attach(name)\nmemory.buf[0] += 1"));
    if (round == 2) {
      python.process().Kill(SIGKILL);
      EXPECT_EQ(python.process().Wait(), KilledBy(SIGKILL));
    } else {
      EXPECT_EQ(python.Exit(), Exited(0));
    }
    EXPECT_EQ(BytesOf(region)[0], round + 1);
  }
  ASSERT_OK_AND_ASSIGN(const Region again, Region::Open(name_));
  EXPECT_EQ(BytesOf(again)[0], 3);
}

TEST_F(PythonInteropTest, PythonKeepsTheMemoryWhenOurProcessHasGone) {
  ASSERT_TRUE(python_.Run("memory = None"));
  {
    const Region region = MakeNamed(100);
    BytesOf(region)[0] = 5;
    ASSERT_TRUE(python_.Run("memory = attach(name)"));
  }
  // Python is no owner to us: the name goes with the last of ours.
  EXPECT_FALSE(Exists(name_));
  EXPECT_EQ(python_.Eval("memory.buf[0]"), "5");
  ASSERT_TRUE(python_.Run("memory.buf[0] = 6; memory.close()"));
}

// ShareableList. --------------------------------------------------------------

// One of each, and their edges; in Python's words and in ours.
constexpr std::string_view kAllInPython =
    "[0, -1, 2**63 - 1, -2**63, 1.5, -0.0, math.inf, -math.inf, 5e-324, True, "
    "False, None, '', 'a', '1234567', '12345678', 'x' * 1000, 'a\\0b', "
    "'gr\\u00fc\\u00dfe', '\\u4e16 is three bytes', b'', b'\\xff\\x80', "
    "b'\\0\\1', b'12345678']";
std::vector<Value> All() {
  return {0,
          -1,
          std::numeric_limits<int64_t>::max(),
          std::numeric_limits<int64_t>::min(),
          1.5,
          -0.0,
          std::numeric_limits<double>::infinity(),
          -std::numeric_limits<double>::infinity(),
          std::numeric_limits<double>::denorm_min(),
          true,
          false,
          None(),
          "",
          "a",
          "1234567",
          "12345678",
          std::string(1000, 'x'),
          std::string("a\0b", 3),
          "grüße",
          "世 is three bytes",
          Bytes{""},
          Bytes{"\xff\x80"},
          Bytes{std::string("\0\1", 2)},
          Bytes{"12345678"}};
}

TEST_F(PythonInteropTest, PythonReadsAndWritesAListOfOurs) {
  ASSERT_OK_AND_ASSIGN(const ShareableList list,
                       ShareableList::CreateNamed(name_, All()));
  ASSERT_TRUE(python_.Run("theirs = attach_list(name)"));
  ASSERT_TRUE(python_.Run("expected = " + std::string(kAllInPython)));
  // As text: 0 and False are equal, but not the same.
  EXPECT_EQ(
      python_.Eval("repr(list(theirs)) == repr(expected) or list(theirs)"),
      "True");
  ASSERT_OK_AND_ASSIGN(const std::string format, list.Format());
  EXPECT_EQ(python_.Eval("theirs.format"), "'" + format + "'");
  ASSERT_TRUE(
      python_.Run("theirs[0] = 'as text'\n"
                  "theirs[12] = b'\\xfe'\n"
                  "theirs[16] = None\n"
                  "theirs[-1] = math.nan\n"));
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Value("as text")));
  EXPECT_THAT(list.Get(12), IsOkAndHolds(Value(Bytes{"\xfe"})));
  EXPECT_THAT(list.Get(16), IsOkAndHolds(Value(None())));
  ASSERT_OK_AND_ASSIGN(const Value nan, list.Get(-1));
  EXPECT_TRUE(std::isnan(std::get<double>(nan)));
  ASSERT_OK(list.Set(16, std::string(1000, 'y')));  // Python kept its room.
  EXPECT_EQ(python_.Eval("theirs[16] == 'y' * 1000"), "True");
  EXPECT_EQ(python_.Eval("theirs.__setitem__(13, '123456789')"),
            "ValueError: bytes/str item exceeds available storage");
  EXPECT_THAT(list.Set(13, "123456789"),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(list.Count(0), IsOkAndHolds(2u));
  EXPECT_EQ(python_.Eval("theirs.count(0)"), "2");
  EXPECT_THAT(list.Index(true), IsOkAndHolds(9u));
  EXPECT_EQ(python_.Eval("theirs.index(True)"), "9");
  ASSERT_TRUE(python_.Run("theirs.shm.close()"));
}

TEST_F(PythonInteropTest, AListOfPythonsIsReadAndWrittenHere) {
  ASSERT_TRUE(python_.Run("theirs = ShareableList(" +
                          std::string(kAllInPython) + ", name=name)"));
  {
    ASSERT_OK_AND_ASSIGN(const ShareableList list, ShareableList::Open(name_));
    EXPECT_THAT(list.Values(), IsOkAndHolds(All()));
    ASSERT_OK(list.Set(0, 2.5));
    ASSERT_OK(list.Set(1, "12345678"));
    ASSERT_OK(list.Set(2, Bytes{"\xff"}));
    ASSERT_OK(list.Set(3, None()));
    ASSERT_OK(list.Set(4, true));
    ASSERT_OK(list.Set(16, std::string(1008, 'z')));
    ASSERT_OK(list.Set(-1, -7));
    EXPECT_EQ(python_.Eval("[theirs[i] for i in "
                           "(0, 1, 2, 3, 4, -1)]"),
              "[2.5, '12345678', b'\\xff', None, True, -7]");
    EXPECT_EQ(python_.Eval("theirs[16] == 'z' * 1008"), "True");
    ASSERT_OK_AND_ASSIGN(const std::string format, list.Format());
    EXPECT_EQ(python_.Eval("theirs.format"), "'" + format + "'");
  }
  EXPECT_TRUE(Exists(name_));
  ASSERT_TRUE(python_.Run("theirs.shm.close(); theirs.shm.unlink()"));
}

// Whatever Python makes, we read; and what we make of the same values is the
// same to the byte.
TEST_F(PythonInteropTest, RandomListsAreEqualToTheByte) {
  const std::string ours_name = UniqueShmName();
  ASSERT_TRUE(python_.Run("ours_name = " + PythonLiteral(ours_name) + R"(
random.seed(20)
def text(most):
    # Of as many bytes as characters: else Python itself cuts it off.
    return ''.join(chr(random.randrange(128)) for _ in range(random.randrange(most)))
def value():
    return random.choice([
        None, True, False, random.getrandbits(64) - 2**63, random.randrange(-9, 9),
        random.uniform(-1e300, 1e300), math.nan, text(40),
        random.randbytes(random.randrange(40))])
def fill():
    theirs = ShareableList([value() for _ in range(random.randrange(30))], name=name)
    return theirs
def change(values):
    for i in range(len(values)):
        if random.random() < 0.5:
            try: values[i] = value()
            except ValueError: pass
def same(a, b):
    size = 16 * (len(a) + 1) + a._allocated_offsets[-1] + len(a)
    return bytes(a.shm.buf[:size]) == bytes(b.shm.buf[:size]) or (list(a), list(b))
)"));
  for (int round = 0; round < 100; ++round) {
    ASSERT_TRUE(python_.Run("theirs = fill()"));
    {
      ASSERT_OK_AND_ASSIGN(const ShareableList theirs,
                           ShareableList::Open(name_));
      ASSERT_OK_AND_ASSIGN(std::vector<Value> values, theirs.Values());
      EXPECT_EQ(python_.Eval("len(theirs)"), std::to_string(values.size()));
      // Zeros at the end count for the room of a text, but cannot be read.
      ASSERT_TRUE(
          python_.Run("plain = not any(isinstance(v, (str, bytes)) and "
                      "len(v) // 8 * 8 + 8 != int(f[:-1]) for v, f in "
                      "((v, theirs._get_packing_format(i)) for i, v in "
                      "enumerate(theirs)))"));
      ASSERT_OK_AND_ASSIGN(const ShareableList ours,
                           ShareableList::CreateNamed(ours_name, values));
      ASSERT_TRUE(python_.Run("ours = attach_list(ours_name)"));
      if (python_.Eval("plain") == "True") {
        EXPECT_EQ(python_.Eval("same(ours, theirs)"), "True");
      }
      EXPECT_EQ(python_.Eval("repr(list(ours)) == repr(list(theirs))"), "True");
      // What Python changes is copied over, one by one.
      ASSERT_TRUE(python_.Run("change(theirs)"));
      for (size_t i = 0; i < ours.size(); ++i) {
        const auto at = static_cast<int64_t>(i);
        ASSERT_OK_AND_ASSIGN(const Value value, theirs.Get(at));
        ASSERT_OK(ours.Set(at, value));
      }
      if (python_.Eval("plain") == "True") {
        EXPECT_EQ(python_.Eval("same(ours, theirs)"), "True");
      }
      EXPECT_EQ(python_.Eval("repr(list(ours)) == repr(list(theirs))"), "True");
      ASSERT_TRUE(python_.Run("ours.shm.close()"));
    }
    ASSERT_TRUE(python_.Run("theirs.shm.close(); theirs.shm.unlink()"));
    EXPECT_FALSE(Exists(ours_name));
  }
}

TEST_F(PythonInteropTest, AStrThatPythonItselfCutOffIsDataLoss) {
  // Three characters have room for eight bytes, and take nine.
  ASSERT_TRUE(
      python_.Run("theirs = ShareableList(['\\u20ac' * 3], name=name)"));
  {
    ASSERT_OK_AND_ASSIGN(const ShareableList list, ShareableList::Open(name_));
    if (python_.Eval("theirs[0]").starts_with("UnicodeDecodeError")) {
      EXPECT_THAT(list.Get(0),
                  StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no UTF-8")));
    } else {
      EXPECT_THAT(list.Get(0), IsOkAndHolds(Value("€€€")));
    }
    ASSERT_OK(list.Set(0, "€€"));
    EXPECT_EQ(python_.Eval("theirs[0]"), "'€€'");
  }
  ASSERT_TRUE(python_.Run("theirs.shm.close(); theirs.shm.unlink()"));
}

TEST_F(PythonInteropTest, PythonSeesThatAnElementIsTorn) {
  ASSERT_OK_AND_ASSIGN(const ShareableList list,
                       ShareableList::CreateNamed(name_, {"text"}));
  ASSERT_TRUE(python_.Run("theirs = attach_list(name)"));
  list.region().bytes()[8 * 4 + 8] = std::byte{0xff};  // As Set() does first.
  EXPECT_THAT(list.Get(0), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(python_.Eval("theirs[0]"), "KeyError: -1");
  ASSERT_TRUE(python_.Run("theirs[0] = 'new'; theirs.shm.close()"));
  EXPECT_THAT(list.Get(0), IsOkAndHolds(Value("new")));
}

TEST_F(PythonInteropTest, WhatIsNoListIsRefused) {
  ASSERT_TRUE(
      python_.Run("memory = SharedMemory(name, True, 64)\n"
                  "memory.buf[:] = b'\\xff' * 64"));
  EXPECT_THAT(ShareableList::Open(name_),
              StatusIs(absl::StatusCode::kDataLoss));
  ASSERT_TRUE(python_.Run("memory.close(); memory.unlink()"));
}

// NumPy. ----------------------------------------------------------------------

TEST_F(PythonInteropTest, NumpySeesTheSameNumbers) {
  constexpr size_t kRows = 100;
  constexpr size_t kColumns = 7;
  const Region region = MakeNamed(kRows * kColumns * sizeof(double));
  const std::span<double> numbers(
      reinterpret_cast<double*>(region.bytes().data()), kRows * kColumns);
  ASSERT_TRUE(
      python_.Run("import numpy as np\n"
                  "memory = attach(name)\n"
                  "a = np.ndarray((100, 7), np.float64, buffer=memory.buf)"));
  for (int round = 0; round < 10; ++round) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = static_cast<double>(i) + round;
    }
    EXPECT_EQ(python_.Eval("bool((a == np.arange(700).reshape(100, 7) + " +
                           std::to_string(round) + ").all())"),
              "True");
    ASSERT_TRUE(python_.Run("a *= 2; a[99, 6] = -np.inf"));
    EXPECT_EQ(numbers[kColumns * 3 + 2], 2.0 * (kColumns * 3 + 2 + round));
    EXPECT_EQ(numbers.back(), -std::numeric_limits<double>::infinity());
  }
  ASSERT_TRUE(python_.Run("del a; memory.close()"));
}

TEST_F(PythonInteropTest, NumpysOwnArrayIsSeenHere) {
  struct Sample {
    int32_t id;
    float weight;
    int64_t time;
  };
  ASSERT_TRUE(python_.Run(
      "import numpy as np\n"
      "kind = np.dtype([('id', '<i4'), ('weight', '<f4'), ('time', '<i8')])\n"
      "memory = SharedMemory(name, True, 1000 * kind.itemsize)\n"
      "a = np.ndarray(1000, kind, buffer=memory.buf)\n"
      "a['id'] = np.arange(1000)\n"
      "a['weight'] = a['id'] / 8\n"
      "a['time'] = -a['id'].astype(np.int64) << 40\n"));
  {
    ASSERT_OK_AND_ASSIGN(const Region region, Region::Open(name_));
    const std::span<Sample> samples(
        reinterpret_cast<Sample*>(region.bytes().data()),
        region.size() / sizeof(Sample));
    ASSERT_EQ(samples.size(), 1000u);
    for (int i = 0; i < 1000; ++i) {
      EXPECT_EQ(samples[i].id, i);
      EXPECT_EQ(samples[i].weight, static_cast<float>(i) / 8);
      EXPECT_EQ(samples[i].time, -int64_t{i} * (int64_t{1} << 40));
      samples[i].weight = 1;
    }
    EXPECT_EQ(python_.Eval("float(a['weight'].sum())"), "1000.0");
  }
  ASSERT_TRUE(python_.Run("del a; memory.close(); memory.unlink()"));
}

}  // namespace
}  // namespace cohort
