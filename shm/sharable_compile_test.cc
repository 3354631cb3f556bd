// SPDX-License-Identifier: Apache-2.0
//
// Types that must not be shared, each with its sentence.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <mutex>
#include <optional>
#include <semaphore>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "cohort/shm/region.h"
#include "cohort/shm/sharable.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/latch.h"
#include "cohort/sync/mutex.h"

namespace {

enum class Color : uint8_t { kRed };

struct Everything {
  cohort::Mutex mu;
  cohort::Latch start{1};
  std::atomic<int64_t> hits = 0;
  double ratio = 0;
  Color color = Color::kRed;
  std::array<int, 3> three = {};
  char name[8] = {};
  std::pair<int, bool> pair;
  std::optional<int> maybe;
  std::variant<int, double> either;
  absl::Duration wait;
};

class Private {
 public:
  Private() = default;

 private:
  [[maybe_unused]] int* mine_ = nullptr;
};

struct Node {
  int id = 0;
  Node* next = nullptr;
};
struct Late {
  explicit Late(int) {}
};
struct BehindLate {
  Late late;
  const char* text;
};
struct Outer {
  int id = 0;
  Node node;
};
struct Refers {
  int id;
  int& other;
};
struct RefersToConst {
  int id;
  const std::string& other;
};
struct Virtual {
  virtual void Act() {}
};
struct Owner {
  std::vector<int> numbers;
};
struct Guarded {
  std::mutex mu;
  int value = 0;
};
struct alignas(8192) Wide {
  char byte = 0;
};
struct Large {
  int64_t numbers[4];
};

static_assert(cohort::Sharable<int>);
static_assert(cohort::Sharable<int[3][4]>);
static_assert(cohort::Sharable<std::byte>);
static_assert(cohort::Sharable<Everything>);
static_assert(cohort::Sharable<Private>);
static_assert(cohort::Sharable<Late>);
static_assert(cohort::Sharable<std::tuple<>>);
static_assert(!cohort::Sharable<void>);
static_assert(!cohort::Sharable<int()>);
static_assert(!cohort::Sharable<std::nullptr_t>);
static_assert(!cohort::Sharable<int Node::*>);
static_assert(!cohort::Sharable<void (*)()>);
static_assert(!cohort::Sharable<const Node* const>);
static_assert(!cohort::Sharable<std::string>);
static_assert(!cohort::Sharable<std::function<void()>>);
static_assert(!cohort::Sharable<std::reference_wrapper<int>>);
static_assert(!cohort::Sharable<Outer>);
static_assert(!cohort::Sharable<BehindLate>);
static_assert(!cohort::Sharable<Refers>);
static_assert(!cohort::Sharable<RefersToConst>);
static_assert(!cohort::Sharable<Guarded>);
static_assert(!cohort::Sharable<Node[2]>);
static_assert(!cohort::Sharable<std::array<int*, 2>>);
static_assert(!cohort::Sharable<std::array<std::string_view, 2>>);
static_assert(!cohort::Sharable<std::pair<int, int*>>);
static_assert(!cohort::Sharable<std::tuple<int, int&>>);
static_assert(!cohort::Sharable<std::optional<int*>>);
static_assert(!cohort::Sharable<std::variant<int, int*>>);
static_assert(!cohort::Sharable<std::atomic<int*>>);
static_assert(!cohort::Sharable<std::binary_semaphore>);

// What is right stays in view.
[[maybe_unused]] void Use() {
  (void)cohort::Shared<Everything>::Create();
  (void)cohort::Shared<Late>::Create(1);
#ifdef POINTER
  (void)cohort::Shared<int*>::Create();
#endif
#ifdef HOLDS_POINTER
  (void)cohort::Shared<Node>::Create();
#endif
#ifdef HOLDS_REFERENCE
  (void)cohort::Shared<Refers>::Attach(cohort::Region());
#endif
#ifdef REFERENCE
  cohort::CheckSharable<int&>();
#endif
#ifdef VIEW
  (void)cohort::Shared<std::string_view>::Create();
#endif
#ifdef STRING
  (void)cohort::Shared<std::string>::Create();
#endif
#ifdef CONTAINER
  (void)cohort::Shared<Owner>::Create();
#endif
#ifdef VIRTUAL
  (void)cohort::Shared<Virtual>::Create();
#endif
#ifdef LOCAL_LOCK
  (void)cohort::Shared<std::mutex>::Create();
#endif
#ifdef LOCAL_LATCH
  (void)cohort::Shared<std::latch>::Create(1);
#endif
#ifdef HIDDEN_LOCK
  (void)cohort::Shared<std::atomic<Large>>::Create();
#endif
#ifdef ALIGNMENT
  (void)cohort::Shared<Wide>::Create();
#endif
#ifdef NO_LENGTH
  cohort::CheckSharable<int[]>();
#endif
}

}  // namespace
