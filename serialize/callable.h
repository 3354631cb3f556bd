// SPDX-License-Identifier: Apache-2.0
//
// Calls as data: a callable and its arguments are checked where the call is
// made, written to a frame, and run in another process of the same program.
//
//   int Power(int base, int exponent);
//
//   cohort::Frame call;                                    // here
//   absl::Status made = cohort::EncodeCall(call, Power, 2, 10);
//
//   absl::StatusOr<cohort::BoundCall> bound =              // there
//       cohort::DecodeCall(call.bytes());
//   cohort::Frame result;
//   absl::Status outcome = std::move(*bound).Run(result);
//
//   absl::StatusOr<int> power =                            // here again
//       cohort::DecodeResult<int>(result.bytes());
//
// What can be called: a function; a member function, with its object as the
// first argument; a lambda without captures; a functor that travels
// (serialize/encodable.h). Arguments are converted to the parameter types where
// the call is made, as in any C++ call, so the other side decodes exactly what
// the function takes. Whatever cannot be sent is refused by the compiler in one
// sentence.
//
// A frame with a call says what code to run: take it only from a process that
// already controls this one, such as its parent. Users rarely need this header;
// process/ and pool/ are made of it.

#ifndef COHORT_SERIALIZE_CALLABLE_H_
#define COHORT_SERIALIZE_CALLABLE_H_

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/serialize/code_ref.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/result_of.h"

namespace cohort {

namespace serialize_internal {

// A function type without const, & and noexcept.
template <class F>
struct PlainFunction;
template <class R, class... P>
struct PlainFunction<R(P...)> {
  using Parameters = Types<P...>;
};
template <class R, class... P>
struct PlainFunction<R(P...) const> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...)&> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) const&> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) &&> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) const&&> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) noexcept> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) const noexcept> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...)& noexcept> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) const& noexcept> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...)&& noexcept> : PlainFunction<R(P...)> {};
template <class R, class... P>
struct PlainFunction<R(P...) const&& noexcept> : PlainFunction<R(P...)> {};

template <class M>
struct MemberParts;
template <class F, class C>
struct MemberParts<F C::*> {
  using Class = C;
  using Function = F;
};

enum class Kind {
  kFunction,
  kMember,
  kStateless,
  kFunctor,
  kErased,
  kCaptures,
  kNoCallable,
};

// How the decayed callable Fn crosses.
template <class Fn>
constexpr Kind FindKind() {
  if constexpr (std::is_function_v<std::remove_pointer_t<Fn>>) {
    return Kind::kFunction;
  } else if constexpr (std::is_member_function_pointer_v<Fn>) {
    return Kind::kMember;
  } else if constexpr (kIsErased<Fn>) {
    return Kind::kErased;
  } else if constexpr (!std::is_class_v<Fn>) {
    return Kind::kNoCallable;
  } else if constexpr (std::is_empty_v<Fn> &&
                       std::is_default_constructible_v<Fn>) {
    return Kind::kStateless;
  } else if constexpr (Encodable<Fn>) {
    return Kind::kFunctor;  // Lambdas with captures have no default
                            // constructor.
  } else {
    return Kind::kCaptures;
  }
}

// The parameters of Fn as declared; known unless it is overloaded or generic.
template <class Fn>
struct Declared {
  static constexpr bool kKnown = false;
};
template <class F>
requires std::is_function_v<F>
struct Declared<F*> {
  static constexpr bool kKnown = true;
  using Parameters = typename PlainFunction<F>::Parameters;
};
template <class M>
requires std::is_member_function_pointer_v<M>
struct Declared<M> {
  static constexpr bool kKnown = true;
  using Parameters =
      typename PlainFunction<typename MemberParts<M>::Function>::Parameters;
};
template <class C>
requires requires { &C::operator(); }
struct Declared<C> : Declared<decltype(&C::operator())> {};

// What the other side decodes for Fn called with A...: each parameter by value,
// or, where the parameters are not known, each argument by value.
template <class Fn, class... A>
struct Decoded {
  using type = Types<std::decay_t<A>...>;
};
template <class Fn, class... A>
requires(!std::is_member_function_pointer_v<Fn> &&
         Declared<Fn>::kKnown) struct Decoded<Fn, A...> {
  template <class... P>
  static Types<std::decay_t<P>...> Decay(Types<P...>);
  using type = decltype(Decay(typename Declared<Fn>::Parameters()));
};
// An object of a derived class stays one.
template <class C, class A>
using ObjectFor = std::conditional_t<std::is_base_of_v<C, std::decay_t<A>>,
                                     std::decay_t<A>, C>;
template <class Fn, class A, class... Rest>
requires std::is_member_function_pointer_v<Fn>
struct Decoded<Fn, A, Rest...> {
  template <class... P>
  static Types<ObjectFor<typename MemberParts<Fn>::Class, A>,
               std::decay_t<P>...>
      Decay(Types<P...>);
  using type = decltype(Decay(typename Declared<Fn>::Parameters()));
};
template <class F, class... A>
using DecodedFor = typename Decoded<std::decay_t<F>, A...>::type;

template <class T>
inline constexpr bool kIsStatusOr = false;
template <class T>
inline constexpr bool kIsStatusOr<absl::StatusOr<T>> = true;

// Copied from an lvalue, moved from an rvalue.
template <class A>
inline constexpr bool kCanGive =
    !std::is_lvalue_reference_v<A> ||
    std::is_array_v<std::remove_reference_t<A>> ||
    std::is_function_v<std::remove_reference_t<A>> ||
    std::copy_constructible<std::decay_t<A>>;

template <class Fn>
constexpr bool TakesMutableReference() {
  if constexpr (Declared<Fn>::kKnown) {
    return []<class... P>(Types<P...>) {
      return ((std::is_lvalue_reference_v<P> &&
               !std::is_const_v<std::remove_reference_t<P>>) ||
              ...);
    }(typename Declared<Fn>::Parameters());
  } else {
    return false;
  }
}

template <class P>
inline constexpr size_t kCountOf = 0;
template <class... P>
inline constexpr size_t kCountOf<Types<P...>> = sizeof...(P);

template <class From, class To>
inline constexpr bool kConverts = false;
template <class... A, class... P>
requires(
    sizeof...(A) ==
    sizeof...(P)) inline constexpr bool kConverts<Types<A...>, Types<P...>> =
    (std::is_convertible_v<A, P> && ...);

// The result of calling Fn with the decoded values, each moved, but for the
// object of a member function.
template <class Fn, class P>
struct Invoked {};
template <class Fn, class... P>
requires(!std::is_member_function_pointer_v<Fn> &&
         std::is_invocable_v<Fn&, P...>) struct Invoked<Fn, Types<P...>> {
  using type = std::invoke_result_t<Fn&, P...>;
};
template <class Fn, class Object, class... P>
requires(std::is_member_function_pointer_v<Fn>&& std::is_invocable_v<
         Fn&, Object&, P...>) struct Invoked<Fn, Types<Object, P...>> {
  using type = std::invoke_result_t<Fn&, Object&, P...>;
};

template <class P>
constexpr bool AllEncodable() {
  return []<class... T>(Types<T...>) { return (Encodable<T> && ...); }(P());
}
template <class P>
constexpr bool AllFlat() {
  return []<class... T>(Types<T...>) { return (IsFlat<T>() && ...); }(P());
}
template <class... P>
consteval void CheckEach(Types<P...>) {
  (CheckEncodable<P>(), ...);
}

template <class F, class... A>
constexpr bool HasResult() {
  return requires {
    typename Invoked<std::decay_t<F>, DecodedFor<F, A...>>::type;
  };
}

template <class F, class... A>
struct CallTraits {
  using type = absl::Status;
  using value = void;
};
template <class F, class... A>
requires(HasResult<F, A...>()) struct CallTraits<F, A...>
    : ResultOf<typename Invoked<std::decay_t<F>, DecodedFor<F, A...>>::type> {
};

// Whether CheckCall<F, A...>() has nothing to say.
template <class F, class... A>
constexpr bool IsCall() {
  using Fn = std::decay_t<F>;
  constexpr Kind kind = FindKind<Fn>();
  if constexpr (kind == Kind::kErased || kind == Kind::kCaptures ||
                kind == Kind::kNoCallable) {
    return false;
  } else if constexpr ((kIsStatusOr<std::decay_t<A>> || ...) ||
                       !(kCanGive<A> && ...) || TakesMutableReference<Fn>()) {
    return false;
  } else if constexpr (!AllEncodable<DecodedFor<F, A...>>() ||
                       !kConverts<Types<A&&...>, DecodedFor<F, A...>> ||
                       !HasResult<F, A...>()) {
    return false;
  } else {
    using Value = typename CallTraits<F, A...>::value;
    return std::is_void_v<Value> || Encodable<Value>;
  }
}

}  // namespace serialize_internal

// What a caller gets of F called with A..., and the T in it. They stand in
// signatures and so never fail: a call that cannot be made yields absl::Status
// and void, and CheckCall() in the body says what is wrong with it.
template <class F, class... A>
using RemoteResult = typename serialize_internal::CallTraits<F, A...>::type;
template <class F, class... A>
using RemoteValue = typename serialize_internal::CallTraits<F, A...>::value;

// Stops the build, with the reason, unless F can be called with A... in another
// process. Stands first in the body of whatever takes a callable and arguments;
// A... are deduced as forwarding references, `A&&... arguments`.
template <class F, class... A>
consteval void CheckCall() {
  using namespace serialize_internal;  // NOLINT: a list of its names.
  using Fn = std::decay_t<F>;
  constexpr Kind kind = FindKind<Fn>();
  if constexpr (kind == Kind::kErased) {
    static_assert(kind != Kind::kErased,
                  "cohort: a std::function hides what it holds, so it cannot "
                  "be sent; pass the function itself, a lambda without "
                  "captures, or a functor with serialize()");
  } else if constexpr (kind == Kind::kCaptures) {
    static_assert(kind != Kind::kCaptures,
                  "cohort: what this callable captures cannot be sent; pass it "
                  "as arguments, or write a functor with serialize()");
  } else if constexpr (kind == Kind::kNoCallable) {
    static_assert(kind != Kind::kNoCallable,
                  "cohort: this is no callable; pass a function, a member "
                  "function, a lambda or a functor");
  } else if constexpr ((kIsStatusOr<std::decay_t<A>> || ...)) {
    static_assert(!(kIsStatusOr<std::decay_t<A>> || ...),
                  "cohort: an argument is a StatusOr; check it, then pass the "
                  "value in it");
  } else if constexpr (!(kCanGive<A> && ...)) {
    static_assert((kCanGive<A> && ...),
                  "cohort: an argument has a single owner and cannot be "
                  "copied; give it away with std::move");
  } else if constexpr (TakesMutableReference<Fn>()) {
    static_assert(!TakesMutableReference<Fn>(),
                  "cohort: a parameter T& would change a variable that stayed "
                  "in another process; take T or const T&, and return what is "
                  "new");
  } else if constexpr (!AllEncodable<DecodedFor<F, A...>>()) {
    CheckEach(DecodedFor<F, A...>());
  } else if constexpr (kCountOf<DecodedFor<F, A...>> != sizeof...(A)) {
    static_assert(kCountOf<DecodedFor<F, A...>> == sizeof...(A),
                  "cohort: this function takes another number of arguments; "
                  "default arguments count, and an object comes first");
  } else if constexpr (!kConverts<Types<A&&...>, DecodedFor<F, A...>>) {
    static_assert(kConverts<Types<A&&...>, DecodedFor<F, A...>>,
                  "cohort: an argument does not convert to the parameter of "
                  "this function");
  } else if constexpr (!HasResult<F, A...>()) {
    static_assert(HasResult<F, A...>(),
                  "cohort: this callable cannot be called with these "
                  "arguments by value");
  } else {
    using Value = typename CallTraits<F, A...>::value;
    static_assert(std::is_void_v<Value> || Encodable<Value>,
                  "cohort: what this function returns cannot be sent back; "
                  "return a value that owns all it needs");
  }
}

// Writes a call of `function` with `arguments`. Arguments given as rvalues are
// moved from when all is written, and untouched when it fails; on an error the
// frame is as it was. Errors: as of EncodeTo(), and those of MakeCodeRef().
template <class F, class... A>
absl::Status EncodeCall(Frame& frame, F&& function, A&&... arguments);
template <class F, class... A>
absl::Status EncodeCall(Encoder& encoder, F&& function, A&&... arguments);

namespace serialize_internal {

class CallBase {
 public:
  virtual ~CallBase() = default;
  virtual absl::Status Run(Frame& result) = 0;
  virtual absl::StatusOr<int> RunForExitCode() = 0;
};

class MapBase {
 public:
  virtual ~MapBase() = default;
  virtual absl::Status RunNext(Decoder& elements, Frame& result) = 0;
  virtual absl::StatusOr<size_t> Run(Decoder& elements, size_t count,
                                     Frame& results,
                                     absl::FunctionRef<bool()> after_each) = 0;
};

}  // namespace serialize_internal

// The payload by which the status of an exception is told from a status that
// the function returned; it holds the exception's type.
inline constexpr std::string_view kExceptionPayload = "cohort/exception";

// BoundCall
//
// A call that has been decoded, arguments and all, and not yet run: whoever
// sent it can be told that it will be, before any code of the user's runs.
//
// Contract
//   Placement:      anywhere but shared memory: it owns heap memory.
//   Thread-safety:  none; any one thread may run it.
//   Process-safety: none.
//   Fork-safety:    a child has a copy of its own.
//   Crash-safety:   nothing outlives the process.
//   Signal-safety:  none.
//   Errors:         what the function throws becomes Unknown, with the type of
//                   the exception and its what(), marked by
//                   kExceptionPayload.
//   Ordering:       none.
//   Cost:           one allocation, and those of the arguments.
//   Reference:      docs/design/serialize.md.
class BoundCall final {
 public:
  explicit BoundCall(std::unique_ptr<serialize_internal::CallBase> call)
      : call_(std::move(call)) {}

  // Runs it, once, and appends the result to `result`, for DecodeResult():
  // whatever happens, that is what the caller should see. Returns the outcome:
  // OK, the status the function returned or its exception became, or why its
  // result could not be encoded.
  absl::Status Run(Frame& result) && {
    return std::exchange(call_, {})->Run(result);
  }

  // Runs it, once, for a process that has no more to report than an exit code:
  // the int that the function returns, 0 for all other values.
  absl::StatusOr<int> RunForExitCode() && {
    return std::exchange(call_, {})->RunForExitCode();
  }

 private:
  std::unique_ptr<serialize_internal::CallBase> call_;
};

// Reads a call. FailedPrecondition where it was made by another build of the
// program; DataLoss or InvalidArgument for bytes that are no call. The first
// requires that nothing follows in `bytes`.
absl::StatusOr<BoundCall> DecodeCall(
    std::string_view bytes, std::vector<os::Descriptor> descriptors = {});
absl::StatusOr<BoundCall> DecodeCall(Decoder& decoder);

// Reads a call and runs it; an error says that nothing was run.
absl::Status RunCall(Decoder& decoder, Frame& result);

// Returns the result of a call of a function that returns R, or R's value.
template <class R>
typename ResultOf<R>::type DecodeResult(
    std::string_view bytes, std::vector<os::Descriptor> descriptors = {});

// Returns the next of several results that were appended one after another.
template <class R>
typename ResultOf<R>::type DecodeNextResult(Decoder& results);

// One function for many elements: EncodeFunction() once, EncodeElement() for
// each, with the same F and A. Each element stands for itself, so any run of
// them can be sent, or sent again.
template <class F, class... A>
absl::Status EncodeFunction(Frame& frame, const std::decay_t<F>& function);
template <class F, class... A>
absl::Status EncodeElement(Frame& frame, A&&... arguments);

// BoundMap
//
// A decoded function, to be run over elements.
//
// Contract: as BoundCall's, and
//   Cost: no allocation per element where arguments and result are flat; a few
//         nanoseconds beside the function itself.
class BoundMap final {
 public:
  explicit BoundMap(std::unique_ptr<serialize_internal::MapBase> map)
      : map_(std::move(map)) {}

  // Decodes the next element, runs the function on it and appends the result,
  // as BoundCall::Run() does. An error says that the element could not be
  // decoded: nothing was run, and `elements` is of no further use.
  absl::Status RunNext(Decoder& elements, Frame& result) {
    return map_->RunNext(elements, result);
  }

  // The same for up to `count` elements. Calls `after_each` whenever a result
  // has been appended; it may take the result out of the frame, and ends the
  // loop by returning false. Returns how many ran.
  absl::StatusOr<size_t> Run(Decoder& elements, size_t count, Frame& results,
                             absl::FunctionRef<bool()> after_each) {
    return map_->Run(elements, count, results, after_each);
  }

 private:
  std::unique_ptr<serialize_internal::MapBase> map_;
};

// Reads a function. Errors as of DecodeCall().
absl::StatusOr<BoundMap> DecodeFunction(Decoder& decoder);

// Implementation only below.

namespace serialize_internal {

using CallEntry = std::unique_ptr<CallBase>(Decoder&);
using MapEntry = std::unique_ptr<MapBase>(Decoder&);

// The status for the exception being handled, thrown by the user's function.
absl::Status StatusOfFunction();

// Appends the result that an error is, as a StatusOr or a Status. Where there
// is no memory even for that, the frame is as it was.
void PutError(Frame& frame, const absl::Status& error, bool is_status_or);

template <class E>
void PutCodeRef(E& encoder, const absl::StatusOr<CodeRef>& ref) {
  if (!ref.ok()) throw Abandon{ref.status()};
  Put(encoder, *ref);
}

template <class Fn, class E>
void PutFunction(E& encoder, const Fn& function) {
  constexpr Kind kind = FindKind<Fn>();
  if constexpr (kind == Kind::kFunction) {
    PutCodeRef(encoder, MakeCodeRef(reinterpret_cast<AnyFunction>(function),
                                    TypeFingerprint<Fn>()));
  } else if constexpr (kind == Kind::kMember) {
    absl::StatusOr<MemberCodeRef> ref = cohort::MakeMemberCodeRef(function);
    if (!ref.ok()) throw Abandon{ref.status()};
    Put(encoder, *ref);
  } else if constexpr (kind == Kind::kFunctor) {
    Put(encoder, function);
  }
}

template <class Fn>
void GetFunction(Decoder& decoder, Fn& function) {
  constexpr Kind kind = FindKind<Fn>();
  if constexpr (kind == Kind::kFunction) {
    CodeRef ref;
    Get(decoder, ref);
    absl::StatusOr<AnyFunction> found =
        ResolveCodeRef(ref, TypeFingerprint<Fn>());
    if (!found.ok()) decoder.Fail(found.status());
    function = reinterpret_cast<Fn>(*found);
  } else if constexpr (kind == Kind::kMember) {
    MemberCodeRef ref;
    Get(decoder, ref);
    absl::StatusOr<Fn> found = cohort::ResolveMemberCodeRef<Fn>(ref);
    if (!found.ok()) decoder.Fail(found.status());
    function = *found;
  } else if constexpr (kind == Kind::kFunctor) {
    Get(decoder, function);
  }
}

template <class Fn, class... P>
decltype(auto) Invoke(Fn& function, std::tuple<P...>& arguments) {
  return std::apply(
      [&](P&... argument) -> decltype(auto) {
        if constexpr (std::is_member_function_pointer_v<Fn>) {
          return [&](auto& object, auto&... rest) -> decltype(auto) {
            return std::invoke(function, object, std::move(rest)...);
          }(argument...);
        } else {
          return std::invoke(function, std::move(argument)...);
        }
      },
      arguments);
}

template <class Fn, class... P>
using RawResult = typename Invoked<Fn, Types<P...>>::type;

template <class T>
void PutAlone(Frame& frame, const T& value) {
  if constexpr (IsFlat<T>()) {
    FlatEncoder encoder(frame);
    Put(encoder, value);
  } else {
    Encoder encoder(frame);
    encoder(value);
    encoder.serializeDeferments();
  }
}

// Runs, appends the result, returns the outcome.
template <class Fn, class... P>
absl::Status RunInto(Fn& function, std::tuple<P...>& arguments, Frame& result) {
  using Raw = RawResult<Fn, P...>;
  const size_t size = result.size();
  const size_t descriptors = result.descriptors().size();
  bool returned = false;
  absl::Status error;
  try {
    if constexpr (std::is_void_v<Raw>) {
      Invoke(function, arguments);
      PutVarint(result, 0);
      return absl::OkStatus();
    } else {
      decltype(auto) value = Invoke(function, arguments);
      returned = true;
      using Value = std::remove_cvref_t<Raw>;
      if constexpr (std::is_same_v<Value, absl::Status>) {
        PutStatus(result, value);
        return value;
      } else if constexpr (kIsStatusOr<Value>) {
        if (value.ok()) {
          *result.Extend(1) = 1;
          PutAlone(result, *value);
          return absl::OkStatus();
        }
        error = value.status();
      } else {
        *result.Extend(1) = 1;
        PutAlone(result, value);
        return absl::OkStatus();
      }
    }
  } catch (...) {
    error = returned ? StatusOfException(absl::StatusCode::kInvalidArgument)
                     : StatusOfFunction();
  }
  result.Truncate(size);
  result.descriptors().resize(descriptors);
  PutError(result, error, !std::is_void_v<typename ResultOf<Raw>::value>);
  return error;
}

template <class Fn, class... P>
class Call final : public CallBase {
 public:
  explicit Call(Decoder& decoder) {
    GetFunction(decoder, function_);
    std::apply([&](P&... argument) { (Get(decoder, argument), ...); },
               arguments_);
  }

  static std::unique_ptr<CallBase> Enter(Decoder& decoder) {
    return std::make_unique<Call>(decoder);
  }

  absl::Status Run(Frame& result) override {
    return RunInto(function_, arguments_, result);
  }

  absl::StatusOr<int> RunForExitCode() override {
    using Raw = RawResult<Fn, P...>;
    try {
      if constexpr (std::is_void_v<Raw>) {
        Invoke(function_, arguments_);
        return 0;
      } else {
        decltype(auto) value = Invoke(function_, arguments_);
        using Value = std::remove_cvref_t<Raw>;
        if constexpr (std::is_same_v<Value, absl::Status>) {
          if (!value.ok()) return value;
          return 0;
        } else if constexpr (kIsStatusOr<Value>) {
          if (!value.ok()) return value.status();
          if constexpr (std::is_same_v<Value, absl::StatusOr<int>>) {
            return *value;
          }
          return 0;
        } else if constexpr (std::is_same_v<Value, int>) {
          return value;
        } else {
          return 0;
        }
      }
    } catch (...) {
      return StatusOfFunction();
    }
  }

 private:
  Fn function_ = Fn();
  std::tuple<P...> arguments_{};
};

template <class Fn, class... P>
class Map final : public MapBase {
 public:
  explicit Map(Decoder& decoder) { GetFunction(decoder, function_); }

  static std::unique_ptr<MapBase> Enter(Decoder& decoder) {
    return std::make_unique<Map>(decoder);
  }

  absl::Status RunNext(Decoder& elements, Frame& result) override {
    return Run(elements, 1, result, [] { return true; }).status();
  }

  absl::StatusOr<size_t> Run(Decoder& elements, size_t count, Frame& results,
                             absl::FunctionRef<bool()> after_each) override {
    // Copied out so that it can live in registers.
    Reader reader = elements.reader();
    size_t done = 0;
    try {
      while (done < count) {
        std::tuple<P...> arguments{};
        GetElement(elements, reader, arguments);
        (void)RunInto(function_, arguments, results);
        ++done;
        if (!after_each()) break;
      }
    } catch (...) {
      return StatusOfException(absl::StatusCode::kDataLoss);
    }
    elements.reader() = reader;
    return done;
  }

 private:
  static void GetElement(Decoder& elements, Reader& reader,
                         std::tuple<P...>& arguments) {
    if constexpr ((IsFlat<P>() && ...)) {
      FlatDecoder decoder(reader);
      std::apply([&](P&... argument) { (Get(decoder, argument), ...); },
                 arguments);
    } else {
      elements.reader() = reader;
      {
        Decoder decoder(&elements);
        std::apply([&](P&... argument) { decoder(argument...); }, arguments);
        decoder.serializeDeferments();
      }
      reader = elements.reader();
    }
  }

  Fn function_ = Fn();
};

// Code references to the entries, made once per type.
template <class Fn, class P>
struct Entries;
template <class Fn, class... P>
struct Entries<Fn, Types<P...>> {
  static const absl::StatusOr<CodeRef>& OfCall() {
    static const absl::StatusOr<CodeRef> ref =
        cohort::MakeCodeRef(&Call<Fn, P...>::Enter);
    return ref;
  }
  static const absl::StatusOr<CodeRef>& OfMap() {
    static const absl::StatusOr<CodeRef> ref =
        cohort::MakeCodeRef(&Map<Fn, P...>::Enter);
    return ref;
  }
};

template <class P, class E, class A>
void PutArgument(E& encoder, A&& argument) {
  if constexpr (std::is_same_v<std::decay_t<A>, P>) {
    Put(encoder, std::as_const(argument));
  } else {
    // NOLINTNEXTLINE(bugprone-move-forwarding-reference): never what is kept.
    const P converted = std::forward<A>(argument);
    Put(encoder, converted);
  }
}

// Moves out of what was given away: after the call was written, its owner is
// the other side.
template <class P, class A>
void Release(std::remove_reference_t<A>& argument) {
  if constexpr (!std::is_lvalue_reference_v<A> && !std::is_const_v<A> &&
                std::is_same_v<std::decay_t<A>, P> &&
                !std::is_trivially_copyable_v<P>) {
    [[maybe_unused]] P released = std::move(argument);
  }
}

template <class... P, class E, class... A>
void PutArguments(Types<P...>, E& encoder, A&&... arguments) {
  (PutArgument<P>(encoder, std::forward<A>(arguments)), ...);
}

template <class F, class P, class E, class... A>
void PutCall(const absl::StatusOr<CodeRef>& entry, E& encoder,
             const F& function, A&&... arguments) {
  PutCodeRef(encoder, entry);
  PutFunction<F>(encoder, function);
  PutArguments(P(), encoder, std::forward<A>(arguments)...);
}

template <class... A, class... P>
void ReleaseAll(Types<P...>, std::remove_reference_t<A>&... arguments) {
  (Release<P, A>(arguments), ...);
}

template <class Fn, class P>
inline constexpr bool kFlatCall = AllFlat<P>() &&
                                  (FindKind<Fn>() != Kind::kFunctor ||
                                   IsFlat<Fn>());

template <class R>
struct Tag {};

template <class D>
absl::Status GetResult(D& decoder, Tag<absl::Status>) {
  return GetStatus(decoder.reader());
}
template <class D, class T>
absl::StatusOr<T> GetResult(D& decoder, Tag<absl::StatusOr<T>>) {
  absl::StatusOr<T> result;
  result.emplace();
  Get(decoder, result);
  return result;
}

}  // namespace serialize_internal

template <class F, class... A>
absl::Status EncodeCall(Encoder& encoder, F&& function, A&&... arguments) {
  CheckCall<F, A...>();
  using Fn = std::decay_t<F>;
  using P = serialize_internal::DecodedFor<F, A...>;
  if constexpr (!serialize_internal::IsCall<F, A...>()) {
    return absl::InternalError("");
  } else {
    absl::Status status = serialize_internal::WriteOrUndo(encoder.frame(), [&] {
      serialize_internal::PutCall<Fn, P>(
          serialize_internal::Entries<Fn, P>::OfCall(), encoder, function,
          std::forward<A>(arguments)...);
    });
    if (status.ok()) {
      serialize_internal::ReleaseAll<A...>(P(), arguments...);
    }
    return status;
  }
}

template <class F, class... A>
absl::Status EncodeCall(Frame& frame, F&& function, A&&... arguments) {
  CheckCall<F, A...>();
  using Fn = std::decay_t<F>;
  using P = serialize_internal::DecodedFor<F, A...>;
  if constexpr (!serialize_internal::IsCall<F, A...>()) {
    return absl::InternalError("");
  } else {
    absl::Status status = serialize_internal::WriteOrUndo(frame, [&] {
      auto put = [&](auto& encoder) {
        serialize_internal::PutCall<Fn, P>(
            serialize_internal::Entries<Fn, P>::OfCall(), encoder, function,
            std::forward<A>(arguments)...);
      };
      if constexpr (serialize_internal::kFlatCall<Fn, P>) {
        serialize_internal::FlatEncoder encoder(frame);
        put(encoder);
      } else {
        Encoder encoder(frame);
        put(encoder);
        encoder.serializeDeferments();
      }
    });
    if (status.ok()) {
      serialize_internal::ReleaseAll<A...>(P(), arguments...);
    }
    return status;
  }
}

template <class F, class... A>
absl::Status EncodeFunction(Frame& frame, const std::decay_t<F>& function) {
  CheckCall<F, A...>();
  using Fn = std::decay_t<F>;
  using P = serialize_internal::DecodedFor<F, A...>;
  if constexpr (!serialize_internal::IsCall<F, A...>()) {
    return absl::InternalError("");
  } else {
    return serialize_internal::WriteOrUndo(frame, [&] {
      Encoder encoder(frame);
      serialize_internal::PutCodeRef(
          encoder, serialize_internal::Entries<Fn, P>::OfMap());
      serialize_internal::PutFunction<Fn>(encoder, function);
      encoder.serializeDeferments();
    });
  }
}

template <class F, class... A>
absl::Status EncodeElement(Frame& frame, A&&... arguments) {
  CheckCall<F, A...>();
  using P = serialize_internal::DecodedFor<F, A...>;
  if constexpr (!serialize_internal::IsCall<F, A...>()) {
    return absl::InternalError("");
  } else {
    absl::Status status = serialize_internal::WriteOrUndo(frame, [&] {
      if constexpr (serialize_internal::AllFlat<P>()) {
        serialize_internal::FlatEncoder encoder(frame);
        serialize_internal::PutArguments(P(), encoder,
                                         std::forward<A>(arguments)...);
      } else {
        Encoder encoder(frame);
        serialize_internal::PutArguments(P(), encoder,
                                         std::forward<A>(arguments)...);
        encoder.serializeDeferments();
      }
    });
    if (status.ok()) {
      serialize_internal::ReleaseAll<A...>(P(), arguments...);
    }
    return status;
  }
}

template <class R>
typename ResultOf<R>::type DecodeNextResult(Decoder& results) {
  using Result = typename ResultOf<R>::type;
  try {
    if constexpr (serialize_internal::IsFlat<Result>()) {
      return serialize_internal::GetResult(results,
                                           serialize_internal::Tag<Result>());
    } else {
      Decoder decoder(&results);
      return serialize_internal::GetResult(decoder,
                                           serialize_internal::Tag<Result>());
    }
  } catch (...) {
    return serialize_internal::StatusOfException(absl::StatusCode::kDataLoss);
  }
}

template <class R>
typename ResultOf<R>::type DecodeResult(
    std::string_view bytes, std::vector<os::Descriptor> descriptors) {
  using Result = typename ResultOf<R>::type;
  try {
    auto get = [](auto& decoder) {
      Result result = serialize_internal::GetResult(
          decoder, serialize_internal::Tag<Result>());
      if (decoder.reader().remaining() != 0) {
        result = serialize_internal::TrailingBytes(decoder.reader());
      }
      return result;
    };
    if constexpr (serialize_internal::IsFlat<Result>()) {
      serialize_internal::Reader reader(bytes);
      serialize_internal::FlatDecoder decoder(reader);
      return get(decoder);
    } else {
      Decoder decoder(bytes, std::move(descriptors));
      return get(decoder);
    }
  } catch (...) {
    return serialize_internal::StatusOfException(absl::StatusCode::kDataLoss);
  }
}

}  // namespace cohort

#endif  // COHORT_SERIALIZE_CALLABLE_H_
