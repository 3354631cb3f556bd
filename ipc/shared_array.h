// SPDX-License-Identifier: Apache-2.0
//
// `cohort::SharedArray<T>` is a row of values that several processes read and
// change, behind one lock: nobody sees a change half-made, not even after a
// process was killed in the middle.
//
//   auto sums = cohort::SharedArray<int64_t>::Create(5);      // five times 0
//   if (!sums.ok()) return sums.status();
//   // void Add(cohort::SharedArray<int64_t> sums, int64_t number);
//   auto child = cohort::Process::Start(Add, *sums, 7);
//   absl::Status added = sums->With([](absl::Span<int64_t> all) {
//     for (int64_t& sum : all) ++sum;
//   });
//   absl::StatusOr<std::vector<int64_t>> seen = sums->Load();
//
// With() calls a function under the lock and hands its result on. If a process
// died under the lock, that is DataLoss for everybody, until somebody makes the
// array whole again: by Store() of all of it, or by the repair that With()
// takes too (ipc/shared_value.h shows one).
//
// T is what shm/sharable.h says can be shared. For elements that processes take
// in turns, without a lock around all, there are atomic() and raw(); Python's
// RawArray is raw(). For one value take SharedValue<T> (ipc/shared_value.h),
// for a length known when the program is written also SharedValue<std::array>,
// for bytes a Region (shm/region.h).

#ifndef COHORT_IPC_SHARED_ARRAY_H_
#define COHORT_IPC_SHARED_ARRAY_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/ipc/internal/array_memory.h"
#include "cohort/ipc/internal/guarded.h"
#include "cohort/os/check.h"
#include "cohort/shm/region.h"
#include "cohort/shm/sharable.h"
#include "cohort/shm/type_tag.h"
#include "cohort/sync/mutex.h"

namespace cohort {

// SharedArray<T>
//
// |         | With, Load,  | With(_, repair)  | Store | a process dies in     |
// |         | Store(index) |                  | (all) | With, Load or Store   |
// |---------+--------------+------------------+-------+-----------------------|
// | Empty   | fatal        | fatal            | fatal | --                    |
// | Whole   | done         | done, without    | Whole | Damaged               |
// |         |              | the repair       |       |                       |
// | Damaged | DataLoss     | repaired: Whole; | Whole | Damaged               |
// |         |              | then done        |       |                       |
//
// "Empty" is a handle that was default-constructed and not assigned to; an
// array of no elements is none.
//
// Contract
//   Placement:      a handle in private memory; the elements are in a region of
//                   their own, from its first byte on. Layout:
//                   docs/formats/shared_value.md.
//   Thread-safety:  every member but assignment, from any thread. What raw()
//                   gives is as safe as its T.
//   Process-safety: likewise, among processes of one PID namespace. A handle
//                   travels as a start argument; copies mean the same array.
//   Fork-safety:    a handle goes on working in the child. A child of a fork()
//                   inside With() does not hold the lock.
//   Crash-safety:   whatever instruction a process dies at, nobody waits for
//                   it, and nobody is given what it left half-written as if it
//                   were whole.
//   Signal-safety:  atomic(), raw() and size(); no other.
//   Errors:         DataLoss, as drawn. Create() and its like: as Region's
//                   (shm/region.h); InvalidArgument for more elements than
//                   there are addresses; FailedPrecondition where something
//                   else than such an array lies there. With() inside With() on
//                   the same array, an index out of range, and Store() of
//                   another length are fatal. What `fn` throws passes through:
//                   the lock is freed, and the array counts as whole, in
//                   whatever state `fn` has left it.
//   Ordering:       what was written before one call is visible after the next
//                   call under the lock, in any process.
//   Cost:           With(): as Mutex's lock() and unlock(), no system call
//                   without a rival. Each array takes a descriptor; its pages
//                   are taken when they are first used.
//   Reference:      Python's multiprocessing.Array; docs/design/shared_value.md.
template <typename T>
class SharedArray final {
 public:
  // Refers to nothing, until assigned to.
  SharedArray() = default;

  // `size` elements, each with its initial value, which for numbers is 0.
  static absl::StatusOr<SharedArray> Create(size_t size) {
    return Make(std::nullopt, size, Initial(size));
  }

  // Copies of `values`.
  static absl::StatusOr<SharedArray> Create(absl::Span<const T> values) {
    return Make(std::nullopt, values.size(), Copies(values));
  }
  static absl::StatusOr<SharedArray> Create(std::initializer_list<T> values) {
    return Create(absl::MakeConstSpan(values.begin(), values.size()));
  }

  // The array with that name, of which this process becomes an owner; if there
  // is none, a new one. Of several who come at once one makes it for all. For
  // names see Region. FailedPrecondition if it has another size.
  static absl::StatusOr<SharedArray> OpenOrCreate(std::string_view name,
                                                  size_t size) {
    return Make(name, size, Initial(size));
  }
  static absl::StatusOr<SharedArray> OpenOrCreate(std::string_view name,
                                                  absl::Span<const T> values) {
    return Make(name, values.size(), Copies(values));
  }
  static absl::StatusOr<SharedArray> OpenOrCreate(
      std::string_view name, std::initializer_list<T> values) {
    return OpenOrCreate(name,
                        absl::MakeConstSpan(values.begin(), values.size()));
  }

  // Likewise, of whatever size; NotFound if there is none, or if all its owners
  // have died.
  static absl::StatusOr<SharedArray> Open(std::string_view name) {
    absl::StatusOr<Region> region = Region::Open(name);
    if (!region.ok()) return region.status();
    return Attach(*std::move(region));
  }

  // Takes the name away now; its owners keep the array. Otherwise the name goes
  // with the last owner.
  static absl::Status Unlink(std::string_view name) {
    return Region::Unlink(name);
  }

  // The number of elements; 0 in an empty handle.
  [[nodiscard]] size_t size() const { return memory_.size; }

  // Calls `fn(absl::Span<T>)` with all elements under the lock. Returns what it
  // does, as a Status if it returns nothing, else as a StatusOr; a Status or
  // StatusOr stays what it is. DataLoss, without a call, if a holder has died.
  template <typename Fn>
  ipc_internal::WithResult<Fn, absl::Span<T>> With(Fn&& fn) const {
    return ipc_internal::CallWith(mutex(), kWhat, fn, raw());
  }

  // Likewise, but where a holder has died, `repair(absl::Span<T>)` is called
  // first, which makes the elements whole from whatever it finds. If that dies
  // or throws, the next one repairs.
  template <typename Fn, typename Repair>
  ipc_internal::WithResult<Fn, absl::Span<T>> With(Fn&& fn,
                                                   Repair&& repair) const {
    return ipc_internal::RepairAndCall(mutex(), repair, fn, raw());
  }

  // Copies of all elements, or of one; DataLoss if a holder has died. Requires
  // that `index` is less than size().
  absl::StatusOr<std::vector<T>> Load() const {
    CheckCopied();
    return With([](absl::Span<const T> all) {
      return std::vector<T>(all.begin(), all.end());
    });
  }
  absl::StatusOr<T> Load(size_t index) const {
    CheckCopied();
    const T& element = At(index);
    return With([&](absl::Span<const T>) -> T { return element; });
  }

  // Replaces all elements, which repairs the array. Requires size() values.
  void Store(absl::Span<const T> values) const {
    CheckCopied();
    os::Check(values.size() == size(),
              "SharedArray: as many values are stored as it has elements");
    MutexLock lock(mutex());
    std::copy(values.begin(), values.end(), raw().begin());
    if (lock.poisoned()) [[unlikely]] {
      mutex().clear_poison();
    }
  }

  // Replaces one; DataLoss if a holder has died. Requires that `index` is less
  // than size().
  absl::Status Store(size_t index, const T& value) const {
    CheckCopied();
    T& element = At(index);
    return With([&](absl::Span<T>) { element = value; });
  }

  // One element for lock-free use: cheaper than With(), as safe against deaths,
  // but one operation at a time. Every use must then be by atomic(), or the
  // lock excludes nobody. Requires that `index` is less than size().
  [[nodiscard]] std::atomic_ref<T> atomic(size_t index) const {
    static_assert(ipc_internal::IsAtomic<T>(),
                  "cohort: no processor reads and writes an element of this "
                  "type as a whole; take With()");
    return std::atomic_ref<T>(At(index));
  }

  // The elements without their lock, for who holds mutex(), or has agreed with
  // the others on who uses which. absl::Span checks indices without NDEBUG.
  [[nodiscard]] absl::Span<T> raw() const {
    CheckHandle();
    return absl::MakeSpan(reinterpret_cast<T*>(memory_.region.bytes().data()),
                          memory_.size);
  }

  // The lock. Who locks it should look at poisoned() first.
  [[nodiscard]] Mutex& mutex() const {
    CheckHandle();
    return memory_.control->mu;
  }

  // Whether this handle refers to no array at all.
  [[nodiscard]] bool empty_handle() const { return memory_.region.empty(); }

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(memory_.region);
  }
  template <typename Archive>
  void load(Archive& archive) {
    Region region;
    archive(region);
    *this = SharedArray();
    if (region.empty()) return;
    absl::StatusOr<SharedArray> attached = Attach(std::move(region));
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  static constexpr uint64_t kTag = TypeTag<T>("array");
  static constexpr char kWhat[] = "shared array";

  static constexpr void CheckCopied() {
    static_assert(ipc_internal::kIsCopied<T>,
                  "cohort: copies of this type are not simply its bytes; take "
                  "With()");
  }

  // What puts the first values into zero-filled memory. Where zeros are what an
  // initial value looks like, no page is touched before it is used.
  static auto Initial(size_t size) {
    size_t made = std::is_trivially_default_constructible_v<T> ? 0 : size;
    return [made](void* first) {
      std::uninitialized_value_construct_n(static_cast<T*>(first), made);
    };
  }
  static auto Copies(absl::Span<const T> values) {
    return [values](void* first) {
      std::uninitialized_copy(values.begin(), values.end(),
                              static_cast<T*>(first));
    };
  }

  // Anonymous without a name.
  static absl::StatusOr<SharedArray> Make(std::optional<std::string_view> name,
                                          size_t size,
                                          ipc_internal::FillArray fill) {
    CheckSharable<T>();
    absl::StatusOr<Region> region =
        ipc_internal::MakeArray(name, size, sizeof(T), kTag, fill);
    if (!region.ok()) return region.status();
    absl::StatusOr<SharedArray> array = Attach(*std::move(region));
    if (array.ok() && array->size() != size) {
      return ipc_internal::OtherSize(array->size(), size);
    }
    return array;
  }

  static absl::StatusOr<SharedArray> Attach(Region region) {
    CheckSharable<T>();
    absl::StatusOr<ipc_internal::ArrayMemory> memory =
        ipc_internal::AttachArray(std::move(region), sizeof(T), kTag);
    if (!memory.ok()) return memory.status();
    SharedArray array;
    array.memory_ = *std::move(memory);
    return array;
  }

  void CheckHandle() const {
    os::Check(!memory_.region.empty(), "an empty SharedArray<T> was used");
  }

  T& At(size_t index) const {
    const absl::Span<T> all = raw();
    os::Check(index < all.size(), "SharedArray: the index is out of range");
    return all[index];
  }

  ipc_internal::ArrayMemory memory_;
};

}  // namespace cohort

#endif  // COHORT_IPC_SHARED_ARRAY_H_
