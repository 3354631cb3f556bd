// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Encodable<T>` says whether a value of type T can travel to another
// process, and how. Where it cannot, `CheckEncodable<T>()` stops the build with
// one sentence that names the mistake.
//
//   static_assert(cohort::Encodable<std::map<std::string, std::vector<int>>>);
//   static_assert(!cohort::Encodable<const char*>);   // a pointer stays at
//   home
//
//   template <class T>
//   void Publish(const T& value) {
//     cohort::CheckEncodable<T>();   // first in a body, never in a signature
//     ...
//
// What travels, first match wins:
//   1. numbers, enumerations, strings, paths, bit vectors, and every container,
//      adaptor, array, pair, tuple, optional, variant, duration of the standard
//      library whose parts travel; containers that look like them, such as
//      Abseil's; absl::Status, StatusOr, Duration, Time, CivilSecond and its
//      kin, Cord; os::Descriptor;
//   2. types with one of cereal's serialize(), save()/load() or minimal pairs,
//      and std::unique_ptr, std::shared_ptr, std::weak_ptr, polymorphic or not;
//   3. all other trivially copyable types that can be copied or moved (no lock,
//      no struct with a lock in it), as their bytes; aggregates with a member
//      that must be checked on arrival (a bool, a std::optional), as their
//      members one by one. The compiler looks for those, and for pointers,
//      among the members of aggregates; private members it cannot see. What
//      bytes may hold that the compiler does not see is not checked: give the
//      type a serialize() where the sender is not trusted.
//
// Equal values have equal bytes, in whatever process: what has no order, such
// as a std::unordered_map, is written in the order of its encoded keys. That
// does not hold for what C++ calls equal without being the same: 0.0 and -0.0,
// and sets of pointers; nor for the order of values with one key in a
// std::unordered_multimap, if they have a serialize() or are owners.
//
// The functions that do the work are in serialize/codec.h.

#ifndef COHORT_SERIALIZE_ENCODABLE_H_
#define COHORT_SERIALIZE_ENCODABLE_H_

#include <any>
#include <array>
#include <bitset>
#include <chrono>
#include <complex>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <functional>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <ranges>
#include <set>
#include <stack>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <typeindex>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

#include "absl/container/fixed_array.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/variant.h"
#include "cereal/cereal.hpp"
#include "cereal/types/atomic.hpp"
#include "cereal/types/base_class.hpp"
#include "cereal/types/common.hpp"
#include "cereal/types/functional.hpp"
#include "cereal/types/memory.hpp"
#include "cereal/types/polymorphic.hpp"
#include "cereal/types/string.hpp"
#include "cereal/types/utility.hpp"
#include "cohort/os/descriptor.h"
#include "cohort/serialize/internal/members.h"
#include "cohort/serialize/internal/split.h"

namespace cohort {

class Decoder;
class Encoder;

namespace serialize_internal {

template <class... T>
struct Types {};

enum class Shape {
  kBool,         // One byte, 0 or 1.
  kBytes,        // sizeof(T) bytes, little-endian.
  kUnit,         // Nothing to say: one zero byte.
  kString,       // Length, characters.
  kPath,         // A string.
  kCord,         // A string.
  kBits,         // std::vector<bool>: length, eight to a byte.
  kBitset,       // Eight to a byte.
  kSequence,     // Count, elements; also set-like and map-like below.
  kForwardList,  //
  kValarray,     //
  kFixed,        // absl::FixedArray, whose count is never another.
  kSet,          //
  kMap,          // Count, key, value, key, value ...
  kAdaptor,      // std::stack and its kin: the container in it.
  kArray,        // Elements alone.
  kTuple,        // Elements alone.
  kMembers,      // An aggregate: members alone.
  kOptional,     // Bool, value if true.
  kVariant,      // Index, value.
  kDuration,     // absl::Duration: seconds, quarters of a nanosecond.
  kTime,         // absl::Time: the duration since the epoch.
  kCivil,        // absl::CivilSecond and its kin: year, month ... second.
  kStatus,       // Code, message, payloads.
  kStatusOr,     // Bool, value if true, status if false.
  kDescriptor,   // Index into the frame's descriptors plus one; 0 is invalid.
  kOwner,        // unique_ptr, shared_ptr, weak_ptr: cereal's business.
  kWrapper,      // cereal's own helper types.
  kCereal,       // A type with serialize(), save()/load() ...
  kNone,         // Cannot travel.
};

// The shape of the types that are known by name, with their parts.
template <class T>
struct Known {
  static constexpr Shape kShape = Shape::kNone;
  using Parts = Types<>;
};
template <Shape S, class... P>
struct Is {
  static constexpr Shape kShape = S;
  using Parts = Types<P...>;
};
template <class C, class R, class A>
struct Known<std::basic_string<C, R, A>> : Is<Shape::kString> {};
template <>
struct Known<std::filesystem::path> : Is<Shape::kPath> {};
template <>
struct Known<absl::Cord> : Is<Shape::kCord> {};
template <class A>
struct Known<std::vector<bool, A>> : Is<Shape::kBits> {};
template <size_t N>
struct Known<std::bitset<N>> : Is<Shape::kBitset> {};
template <>
struct Known<std::bitset<0>> : Is<Shape::kUnit> {};
template <class T, class A>
struct Known<std::vector<T, A>> : Is<Shape::kSequence, T> {};
template <class T, class A>
struct Known<std::deque<T, A>> : Is<Shape::kSequence, T> {};
template <class T, class A>
struct Known<std::list<T, A>> : Is<Shape::kSequence, T> {};
template <class T, class A>
struct Known<std::forward_list<T, A>> : Is<Shape::kForwardList, T> {};
template <class T>
struct Known<std::valarray<T>> : Is<Shape::kValarray, T> {};
template <class T, size_t N, class A>
struct Known<absl::FixedArray<T, N, A>> : Is<Shape::kFixed, T> {};
template <class T, class... O>
struct Known<std::set<T, O...>> : Is<Shape::kSet, T> {};
template <class T, class... O>
struct Known<std::multiset<T, O...>> : Is<Shape::kSet, T> {};
template <class T, class... O>
struct Known<std::unordered_set<T, O...>> : Is<Shape::kSet, T> {};
template <class T, class... O>
struct Known<std::unordered_multiset<T, O...>> : Is<Shape::kSet, T> {};
template <class K, class V, class... O>
struct Known<std::map<K, V, O...>> : Is<Shape::kMap, K, V> {};
template <class K, class V, class... O>
struct Known<std::multimap<K, V, O...>> : Is<Shape::kMap, K, V> {};
template <class K, class V, class... O>
struct Known<std::unordered_map<K, V, O...>> : Is<Shape::kMap, K, V> {};
template <class K, class V, class... O>
struct Known<std::unordered_multimap<K, V, O...>> : Is<Shape::kMap, K, V> {};
template <class T, class C>
struct Known<std::stack<T, C>> : Is<Shape::kAdaptor, C> {};
template <class T, class C>
struct Known<std::queue<T, C>> : Is<Shape::kAdaptor, C> {};
template <class T, class C, class L>
struct Known<std::priority_queue<T, C, L>> : Is<Shape::kAdaptor, C> {};
template <class T, size_t N>
struct Known<std::array<T, N>> : Is<Shape::kArray, T> {};
template <class T>
struct Known<std::array<T, 0>> : Is<Shape::kUnit> {};
template <class T, size_t N>
struct Known<T[N]> : Is<Shape::kArray, T> {};
template <class A, class B>
struct Known<std::pair<A, B>> : Is<Shape::kTuple, A, B> {};
template <class... T>
struct Known<std::tuple<T...>> : Is<Shape::kTuple, T...> {};
template <>
struct Known<std::tuple<>> : Is<Shape::kUnit> {};
template <>
struct Known<std::monostate> : Is<Shape::kUnit> {};
template <>
struct Known<std::nullopt_t> : Is<Shape::kNone> {};
template <class T>
struct Known<std::optional<T>> : Is<Shape::kOptional, T> {};
template <class... T>
struct Known<std::variant<T...>> : Is<Shape::kVariant, T...> {};
// Abseil may have been built with types of its own.
template <class T>
requires(!std::same_as<absl::optional<T>,
                       std::optional<T>>) struct Known<absl::optional<T>>
    : Is<Shape::kOptional, T> {
};
template <class... T>
requires(!std::same_as<absl::variant<T...>,
                       std::variant<T...>>) struct Known<absl::variant<T...>>
    : Is<Shape::kVariant, T...> {
};
template <class R, class P>
requires std::is_arithmetic_v<R>
struct Known<std::chrono::duration<R, P>> : Is<Shape::kBytes> {
};
template <class C, class D>
struct Known<std::chrono::time_point<C, D>> : Known<D> {};
template <class T>
struct Known<std::complex<T>> : Is<Shape::kBytes> {};
template <>
struct Known<absl::Duration> : Is<Shape::kDuration> {};
template <>
struct Known<absl::Time> : Is<Shape::kTime> {};
template <>
struct Known<absl::CivilSecond> : Is<Shape::kCivil> {};
template <>
struct Known<absl::CivilMinute> : Is<Shape::kCivil> {};
template <>
struct Known<absl::CivilHour> : Is<Shape::kCivil> {};
template <>
struct Known<absl::CivilDay> : Is<Shape::kCivil> {};
template <>
struct Known<absl::CivilMonth> : Is<Shape::kCivil> {};
template <>
struct Known<absl::CivilYear> : Is<Shape::kCivil> {};
template <>
struct Known<absl::Status> : Is<Shape::kStatus> {};
template <class T>
struct Known<absl::StatusOr<T>> : Is<Shape::kStatusOr, T> {};
template <>
struct Known<os::Descriptor> : Is<Shape::kDescriptor> {};
template <class T>
struct Owner : Is<Shape::kOwner> {
  using Target = T;
};
template <class T, class D>
struct Known<std::unique_ptr<T, D>> : Owner<T> {};
template <class T>
struct Known<std::shared_ptr<T>> : Owner<T> {};
template <class T>
struct Known<std::weak_ptr<T>> : Owner<T> {};
template <class T>
struct Known<cereal::NameValuePair<T>> : Is<Shape::kWrapper> {};
template <class T>
struct Known<cereal::SizeTag<T>> : Is<Shape::kWrapper> {};
template <class T>
struct Known<cereal::BinaryData<T>> : Is<Shape::kWrapper> {};
template <class K, class V>
struct Known<cereal::MapItem<K, V>> : Is<Shape::kWrapper> {};
template <class T>
struct Known<cereal::DeferredData<T>> : Is<Shape::kWrapper> {};
template <class T>
struct Known<cereal::base_class<T>> : Is<Shape::kWrapper> {};
template <class T>
struct Known<cereal::virtual_base_class<T>> : Is<Shape::kWrapper> {};
template <class T>
struct Known<cereal::memory_detail::PtrWrapper<T>> : Is<Shape::kWrapper> {};
template <class A, class T>
struct Known<cereal::memory_detail::LoadAndConstructLoadWrapper<A, T>>
    : Is<Shape::kWrapper> {};

// Containers of other libraries, recognised by what they offer.
template <class T>
concept AnyContainer = requires(T& t) {
  typename T::value_type;
  t.clear();
  t.begin();
  t.end();
  { t.size() } -> std::convertible_to<size_t>;
}
&&!std::is_trivially_copyable_v<T>;
template <class T>
concept KeyContainer = AnyContainer<T> && requires(T& t) {
  typename T::key_type;
  t.emplace_hint(t.end(), std::declval<typename T::value_type&&>());
};
template <class T>
concept MapLike = KeyContainer<T> && requires {
  typename T::mapped_type;
};
template <class T>
concept SetLike = KeyContainer<T> &&
    std::same_as<typename T::key_type, typename T::value_type>;
template <class T>
concept SequenceLike = AnyContainer<T> && !KeyContainer<T> && requires(T & t) {
  t.emplace_back();
  t.back();
};

// What has no order of its own, and what may have one key twice.
template <class T>
concept Unordered = requires {
  typename T::hasher;
};
template <class T>
concept Ordered = !Unordered<T> && requires {
  typename T::key_compare;
};
template <class T>
concept Repeating = requires(T& t, typename T::const_iterator it) {
  { t.insert(*it) } -> std::same_as<typename T::iterator>;
};

template <class T>
constexpr bool SerializesByMember() {
  using namespace cereal::traits;  // NOLINT: a list of one library's traits.
  return has_member_serialize<T, Encoder>::value ||
         has_member_save<T, Encoder>::value ||
         has_member_save_minimal<T, Encoder>::value ||
         has_member_versioned_serialize<T, Encoder>::value ||
         has_member_versioned_save<T, Encoder>::value ||
         has_member_versioned_save_minimal<T, Encoder>::value;
}

template <class T>
inline constexpr int kWaysOut =
    cereal::traits::detail::count_output_serializers<T, Encoder>::value;
template <class T>
inline constexpr int kWaysIn =
    cereal::traits::detail::count_input_serializers<T, Decoder>::value;

// Types that are trivially copyable and yet say something only here.
template <class T>
inline constexpr bool kPointsInside =
    std::is_same_v<T, std::error_code> ||
    std::is_same_v<T, std::error_condition> ||
    std::is_same_v<T, std::type_index> || std::is_same_v<T, std::thread::id> ||
    std::is_same_v<T, absl::TimeZone>;
template <class P>
inline constexpr bool kPointsInside<std::coroutine_handle<P>> = true;
// Iterators and views without a serialize() of their own.
template <class T>
constexpr bool PointsInside() {
  if constexpr (kPointsInside<T>) {
    return true;
  } else if constexpr (std::is_class_v<T> && std::is_trivially_copyable_v<T> &&
                       kWaysOut<T> == 0) {
    return std::input_or_output_iterator<T> || std::ranges::enable_view<T>;
  } else {
    return false;
  }
}

// Whether the bytes of an aggregate are not all that there is to say of it.
template <class T>
constexpr bool HasChecks();

template <class T>
constexpr Shape FindShape() {
  if constexpr (std::is_same_v<T, bool>) {
    return Shape::kBool;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return Shape::kBytes;
  } else if constexpr (std::is_enum_v<T>) {
    return std::is_same_v<std::underlying_type_t<T>, bool> ? Shape::kBool
                                                           : Shape::kBytes;
  } else if constexpr (Known<T>::kShape != Shape::kNone) {
    return Known<T>::kShape;
  } else if constexpr (!std::is_class_v<T> && !std::is_union_v<T>) {
    // __int128 where it is not counted among the arithmetic types.
    return std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> &&
                   !std::is_member_pointer_v<T> && !std::is_null_pointer_v<T>
               ? Shape::kBytes
               : Shape::kNone;
  } else if constexpr (AnyContainer<T>) {
    if constexpr (SerializesByMember<T>()) {
      return Shape::kCereal;
    } else if constexpr (MapLike<T>) {
      return Shape::kMap;
    } else if constexpr (kWaysOut<T> != 0 || kWaysIn<T> != 0) {
      return Shape::kCereal;
    } else if constexpr (SetLike<T>) {
      return Shape::kSet;
    } else if constexpr (SequenceLike<T>) {
      return Shape::kSequence;
    } else {
      return Shape::kNone;
    }
  } else if constexpr (kWaysOut<T> != 0 || kWaysIn<T> != 0) {
    return Shape::kCereal;
  } else if constexpr (std::is_empty_v<T>) {
    return Shape::kUnit;
  } else if constexpr (PointsInside<T>()) {
    return Shape::kNone;
  } else if constexpr (std::is_trivially_copyable_v<T> &&
                       std::is_move_constructible_v<T>) {
    // Compilers call a lock without copies trivial too.
    return HasChecks<T>() ? Shape::kMembers : Shape::kBytes;
  } else {
    return Shape::kNone;
  }
}

template <class T>
inline constexpr Shape kShape = FindShape<std::remove_cv_t<T>>();

template <class T>
constexpr bool IsBytes();

// For HasMember(): one that is more than its bytes, but may travel.
struct IsMoreThanBytes {
  template <class M>
  static constexpr bool Finds() {
    if constexpr (std::is_reference_v<M>) {
      return false;
    } else {
      constexpr Shape shape = kShape<M>;
      return shape != Shape::kNone && shape != Shape::kUnit && !IsBytes<M>();
    }
  }
};
template <class T>
constexpr bool HasChecks() {
  if constexpr (HasMember<T, IsMoreThanBytes>()) {
    return CountMembers<T>() != 0;
  } else {
    return false;
  }
}

// The parts of T, for containers known by name or by look.
template <class T>
struct PartsOf {
  using type = typename Known<T>::Parts;
};
template <class T>
requires(Known<T>::kShape == Shape::kNone &&
         kShape<T> == Shape::kMap) struct PartsOf<T> {
  using type = Types<typename T::key_type, typename T::mapped_type>;
};
template <class T>
requires(Known<T>::kShape == Shape::kNone &&
         (kShape<T> == Shape::kSet ||
          kShape<T> == Shape::kSequence)) struct PartsOf<T> {
  using type = Types<typename T::value_type>;
};

template <class T>
requires(Known<T>::kShape == Shape::kNone &&
         kShape<T> == Shape::kMembers) struct PartsOf<T> {
  using type =
      decltype(Split(std::declval<const T&>(),
                     []<class... M>(const M&...) { return Types<M...>(); }));
};

// What stands in the way of a type.
enum class Flaw {
  kNone,
  kVoid,
  kPointer,
  kFunctionPointer,
  kMemberPointer,
  kReference,
  kView,
  kErased,
  kPointsInside,
  kHolds,
  kNotSerializable,
  kOneWay,
  kTwoWays,
  kNotConstructible,
};

template <class T>
inline constexpr bool kIsErased = std::is_same_v<T, std::any>;
template <class S>
inline constexpr bool kIsErased<std::function<S>> = true;

// `in_place`: for a value that is read where it stands, as members of a class
// are, and so need not be constructible.
template <class T, bool in_place = false>
constexpr Flaw FindFlaw();

// For HasMember(): one that cannot travel.
struct CannotTravel {
  template <class T>
  static constexpr bool Finds() {
    constexpr Flaw flaw = FindFlaw<T>();
    return flaw != Flaw::kNone && flaw != Flaw::kNotConstructible;
  }
};

template <class... T>
constexpr Flaw FirstFlaw(Types<T...>) {
  Flaw first = Flaw::kNone;
  (void)((first = FindFlaw<T>(), first != Flaw::kNone) || ...);
  return first;
}

template <class T, bool in_place>
constexpr Flaw FindFlaw() {
  if constexpr (std::is_void_v<T>) {
    return Flaw::kVoid;
  } else if constexpr (std::is_reference_v<T> || kIsReferenceWrapper<T>) {
    return Flaw::kReference;
  } else if constexpr (std::is_const_v<T> || std::is_volatile_v<T>) {
    return FindFlaw<std::remove_cv_t<T>, in_place>();
  } else if constexpr (std::is_function_v<std::remove_pointer_t<T>>) {
    return Flaw::kFunctionPointer;
  } else if constexpr (std::is_pointer_v<T> || std::is_null_pointer_v<T>) {
    return Flaw::kPointer;
  } else if constexpr (std::is_member_pointer_v<T>) {
    return Flaw::kMemberPointer;
  } else if constexpr (kIsView<T>) {
    return Flaw::kView;
  } else if constexpr (kIsErased<T>) {
    return Flaw::kErased;
  } else if constexpr (PointsInside<T>()) {
    return Flaw::kPointsInside;
  } else {
    constexpr Shape shape = kShape<T>;
    if constexpr (shape == Shape::kNone) {
      return Flaw::kNotSerializable;
    } else if constexpr (shape == Shape::kWrapper) {
      return Flaw::kNone;
    } else if constexpr (shape == Shape::kOwner) {
      using Target = typename Known<T>::Target;
      if constexpr (std::is_array_v<Target> || kWaysOut<T> != 1 ||
                    kWaysIn<T> != 1) {
        return Flaw::kNotSerializable;
      } else if constexpr (std::is_polymorphic_v<Target> ||
                           cereal::traits::has_load_and_construct<
                               Target, Decoder>::value) {
        return Flaw::kNone;
      } else {
        return FindFlaw<Target>();
      }
    } else if constexpr (shape == Shape::kCereal) {
      if constexpr (1 < kWaysOut<T> || 1 < kWaysIn<T>) {
        return Flaw::kTwoWays;
      } else if constexpr (in_place && kWaysOut<T> == 1 &&
                           cereal::traits::has_load_and_construct<
                               T, Decoder>::value) {
        return Flaw::kNone;
      } else if constexpr (kWaysOut<T> != kWaysIn<T>) {
        return Flaw::kOneWay;
      } else {
        return in_place || std::is_default_constructible_v<T>
                   ? Flaw::kNone
                   : Flaw::kNotConstructible;
      }
    } else if constexpr (shape == Shape::kUnit || shape == Shape::kMembers ||
                         (shape == Shape::kBytes && std::is_class_v<T> &&
                          Known<T>::kShape == Shape::kNone)) {
      if constexpr (HasMember<T, CannotTravel>()) {
        return Flaw::kHolds;
      } else {
        return in_place || std::is_default_constructible_v<T>
                   ? Flaw::kNone
                   : Flaw::kNotConstructible;
      }
    } else if constexpr (shape == Shape::kFixed && !in_place) {
      return Flaw::kNotConstructible;
    } else {
      return FirstFlaw(typename PartsOf<T>::type());
    }
  }
}

// A value of this type is exactly its bytes, as are those of arrays of it.
template <class T>
constexpr bool IsBytes() {
  if constexpr (kShape<T> == Shape::kBytes) {
    return true;
  } else if constexpr (Known<T>::kShape == Shape::kArray) {
    return []<class P>(Types<P>) {
      return IsBytes<P>();
    }(typename Known<T>::Parts());
  } else {
    return false;
  }
}

// Encoding this type involves neither cereal nor descriptors, hence no tables.
template <class T>
constexpr bool IsFlat() {
  constexpr Shape shape = kShape<T>;
  if constexpr (shape == Shape::kOwner || shape == Shape::kWrapper ||
                shape == Shape::kCereal || shape == Shape::kDescriptor ||
                shape == Shape::kNone) {
    return false;
  } else {
    return []<class... P>(Types<P...>) {
      return (IsFlat<std::remove_cv_t<P>>() && ...);
    }(typename PartsOf<std::remove_cv_t<T>>::type());
  }
}

}  // namespace serialize_internal

// Contract
//   Placement:      none: what this header says, it says to the compiler.
//   Thread-safety:  likewise.
//   Process-safety: the same in all processes of one build; the bytes of rule 3
//                   above are only meant for those.
//   Fork-safety:    nothing to fork.
//   Crash-safety:   nothing to lose.
//   Signal-safety:  nothing runs.
//   Errors:         `Encodable` is false; CheckEncodable stops the build.
//   Ordering:       none.
//   Cost:           none at run time.
//   Reference:      cereal's type traits, whose members and free functions it
//                   recognises.
template <class T>
concept Encodable = (serialize_internal::FindFlaw<T>() ==
                     serialize_internal::Flaw::kNone);

// True for types whose encoding is exactly their sizeof(T) bytes, so that a
// carrier may copy a value in place.
template <class T>
inline constexpr bool kEncodesAsBytes = serialize_internal::IsBytes<T>();

// True where the compiler sees that no value of this type brings descriptors; a
// type with a serialize() of its own might.
template <class T>
inline constexpr bool kNeverOwnsDescriptors = serialize_internal::IsFlat<T>();

namespace serialize_internal {

template <class T, bool in_place>
consteval void CheckFlaw() {
  constexpr Flaw flaw = FindFlaw<T, in_place>();
  static_assert(flaw != Flaw::kVoid, "cohort: void is not a value to send");
  static_assert(flaw != Flaw::kPointer,
                "cohort: a pointer means nothing in another process; send the "
                "value itself, or a handle to shared memory");
  static_assert(flaw != Flaw::kFunctionPointer,
                "cohort: a function is sent as the callable of a call, not as "
                "a value");
  static_assert(flaw != Flaw::kMemberPointer,
                "cohort: a pointer to member is sent as the callable of a "
                "call, not as a value");
  static_assert(flaw != Flaw::kReference,
                "cohort: a reference means nothing in another process; send "
                "the value it refers to");
  static_assert(flaw != Flaw::kView,
                "cohort: a view owns nothing, and what it looks at stays in "
                "this process; send a std::string or a std::vector");
  static_assert(flaw != Flaw::kErased,
                "cohort: std::function and std::any hide what they hold, so it "
                "cannot be sent; name the type");
  static_assert(flaw != Flaw::kPointsInside,
                "cohort: this type refers to something in this process, though "
                "it looks like a value; send what it stands for");
  static_assert(flaw != Flaw::kHolds,
                "cohort: a member of this struct is a pointer, a view or "
                "something else that cannot be sent; replace it, or give the "
                "struct a serialize() that knows better");
  static_assert(flaw != Flaw::kNotSerializable,
                "cohort: nobody knows how to send this type; give it "
                "`template <class A> void serialize(A& a) { a(members); }`");
  static_assert(flaw != Flaw::kOneWay,
                "cohort: this type can be saved but not loaded, or loaded but "
                "not saved; write both save() const and load()");
  static_assert(flaw != Flaw::kTwoWays,
                "cohort: this type has more than one serialize() or save() and "
                "load() pair; keep one");
  static_assert(flaw != Flaw::kNotConstructible,
                "cohort: a type that arrives is first default-constructed; "
                "give it a default constructor");
}

}  // namespace serialize_internal

// Stops the build, with the reason, unless T can travel.
template <class T>
consteval void CheckEncodable() {
  serialize_internal::CheckFlaw<T, false>();
}

}  // namespace cohort

CEREAL_SETUP_ARCHIVE_TRAITS(cohort::Decoder, cohort::Encoder)

#endif  // COHORT_SERIALIZE_ENCODABLE_H_
