// SPDX-License-Identifier: Apache-2.0
//
// Something of everything, read from made-up bytes. What is accepted must be
// what an encoder writes: encoding the value again gives the same bytes.

#include "cohort/serialize/codec.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <forward_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/check.h"
#include "cohort/serialize/frame.h"

namespace fuzz {

struct Base {
  int32_t n = 0;
  std::weak_ptr<Base> other;
  Base() = default;
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;
  virtual ~Base() = default;
  template <class Archive>
  void serialize(Archive& a) {
    a(n, other);
  }
};
struct Leaf : Base {
  std::string text;
  template <class Archive>
  void serialize(Archive& a) {
    a(cereal::base_class<Base>(this), text);
  }
};
struct Branch : Base {
  std::vector<std::shared_ptr<Base>> kids;
  template <class Archive>
  void serialize(Archive& a) {
    a(cereal::virtual_base_class<Base>(this), kids);
  }
};

class Ring {
 public:
  explicit Ring(std::shared_ptr<Ring> next) : next_(std::move(next)) {}
  template <class Archive>
  void save(Archive& a) const {
    a(next_);
  }
  template <class Archive>
  static void load_and_construct(Archive& a, cereal::construct<Ring>& make) {
    std::shared_ptr<Ring> next;
    a(next);
    make(next);
  }

 private:
  std::shared_ptr<Ring> next_;
};

struct Versioned {
  int32_t n = 0;
  template <class Archive>
  void serialize(Archive& a, uint32_t version) {
    a(n);
    if (version > 1000) a(n);
  }
};

struct Flags {  // Its bytes, but for the bools.
  int32_t n = 0;
  bool a = false;
  bool b[3] = {};
};

using Plain = std::tuple<
    std::vector<int32_t>, std::vector<bool>, std::string, std::u16string,
    std::map<std::string, std::vector<double>>, std::unordered_set<int32_t>,
    std::unordered_map<std::string, std::optional<int8_t>>,
    std::multimap<int8_t, bool>, std::set<std::u16string>,
    std::variant<int32_t, std::string, std::vector<int32_t>>,
    std::deque<std::string>, std::list<std::pair<bool, char>>,
    std::forward_list<int16_t>, absl::Status, absl::StatusOr<std::string>,
    absl::Duration, absl::Time, std::vector<Flags>>;

struct Rich {
  std::unique_ptr<std::string> unique;
  std::shared_ptr<std::string> shared;
  std::shared_ptr<std::string> again;
  std::weak_ptr<std::string> weak;
  std::shared_ptr<Base> base;
  std::unique_ptr<Base> owned;
  std::shared_ptr<Ring> ring;
  std::vector<std::shared_ptr<Ring>> rings;
  std::vector<Versioned> versioned;
  std::vector<Rich> kids;
  std::map<std::string, Rich> named;

  template <class Archive>
  void serialize(Archive& a) {
    a(unique, shared, again, weak, base, owned, ring, rings, versioned, kids,
      named);
  }
};

void CheckPlain(std::string_view bytes) {
  absl::StatusOr<Plain> value = cohort::Decode<Plain>(bytes);
  if (!value.ok()) return;
  absl::StatusOr<cohort::Frame> again = cohort::Encode(*value);
  cohort::os::Check(again.ok() && again->bytes() == bytes,
                    "a message was accepted that no encoder writes");
}

// Which objects share a pointer is not all that the bytes say, nor which of two
// spellings names a type; but the second encoding is like the first.
void CheckRich(std::string_view bytes) {
  absl::StatusOr<Rich> value = cohort::Decode<Rich>(bytes);
  if (!value.ok()) return;
  absl::StatusOr<cohort::Frame> first = cohort::Encode(*value);
  cohort::os::Check(first.ok(), "what arrived cannot be sent on");
  absl::StatusOr<Rich> same = cohort::Decode<Rich>(first->bytes());
  cohort::os::Check(same.ok(), "what was sent on cannot be read");
  absl::StatusOr<cohort::Frame> second = cohort::Encode(*same);
  cohort::os::Check(second.ok() && second->bytes() == first->bytes(),
                    "equal values have different bytes");
}

}  // namespace fuzz

CEREAL_CLASS_VERSION(fuzz::Versioned, 3)
CEREAL_REGISTER_TYPE_WITH_NAME(fuzz::Leaf, "Leaf")
CEREAL_REGISTER_TYPE_WITH_NAME(fuzz::Branch, "Branch")
CEREAL_REGISTER_POLYMORPHIC_RELATION(fuzz::Base, fuzz::Leaf)
CEREAL_REGISTER_POLYMORPHIC_RELATION(fuzz::Base, fuzz::Branch)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1,
                               size - 1);
  if ((data[0] & 1) != 0) {
    fuzz::CheckPlain(bytes);
  } else {
    fuzz::CheckRich(bytes);
  }
  return 0;
}
