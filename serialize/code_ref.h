// SPDX-License-Identifier: Apache-2.0
//
// `cohort::CodeRef` names a function so that another process of the same build
// can call it: which module it is in (by build id), where in that module, and
// of which type. Address space randomisation does not disturb it.
//
//   absl::StatusOr<cohort::CodeRef> ref = cohort::MakeCodeRef(&Square);
//   // ... 24 bytes later, in a child that runs the same program:
//   absl::StatusOr<int (*)(int)> square =
//   cohort::ResolveCodeRef<int(int)>(*ref);
//   (*square)(7);
//
// Whoever can choose a code reference can choose what runs: take them only from
// a process that already controls this one, such as its parent. Between
// programs, name the work in data of your own instead.

#ifndef COHORT_SERIALIZE_CODE_REF_H_
#define COHORT_SERIALIZE_CODE_REF_H_

#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cohort {

// Contract
//   Placement:      anywhere; two plain structs of 24 and 40 bytes.
//   Thread-safety:  every function, from any thread; none takes a lock of ours.
//   Process-safety: a reference made in one process resolves in every other
//                   that has the same build of the module loaded.
//   Fork-safety:    a child of fork() makes and resolves at once, even if
//                   another thread of its parent was doing so.
//   Crash-safety:   nothing is shared.
//   Signal-safety:  none: the loader is asked, and memory allocated.
//   Errors:         FailedPrecondition: no loaded module of that build.
//                   InvalidArgument: not code of a module, or another type.
//   Ordering:       none.
//   Cost:           the first use, and the first after a module was loaded,
//                   reads the loader's list; others a table in memory.
//   Reference:      dl_iterate_phdr(3); the linker's --build-id.

// The bytes are a wire format between processes of one build.
struct CodeRef {
  uint64_t module = 0;     // Fingerprint of the module's build id.
  uint64_t offset = 0;     // From the module's load address.
  uint64_t signature = 0;  // Fingerprint of the function's type.

  friend bool operator==(const CodeRef&, const CodeRef&) = default;
};
static_assert(sizeof(CodeRef) == 24, "a wire format");

// Likewise for a member function: its own code, or its place in the table of
// virtual functions, from which the object called then chooses.
struct MemberCodeRef {
  CodeRef code;
  uint64_t slot = 0;       // 1 + the place in the table; 0: not virtual.
  int64_t adjustment = 0;  // From the object to the base that declares it.

  friend bool operator==(const MemberCodeRef&, const MemberCodeRef&) = default;
};
static_assert(sizeof(MemberCodeRef) == 40, "a wire format");

// The fingerprint of the running program itself: equal in two processes iff
// they run the same build. Cheap after the first call.
uint64_t BuildFingerprint();

namespace serialize_internal {

using AnyFunction = void (*)();

// FNV-1a: short, and the same in every build of every compiler.
constexpr uint64_t Fingerprint(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

// Of the name of T, which the compiler spells out in the name of this function.
template <class T>
consteval uint64_t TypeFingerprint() {
  return Fingerprint(__PRETTY_FUNCTION__);
}

absl::StatusOr<CodeRef> MakeCodeRef(AnyFunction function, uint64_t signature);
absl::StatusOr<AnyFunction> ResolveCodeRef(const CodeRef& ref,
                                           uint64_t signature);

// A pointer to member function, as the C++ ABI lays it out.
struct MemberWords {
  uint64_t code = 0;
  int64_t adjustment = 0;
};
absl::StatusOr<MemberCodeRef> MakeMemberCodeRef(MemberWords words,
                                                uint64_t signature);
absl::StatusOr<MemberWords> ResolveMemberCodeRef(const MemberCodeRef& ref,
                                                 uint64_t signature);

}  // namespace serialize_internal

// Names `function`. InvalidArgument for null and for an address outside the
// code of every loaded module (one that was generated at run time). A module
// must stay loaded as long as references to it are made or resolved.
template <class R, class... P>
absl::StatusOr<CodeRef> MakeCodeRef(R (*function)(P...)) {
  return serialize_internal::MakeCodeRef(
      reinterpret_cast<serialize_internal::AnyFunction>(function),
      serialize_internal::TypeFingerprint<R(P...)>());
}

// Finds the function again. FailedPrecondition where no loaded module is of the
// build that made `ref`; InvalidArgument where the offset is not in executable
// code of that module or the function had another type than `Signature`, which
// is a function type such as `int(int)`.
template <class Signature>
absl::StatusOr<Signature*> ResolveCodeRef(const CodeRef& ref) {
  static_assert(std::is_function_v<Signature>,
                "cohort: ResolveCodeRef takes a function type, as in "
                "ResolveCodeRef<int(int)>(ref)");
  absl::StatusOr<serialize_internal::AnyFunction> found =
      serialize_internal::ResolveCodeRef(
          ref, serialize_internal::TypeFingerprint<Signature>());
  if (!found.ok()) return found.status();
  return reinterpret_cast<Signature*>(*found);
}

// The same for a pointer to member function, virtual or not, such as
// &Shape::Area; `Member` is its type.
template <class Member>
absl::StatusOr<MemberCodeRef> MakeMemberCodeRef(Member member) {
  static_assert(std::is_member_function_pointer_v<Member>);
  if (member == nullptr) {
    return absl::InvalidArgumentError("a null member function cannot be sent");
  }
  return serialize_internal::MakeMemberCodeRef(
      std::bit_cast<serialize_internal::MemberWords>(member),
      serialize_internal::TypeFingerprint<Member>());
}

template <class Member>
absl::StatusOr<Member> ResolveMemberCodeRef(const MemberCodeRef& ref) {
  static_assert(std::is_member_function_pointer_v<Member>);
  absl::StatusOr<serialize_internal::MemberWords> found =
      serialize_internal::ResolveMemberCodeRef(
          ref, serialize_internal::TypeFingerprint<Member>());
  if (!found.ok()) return found.status();
  return std::bit_cast<Member>(*found);
}

}  // namespace cohort

#endif  // COHORT_SERIALIZE_CODE_REF_H_
