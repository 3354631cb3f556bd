// SPDX-License-Identifier: Apache-2.0
//
// Calls, results and values that must be refused, each with its sentence.

#include <any>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/serialize/callable.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace {

int Square(int x) { return x * x; }
[[maybe_unused]] std::string Name(const std::string& name) { return name; }
[[maybe_unused]] void TakesPointer(int*) {}
[[maybe_unused]] void TakesView(std::string_view) {}
[[maybe_unused]] void Changes(int& x) { ++x; }
[[maybe_unused]] void TakesOwner(std::unique_ptr<int>) {}
[[maybe_unused]] int* ReturnsPointer() { return nullptr; }
[[maybe_unused]] void TakesCallback(int (*)(int)) {}

struct Member {
  int value = 0;
};
struct WithPointer {
  int number = 0;
  const char* name = nullptr;
};
class Opaque {
 public:
  Opaque() = default;
  Opaque(const Opaque&) {}

 private:
  [[maybe_unused]] int secret_ = 0;
};
struct SavesOnly {
  template <class Archive>
  void save(Archive&) const {}
};
struct TwoWays {
  template <class Archive>
  void save(Archive&) const {}
  template <class Archive>
  void load(Archive&) {}
  template <class Archive>
  void serialize(Archive&) {}
};
struct NoDefault {
  explicit NoDefault(int n) : number(n) {}
  int number;
};

template <class T>
bool Encodes(const T& value) {
  return cohort::Encode(value).ok();
}

}  // namespace

bool Use(int local) {
  cohort::Frame frame;
  auto sends = [&](auto&& function, auto&&... arguments) {
    return cohort::EncodeCall(frame, std::forward<decltype(function)>(function),
                              std::forward<decltype(arguments)>(arguments)...)
        .ok();
  };
  auto owner = std::make_unique<int>(local);
  bool ok = sends(Square, local) && sends([](int x) { return x; }, local) &&
            sends(TakesOwner, std::move(owner)) && sends(Name, "text");
#ifdef CAPTURES
  ok = ok && sends([local] { return local; });
#endif
#ifdef FUNCTION_OBJECT
  ok = ok && sends(std::function<int(int)>(Square), 1);
#endif
#ifdef NOT_CALLABLE
  ok = ok && sends(5, 1);
#endif
#ifdef POINTER
  ok = ok && sends(TakesPointer, &local);
#endif
#ifdef VIEW
  ok = ok && sends(TakesView, "text");
#endif
#ifdef MUTABLE_REFERENCE
  ok = ok && sends(Changes, local);
#endif
#ifdef STATUS_OR
  ok = ok && sends(Square, absl::StatusOr<int>(1));
#endif
#ifdef COPY_OF_OWNER
  ok = ok && sends(TakesOwner, owner);
#endif
#ifdef TOO_FEW
  ok = ok && sends(Square);
#endif
#ifdef INCONVERTIBLE
  ok = ok && sends(Square, "text");
#endif
#ifdef NOT_INVOCABLE
  ok = ok && sends([](auto& x) { return x; }, 1);
#endif
#ifdef RESULT
  ok = ok && sends(ReturnsPointer);
#endif
#ifdef CALLBACK
  ok = ok && sends(TakesCallback, Square);
#endif
#ifdef VALUE_MEMBER_POINTER
  ok = ok && Encodes(&Member::value);
#endif
#ifdef VALUE_REFERENCE
  ok = ok && Encodes(std::ref(local));
#endif
#ifdef VALUE_ANY
  ok = ok && Encodes(std::any());
#endif
#ifdef HOLDS_POINTER
  ok = ok && Encodes(WithPointer());
#endif
#ifdef UNKNOWN
  ok = ok && Encodes(Opaque());
#endif
#ifdef ONE_WAY
  ok = ok && Encodes(SavesOnly());
#endif
#ifdef TWO_WAYS
  ok = ok && Encodes(TwoWays());
#endif
#ifdef NO_DEFAULT
  ok = ok && Encodes(NoDefault(1));
#endif
#ifdef STATUS_ALONE
  ok = ok && cohort::Decode<absl::Status>(frame.bytes()).ok();
#endif
  return ok && Encodes(Member()) && Encodes(1);
}
