// SPDX-License-Identifier: Apache-2.0
//
// `TypeTag<T>()` is a number that stands in shared memory for the layout of a
// T, so that a process which takes the memory for something else is refused
// instead of reading nonsense.
//
//   constexpr uint64_t tag = cohort::TypeTag<Board>();
//   region = Region::Create({.size = sizeof(Board), .type_tag = tag});
//
// It covers the type's name, size and alignment, not its members: it catches a
// handle in the wrong hands and most changes between builds, not two
// translation units that disagree on a type. Compilers spell names in different
// ways, so both ends are of one compiler.

#ifndef COHORT_SHM_TYPE_TAG_H_
#define COHORT_SHM_TYPE_TAG_H_

#include <cstdint>
#include <string_view>

namespace cohort {
namespace shm_internal {

inline constexpr uint64_t kFnvBasis = 0xcbf29ce484222325;
inline constexpr uint64_t kFnvPrime = 0x100000001b3;

constexpr uint64_t HashText(uint64_t hash, std::string_view text) {
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
  }
  return hash;
}

constexpr uint64_t HashNumber(uint64_t hash, uint64_t number) {
  for (int i = 0; i < 8; ++i, number >>= 8) {
    hash = (hash ^ (number & 0xff)) * kFnvPrime;
  }
  return hash;
}

// The compiler spells T out in the name of this function.
template <typename T>
constexpr std::string_view NameWithin() {
  return __PRETTY_FUNCTION__;
}

}  // namespace shm_internal

// Contract
//   Placement:      a number; stands in the header of the memory it describes.
//   Thread-safety:  a function of its arguments alone.
//   Process-safety: equal in every process whose compiler spells T alike.
//   Fork-safety:    the same on both sides of fork().
//   Crash-safety:   holds nothing.
//   Signal-safety:  all of it.
//   Errors:         none; whoever compares tags reports that they differ.
//   Ordering:       none.
//   Cost:           none at run time where used as a constant.
//   Reference:      FNV-1a, the hash of Fowler, Noll and Vo.

// The tag of a T that plays `role`, such as "queue". Never 0, which means
// memory without a type. Where it does not stand there as its bytes, `version`
// is that of the format in which it does, such as kWireVersion.
template <typename T>
constexpr uint64_t TypeTag(std::string_view role = "object",
                           uint32_t version = 0) {
  using shm_internal::HashNumber;
  using shm_internal::HashText;
  uint64_t hash = HashText(shm_internal::kFnvBasis, role);
  hash = HashText(hash, shm_internal::NameWithin<T>());
  hash = HashNumber(hash, sizeof(T));
  hash = HashNumber(hash, alignof(T));
  if (version != 0) hash = HashNumber(hash, version);
  return hash == 0 ? 1 : hash;
}

}  // namespace cohort

#endif  // COHORT_SHM_TYPE_TAG_H_
