// SPDX-License-Identifier: Apache-2.0
//
// `cohort::ShareableList` is a list of fixed length in shared memory, whose
// elements are None, bool, int, float, str or bytes as Python has them: in the
// very layout of Python's `multiprocessing.shared_memory.ShareableList`. Either
// side makes it, the other opens it by name, and both read and write.
//
//   absl::StatusOr<cohort::ShareableList> list =
//       cohort::ShareableList::CreateNamed("settings", {1, 2.5, "text", true});
//   if (!list.ok()) return list.status();
//   absl::Status set = list->Set(0, 42);
//   for (absl::StatusOr<cohort::ShareableList::Value> value : *list) ...
//
//   # Python
//   settings = shared_memory.ShareableList(name="settings")
//   settings[2] = "other"
//
// What Python says of its list holds here too. An element keeps the room it was
// made with, which for str and bytes is their length rounded up to the next
// multiple of 8, and at least one byte more; other elements have 8 bytes. What
// is longer is refused; what fits may be of another type. And zero bytes at the
// end of a str or bytes are lost, for room that is not used looks the same.
//
// A name and its end are as Region (shm/region.h) says. Python, however, takes
// a name away when it exits that it merely attached to, unless told not to:
//
//   resource_tracker.unregister(settings.shm._name, "shared_memory")
//
// The layout has no place for a lock. Where one process writes while another
// reads, agree on one: `Shared<Mutex>` (shm/shared.h) among C++ programs, and
// with Python a message to and fro. For values that only C++ sees take
// `Shared<T>` with a struct, which is typed and faster.

#ifndef COHORT_SHM_SHAREABLE_LIST_H_
#define COHORT_SHM_SHAREABLE_LIST_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/shm/region.h"

namespace cohort {

// ShareableList
//
// |       | Create, Open | Get()       | Set()         | a process dies       |
// |-------+--------------+-------------+---------------+----------------------|
// | Empty | Full         | fatal       | fatal         | --                   |
// | Full  | --           | the element | overwrites it | the element that it  |
// |       |              |             |               | was setting is old,  |
// |       |              |             |               | new or DataLoss      |
//
// "Empty" is a handle that was default-constructed and not assigned to.
//
// Contract
//   Placement:      a handle in private memory; the list is in a Region of its
//                   own. Layout: docs/formats/shareable_list.md.
//   Thread-safety:  as a std::vector: any number of readers, or one writer. A
//                   breach mixes old and new in one element, no more.
//   Process-safety: likewise, with Python's processes too.
//   Fork-safety:    a handle works in the child; the list is the same one.
//   Crash-safety:   whoever dies in Set() leaves that element as it was, as it
//                   was to be, or marked as torn: Get() is DataLoss until the
//                   next Set(). (Python says KeyError; a Python process that is
//                   killed there itself leaves no mark, and perhaps nonsense.)
//                   All other elements stay.
//   Signal-safety:  none.
//   Errors:         OutOfRange: no such position. ResourceExhausted: longer
//                   than the room. InvalidArgument: a str that is no UTF-8, or
//                   a text of 10 MB and more. DataLoss: an element is torn, or
//                   the memory holds what no such list writes; no content makes
//                   it crash. Open and Create moreover: as Region's.
//   Ordering:       what was written before a handle or name was made known is
//                   visible to whoever got it; beyond that what the lock says.
//   Cost:           Get and Set of a number: some loads and stores. Count() and
//                   Index() read the whole list.
//   Reference:      Python's multiprocessing.shared_memory.ShareableList;
//                   docs/design/shareable_list.md.
class ShareableList final {
 public:
  using None = std::monostate;

  // Python's bytes. A std::string is its str, in UTF-8.
  struct Bytes {
    std::string data;

    friend bool operator==(const Bytes&, const Bytes&) = default;
    template <typename Archive>
    void serialize(Archive& archive) {
      archive(data);
    }
  };

  using Value = std::variant<None, bool, int64_t, double, std::string, Bytes>;

  class Iterator;

  // Refers to no list, until assigned to.
  ShareableList() = default;

  // A new list without a name; handles to it travel.
  static absl::StatusOr<ShareableList> Create(const std::vector<Value>& values);

  // A new list that appears under `name`, complete; and the one that is there,
  // made by us or by Python. As Region's.
  static absl::StatusOr<ShareableList> CreateNamed(
      std::string_view name, const std::vector<Value>& values);
  static absl::StatusOr<ShareableList> Open(std::string_view name);

  // The list in a region, whoever made it: its user bytes begin with it.
  static absl::StatusOr<ShareableList> Attach(Region region);

  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }

  // The element at `position`; a negative one counts from the end, as -1.
  [[nodiscard]] absl::StatusOr<Value> Get(int64_t position) const;

  // Overwrites it, if the room there suffices.
  absl::Status Set(int64_t position, const Value& value) const;

  // How many elements equal `value`, and the position of the first that does,
  // NotFound if none; as Python compares: 1, 1.0 and true are equal.
  [[nodiscard]] absl::StatusOr<size_t> Count(const Value& value) const;
  [[nodiscard]] absl::StatusOr<size_t> Index(const Value& value) const;

  // All elements.
  [[nodiscard]] absl::StatusOr<std::vector<Value>> Values() const;

  // What Python's `format` says: the formats of all elements, for its `struct`.
  [[nodiscard]] absl::StatusOr<std::string> Format() const;

  // Each element in turn, as a StatusOr<Value>. The handle must stay.
  [[nodiscard]] Iterator begin() const;
  [[nodiscard]] std::default_sentinel_t end() const { return {}; }

  // Whether this handle refers to no list at all.
  [[nodiscard]] bool empty_handle() const { return region_.empty(); }

  // The memory that it lies in.
  [[nodiscard]] const Region& region() const { return region_; }

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(region_);
  }
  template <typename Archive>
  void load(Archive& archive) {
    Region region;
    archive(region);
    *this = ShareableList();
    if (region.empty()) return;
    absl::StatusOr<ShareableList> attached = Attach(std::move(region));
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  // Where an element is, as found in shared memory and checked.
  struct Place {
    size_t index = 0;
    size_t data = 0;  // Offset of its bytes, a multiple of 8.
    size_t room = 0;  // How many there are, likewise.
  };

  // The bytes that a list of these values takes, and the list in such memory.
  static absl::StatusOr<size_t> SizeFor(const std::vector<Value>& values);
  static void Lay(const std::vector<Value>& values,
                  std::span<std::byte> memory);

  std::atomic<uint64_t>& Word(size_t offset) const;
  std::atomic<uint64_t>& FormatOf(size_t index) const;
  std::atomic<int8_t>& CodeOf(size_t index) const;
  absl::StatusOr<Place> Find(int64_t position) const;
  std::string Text(const Place& place, size_t length) const;
  void Store(const Place& place, const Value& value) const;

  Region region_;
  std::byte* base_ = nullptr;
  // Copies of what stands in shared memory, taken and checked once.
  size_t count_ = 0;
  size_t data_size_ = 0;
};

// An input iterator that ends by itself.
class ShareableList::Iterator final {
 public:
  using iterator_concept = std::input_iterator_tag;
  using difference_type = std::ptrdiff_t;
  using value_type = absl::StatusOr<Value>;

  absl::StatusOr<Value> operator*() const {
    return list_->Get(static_cast<int64_t>(index_));
  }
  Iterator& operator++() {
    ++index_;
    return *this;
  }
  void operator++(int) { ++index_; }
  friend bool operator==(const Iterator& it, std::default_sentinel_t) {
    return it.index_ == it.list_->size();
  }

 private:
  friend class ShareableList;
  explicit Iterator(const ShareableList* list) : list_(list) {}

  const ShareableList* list_;
  size_t index_ = 0;
};

inline ShareableList::Iterator ShareableList::begin() const {
  return Iterator(this);
}

}  // namespace cohort

#endif  // COHORT_SHM_SHAREABLE_LIST_H_
