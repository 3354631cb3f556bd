// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/arena_allocator.h"

#include <array>
#include <boost/container/flat_map.hpp>
#include <boost/container/list.hpp>
#include <boost/container/map.hpp>
#include <boost/container/scoped_allocator.hpp>
#include <boost/container/string.hpp>
#include <boost/container/vector.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/shm/arena.h"
#include "cohort/shm/internal/arena_audit.h"
#include "cohort/shm/offset_ptr.h"
#include "cohort/sync/mutex.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::LeakGuard;

namespace container = boost::container;

template <typename T>
using Vector = container::vector<T, ArenaAllocator<T>>;
template <typename T>
using List = container::list<T, ArenaAllocator<T>>;
using String =
    container::basic_string<char, std::char_traits<char>, ArenaAllocator<char>>;
template <typename K, typename V>
using Map =
    container::map<K, V, std::less<K>, ArenaAllocator<std::pair<const K, V>>>;
template <typename K, typename V>
using FlatMap =
    container::flat_map<K, V, std::less<K>, ArenaAllocator<std::pair<K, V>>>;

// Hands the allocator on to what is in the container.
template <typename T>
using Nested = container::scoped_allocator_adaptor<ArenaAllocator<T>>;
using Lines = container::vector<String, Nested<String>>;
using Book = container::map<String, Lines, std::less<String>,
                            Nested<std::pair<const String, Lines>>>;

struct Library {
  explicit Library(const ArenaAllocator<void>& in)
      : numbers(in),
        name(in),
        squares(in),
        cubes(in),
        queue(in),
        book(std::less<String>(), in) {}

  Mutex mu;
  Vector<int> numbers ABSL_GUARDED_BY(mu);
  String name ABSL_GUARDED_BY(mu);
  Map<int, int> squares ABSL_GUARDED_BY(mu);
  FlatMap<int, int> cubes ABSL_GUARDED_BY(mu);
  List<int> queue ABSL_GUARDED_BY(mu);
  Book book ABSL_GUARDED_BY(mu);
};

class ArenaAllocatorTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(arena_, Arena::Create({.size = 4 << 20}));
  }
  void TearDown() override { EXPECT_EQ(Audit(arena_), ""); }

  // The same arena at another address.
  absl::StatusOr<Arena> Again() {
    absl::StatusOr<Frame> frame = Encode(arena_);
    if (!frame.ok()) return frame.status();
    return Decode<Arena>(*std::move(frame));
  }

  static String Text(Library& library,
                     const char* text) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return String(text, library.name.get_allocator());
  }

  static void Fill(Library& library) {
    MutexLock lock(library.mu);
    for (int i = 0; i < 100; ++i) {
      library.numbers.push_back(i);
      library.squares.emplace(i, i * i);
      library.cubes.emplace(99 - i, i);
      library.queue.push_front(i);
    }
    library.name = "a name that is longer than what a string has room for";
    for (const char* title :
         {"one", "two", "a rather long title, for a book"}) {
      Lines& lines = library.book[Text(library, title)];
      for (int i = 0; i < 20; ++i) {
        lines.emplace_back("a line of some length, and a number");
        lines.back() += std::to_string(i).c_str();
      }
    }
  }

  // Returns 0 iff all of it is there.
  static int Read(Library& library) {
    MutexLock lock(library.mu);
    if (library.numbers.size() != 100 || library.squares.size() != 100 ||
        library.cubes.size() != 100 || library.queue.size() != 100) {
      return 1;
    }
    int i = 0;
    for (const int number : library.queue) {
      if (number != 99 - i || library.numbers[i] != i) return 2;
      if (library.squares.at(i) != i * i || library.cubes.at(i) != 99 - i) {
        return 3;
      }
      ++i;
    }
    if (library.name.find("longer") == String::npos) return 4;
    if (library.book.size() != 3) return 5;
    const auto two = library.book.find(Text(library, "two"));
    if (two == library.book.end() || two->second.size() != 20) return 6;
    return two->second[19] == "a line of some length, and a number19" ? 0 : 7;
  }

  LeakGuard guard_{{.shm_name_part = "cohort-arena-test"}};
  Arena arena_;
};

TEST_F(ArenaAllocatorTest, ContainersAtAnotherAddress) {
  ASSERT_OK_AND_ASSIGN(Library* const library,
                       arena_.FindOrConstruct<Library>("library"));
  Fill(*library);
  EXPECT_EQ(Read(*library), 0);
  ASSERT_OK_AND_ASSIGN(const Arena again, Again());
  ASSERT_OK_AND_ASSIGN(Library* const there, again.Find<Library>("library"));
  ASSERT_NE(there, library);
  EXPECT_EQ(Read(*there), 0);
  EXPECT_OK(arena_.Destroy("library"));
  EXPECT_EQ(arena_.Count().object_blocks, 0u);
}

TEST_F(ArenaAllocatorTest, OneProcessFillsAndAnotherReads) {
  const auto other = [&](auto use) {
    return Child::Fork([&, use] {
             // Not the mapping that it has inherited.
             const absl::StatusOr<Arena> arena = Again();
             if (!arena.ok()) return 20;
             const absl::StatusOr<Library*> library =
                 arena->FindOrConstruct<Library>("library");
             return library.ok() ? use(**library) : 21;
           })
        .Wait();
  };
  EXPECT_EQ(other([](Library& library) {
              Fill(library);
              return 0;
            }),
            Exited(0));
  EXPECT_EQ(other([](Library& library) { return Read(library); }), Exited(0));
  EXPECT_EQ(other([](Library& library) {
              MutexLock lock(library.mu);
              library.numbers.clear();
              library.numbers.shrink_to_fit();
              library.squares.clear();
              library.cubes.clear();
              library.cubes.shrink_to_fit();
              library.queue.clear();
              library.book.clear();
              library.name.clear();
              library.name.shrink_to_fit();
              return 0;
            }),
            Exited(0));
  // The object itself is left, and the blocks of the containers are free.
  EXPECT_EQ(arena_.Count().object_blocks, 1u);
  EXPECT_EQ(arena_.Reap(), 0);
}

TEST_F(ArenaAllocatorTest, AVectorIsAnObjectItself) {
  ASSERT_OK_AND_ASSIGN(Vector<int>* const numbers,
                       arena_.FindOrConstruct<Vector<int>>("numbers"));
  numbers->assign(1000, 5);
  ASSERT_OK_AND_ASSIGN(const Arena again, Again());
  ASSERT_OK_AND_ASSIGN(Vector<int>* const there,
                       again.Find<Vector<int>>("numbers"));
  EXPECT_EQ(there->size(), 1000u);
  EXPECT_EQ(there->back(), 5);
  // The standard's vector does, too.
  using StdVector = std::vector<int, ArenaAllocator<int>>;
  ASSERT_OK_AND_ASSIGN(StdVector* const standard,
                       arena_.FindOrConstruct<StdVector>("standard"));
  standard->assign(100, 6);
  ASSERT_OK_AND_ASSIGN(StdVector* const standard_there,
                       again.Find<StdVector>("standard"));
  EXPECT_EQ(standard_there->back(), 6);
}

TEST_F(ArenaAllocatorTest, RandomUseOfAMap) {
  ASSERT_OK_AND_ASSIGN(Library* const library,
                       arena_.FindOrConstruct<Library>("library"));
  MutexLock lock(library->mu);
  std::mt19937 random(5);
  std::vector<int> there(200);
  for (int i = 0; i < 20'000; ++i) {
    const int key = static_cast<int>(random() % there.size());
    if (random() % 2 == 0) {
      library->squares[key] = i;
      there[key] = i;
    } else {
      library->squares.erase(key);
      there[key] = 0;
    }
  }
  for (size_t key = 0; key < there.size(); ++key) {
    const auto found = library->squares.find(static_cast<int>(key));
    EXPECT_EQ(found == library->squares.end() ? 0 : found->second, there[key]);
  }
}

TEST_F(ArenaAllocatorTest, NoElementsAreABlockToo) {
  struct alignas(4096) Page {
    std::array<char, 4096> bytes;
  };
  struct Two {
    explicit Two(const ArenaAllocator<void>& in) : pages(in), ints(in) {}
    ArenaAllocator<Page> pages;
    ArenaAllocator<int> ints;
  };
  ASSERT_OK_AND_ASSIGN(Two* const two, arena_.FindOrConstruct<Two>("two"));
  const OffsetPtr<Page> page = two->pages.allocate(0);
  const OffsetPtr<int> number = two->ints.allocate(0);
  EXPECT_EQ(arena_.Count().object_blocks, 3u);
  two->pages.deallocate(page, 0);
  two->ints.deallocate(number, 0);
  EXPECT_EQ(arena_.Count().object_blocks, 1u);
}

TEST_F(ArenaAllocatorTest, AFullArenaThrows) {
  ASSERT_OK_AND_ASSIGN(Vector<int>* const numbers,
                       arena_.FindOrConstruct<Vector<int>>("numbers"));
  numbers->push_back(1);
  EXPECT_THROW(numbers->reserve(10'000'000), std::bad_alloc);
  EXPECT_THROW((void)numbers->get_allocator().allocate(~size_t{0} / 2),
               std::bad_alloc);
  EXPECT_EQ(numbers->size(), 1u);
  EXPECT_EQ(numbers->front(), 1);
}

// What it was made for has gone, so it makes no more blocks that nobody owns.
TEST_F(ArenaAllocatorTest, ThrowsWhereItsObjectHasEnded) {
  ASSERT_OK_AND_ASSIGN(Vector<int>* const numbers,
                       arena_.FindOrConstruct<Vector<int>>("numbers"));
  ArenaAllocator<int> in = numbers->get_allocator();
  EXPECT_OK(arena_.Destroy("numbers"));
  EXPECT_THROW((void)in.allocate(1), std::bad_alloc);
  ASSERT_OK_AND_ASSIGN(Vector<int>* const successor,
                       arena_.FindOrConstruct<Vector<int>>("numbers"));
  EXPECT_FALSE(successor->get_allocator() == in);
  EXPECT_THROW((void)in.allocate(1), std::bad_alloc);
  EXPECT_EQ(arena_.Count().object_blocks, 1u);
}

TEST_F(ArenaAllocatorTest, ObjectsAreApart) {
  ASSERT_OK_AND_ASSIGN(Vector<int>* const a,
                       arena_.FindOrConstruct<Vector<int>>("a"));
  ASSERT_OK_AND_ASSIGN(Vector<int>* const b,
                       arena_.FindOrConstruct<Vector<int>>("b"));
  EXPECT_FALSE(a->get_allocator() == b->get_allocator());
  EXPECT_TRUE(a->get_allocator() == ArenaAllocator<char>(a->get_allocator()));
  a->assign(100, 1);
  b->assign(100, 2);
  *b = std::move(*a);  // Copies: the blocks cannot change their owner.
  EXPECT_EQ(b->front(), 1);
  a->assign(50, 3);
  EXPECT_OK(arena_.Destroy("a"));
  EXPECT_EQ(b->size(), 100u);
  EXPECT_EQ(b->back(), 1);
}

TEST_F(ArenaAllocatorTest, ClearAndMakeAnew) {
  ASSERT_OK_AND_ASSIGN(Library* const library,
                       arena_.FindOrConstruct<Library>("library"));
  Fill(*library);
  EXPECT_GT(arena_.Count().object_blocks, 200u);
  ASSERT_OK_AND_ASSIGN(const ArenaAllocator<void> in, arena_.Clear("library"));
  std::construct_at(library, in);
  EXPECT_EQ(arena_.Count().object_blocks, 1u);
  Fill(*library);
  EXPECT_EQ(Read(*library), 0);
}

using ArenaAllocatorDeathTest = ArenaAllocatorTest;

TEST_F(ArenaAllocatorDeathTest, FreeingWhatIsNotItsObjectsIsFatal) {
  ASSERT_OK_AND_ASSIGN(Vector<int>* const a,
                       arena_.FindOrConstruct<Vector<int>>("a"));
  ASSERT_OK_AND_ASSIGN(Vector<int>* const b,
                       arena_.FindOrConstruct<Vector<int>>("b"));
  OffsetPtr<int> block = a->get_allocator().allocate(1);
  EXPECT_DEATH(b->get_allocator().deallocate(block, 1), "not its object's");
  a->get_allocator().deallocate(block, 1);
  EXPECT_DEATH(a->get_allocator().deallocate(block, 1), "not its object's");
}

}  // namespace
}  // namespace cohort
