// SPDX-License-Identifier: Apache-2.0
//
// A program to refuse.

#include <concepts>

namespace {

template <typename T>
T Double(T value) {
  static_assert(std::integral<T>,
                "Only what is an integer can be doubled; it's a rule");
  return value + value;
}

}  // namespace

int Use() {
  int sum = Double(1);
#ifdef ASSERTED
  sum += static_cast<int>(Double(0.5));
#endif
#ifdef UNKNOWN
  sum += Triple(1);
#endif
  return sum;
}
