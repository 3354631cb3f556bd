// SPDX-License-Identifier: Apache-2.0
//
// What SharedValue and SharedArray refuse, each with its sentence.

#include <array>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "cohort/ipc/shared_array.h"
#include "cohort/ipc/shared_value.h"
#include "cohort/sync/mutex.h"

namespace {

struct Guarded {
  cohort::Mutex mu;
  int number = 0;
};
using Wide = std::array<int64_t, 3>;
struct Node {
  int id = 0;
  Node* next = nullptr;
};

// What is right stays in view.
[[maybe_unused]] void Use() {
  (void)cohort::SharedValue<Guarded>::Create();
  cohort::SharedValue<Guarded> guarded;
  (void)guarded.With([](Guarded& g) { return g.number; });
  cohort::SharedValue<Wide> wide;
  wide.Store({1, 2, 3});
  cohort::SharedArray<Guarded> row;
  (void)row.With([](absl::Span<Guarded> all) { return all.size(); });
#ifdef VALUE_POINTER
  (void)cohort::SharedValue<Node>::Create();
#endif
#ifdef VALUE_STRING
  (void)cohort::SharedValue<std::string>::OpenOrCreate("name");
#endif
#ifdef ARRAY_POINTER
  (void)cohort::SharedArray<const char*>::Create(3);
#endif
#ifdef ARRAY_STRING
  (void)cohort::SharedArray<std::string>::Open("name");
#endif
#ifdef VALUE_LOAD_LOCK
  (void)guarded.Load();
#endif
#ifdef ARRAY_LOAD_LOCK
  (void)row.Load(0);
#endif
#ifdef VALUE_ATOMIC
  (void)wide.atomic();
#endif
#ifdef ARRAY_ATOMIC
  (void)row.atomic(0);
#endif
}

}  // namespace
