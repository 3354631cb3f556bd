// SPDX-License-Identifier: Apache-2.0
//
// Calls as data: checked where they are made, run in another process.
#ifndef COHORT_SERIALIZE_CALLABLE_H_
#define COHORT_SERIALIZE_CALLABLE_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/serialize/codec.h"

namespace cohort {

// ResultOf<R>::type is what a caller gets of a function that returns R
// (void, Status -> Status; T, StatusOr<T> -> StatusOr<T>); ::value the T or void.
template <class R>
struct ResultOf;
// The same for F called with A... ; soft in signatures: a call that cannot be
// made yields Status and void, and CheckCall in the body says why.
template <class F, class... A>
using RemoteResult = absl::Status /* in truth: computed */;
template <class F, class... A>
using RemoteValue = void /* in truth: computed */;

// Stands first in the body of everything that takes a callable and arguments.
template <class F, class... A>
consteval void CheckCall();

// Writes the call: code, callable state, arguments converted to the parameter
// types. On an error the frame is as before and moved-in arguments are kept.
template <class F, class... A>
absl::Status EncodeCall(Encoder& encoder, F&& function, A&&... arguments);
template <class F, class... A>
absl::Status EncodeCall(Frame& frame, F&& function, A&&... arguments);

// A decoded call that has not run yet. Move-only.
class BoundCall final {
 public:
  // Runs it once. Always leaves an encoded result in `result`; what is returned
  // is the outcome: OK, or the user's error, the exception, or the encoding
  // error that was written in place of the value.
  absl::Status Run(Frame& result) &&;
};
absl::StatusOr<BoundCall> DecodeCall(std::string_view bytes,
                                     std::vector<os::Descriptor> = {});
absl::StatusOr<BoundCall> DecodeCall(Decoder& decoder);
// DecodeCall + Run; the error of either.
absl::Status RunCall(Decoder& decoder, Frame& result);

// What Run() left, for R as in ResultOf<R>: a Status or StatusOr<R>.
template <class R>
typename ResultOf<R>::type DecodeResult(
    std::string_view bytes, std::vector<os::Descriptor> descriptors = {});

// One function over many elements. A... are the element's argument types as
// the caller has them (const int&, std::string ...), the same for both calls.
template <class F, class... A>
absl::Status EncodeFunction(Frame& frame, F&& function);
template <class F, class... A>
absl::Status EncodeElement(Frame& frame, A&&... arguments);

class BoundMap final {
 public:
  // Decodes one element, runs it, appends its result (as Run() above). An error
  // means that the element's bytes are broken: nothing was run or appended.
  absl::Status RunNext(Decoder& elements, Frame& result);
  // Up to `count` elements; `after_each` is called when the result of one has
  // been appended, and ends the loop by returning false. Returns the number run.
  absl::StatusOr<size_t> Run(Decoder& elements, size_t count, Frame& results,
                             absl::FunctionRef<bool()> after_each);
};
absl::StatusOr<BoundMap> DecodeFunction(Decoder& decoder);
// Reads one of the results that Run() appended one after another.
template <class R>
typename ResultOf<R>::type DecodeNextResult(Decoder& results);

}  // namespace cohort

#endif  // COHORT_SERIALIZE_CALLABLE_H_
