// SPDX-License-Identifier: Apache-2.0
//
// Types that must not lie in an arena, each with its sentence.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cohort/shm/arena.h"
#include "cohort/shm/arena_allocator.h"
#include "cohort/shm/offset_ptr.h"

namespace {

struct Node {
  int id = 0;
  cohort::OffsetPtr<Node> next;
};
struct Log {
  explicit Log(const cohort::ArenaAllocator<void>& in) : lines(in) {}
  std::vector<int, cohort::ArenaAllocator<int>> lines;
};
struct Link {
  int id = 0;
  Link* next = nullptr;
};
struct Virtual {
  virtual void Act() {}
};

// What is right stays in view.
[[maybe_unused]] void Use(const cohort::Arena& arena) {
  (void)arena.New<Node>();
  (void)arena.FindOrConstruct<Log>("log");
#ifdef HOLDS_POINTER
  (void)arena.New<Link>();
#endif
#ifdef VIEW
  (void)arena.Find<std::string_view>("view");
#endif
#ifdef HEAP
  (void)arena.FindOrConstruct<std::string>("text");
#endif
#ifdef HEAP_IN_ELEMENT
  (void)std::vector<std::pair<const int, std::string>,
                    cohort::ArenaAllocator<std::pair<const int, std::string>>>(
      *arena.Clear("log"));
#endif
#ifdef DESTRUCTOR
  (void)arena.New<Log>(*arena.Clear("log"));
#endif
#ifdef VIRTUAL
  (void)arena.FindOrConstruct<Virtual>("virtual");
#endif
}

}  // namespace
