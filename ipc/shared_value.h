// SPDX-License-Identifier: Apache-2.0
//
// `cohort::SharedValue<T>` is one value that several processes read and change,
// with a lock of its own: nobody sees it half-changed, not even after a process
// was killed in the middle.
//
//   auto hits = cohort::SharedValue<int>::Create(0);
//   if (!hits.ok()) return hits.status();
//   // void Serve(cohort::SharedValue<int> hits);
//   auto child = cohort::Process::Start(Serve, *hits);
//   absl::Status counted = hits->With([](int& n) { ++n; });
//   absl::StatusOr<int> seen = hits->Load();
//
// With() calls a function under the lock and hands its result on. If a process
// died under the lock, that is DataLoss for everybody, until somebody makes the
// value whole again: by Store(), or by the repair that With() takes too:
//
//   hits->With([](int& n) { ++n; }, [](int& n) { n = CountAnew(); });
//
// T is what shm/sharable.h says can be shared: numbers, enumerations, arrays
// and structs of such. Python's `with v.get_lock(): v.value += 1` is With();
// `v.get_obj()` is raw(); RawValue is an atomic().
//
// For several values that change together take a struct, as T here or with a
// Mutex in it as Shared<T> (shm/shared.h); for a length that is known at run
// time only, SharedArray<T> (ipc/shared_array.h).

#ifndef COHORT_IPC_SHARED_VALUE_H_
#define COHORT_IPC_SHARED_VALUE_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/ipc/internal/guarded.h"
#include "cohort/os/check.h"
#include "cohort/shm/sharable.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/mutex.h"

namespace cohort {

namespace ipc_internal {

// In shared memory: docs/formats/shared_value.md.
template <typename T>
struct ValueCell {
  template <typename... Args>
  requires(!std::is_aggregate_v<T>) explicit ValueCell(std::in_place_t,
                                                       Args&&... args)
      : value(std::forward<Args>(args)...) {}
  template <typename... Args>
  requires(std::is_aggregate_v<T>) explicit ValueCell(std::in_place_t,
                                                      Args&&... args)
      : value{std::forward<Args>(args)...} {}

  static constexpr size_t Alignment() {
    if constexpr (IsAtomic<T>()) {
      return std::max(alignof(T), std::atomic_ref<T>::required_alignment);
    } else {
      return alignof(T);
    }
  }

  alignas(Alignment()) T value;  // First, so that it stands where the region
                                 // begins.
  Mutex mu;
};

}  // namespace ipc_internal

// SharedValue<T>
//
// |         | With, Load   | With(_, repair)  | Store | a process dies in     |
// |         |              |                  |       | With, Load or Store   |
// |---------+--------------+------------------+-------+-----------------------|
// | Empty   | fatal        | fatal            | fatal | --                    |
// | Whole   | done         | done, without    | Whole | Damaged               |
// |         |              | the repair       |       |                       |
// | Damaged | DataLoss     | repaired: Whole; | Whole | Damaged               |
// |         |              | then done        |       |                       |
//
// "Empty" is a handle that was default-constructed and not assigned to.
//
// Contract
//   Placement:      a handle in private memory; the value is in a region of its
//                   own. Layout: docs/formats/shared_value.md.
//   Thread-safety:  every member but assignment, from any thread. What raw()
//                   gives is as safe as its T.
//   Process-safety: likewise, among processes of one PID namespace. A handle
//                   travels as a start argument; copies mean the same value.
//   Fork-safety:    a handle goes on working in the child. A child of a fork()
//                   inside With() does not hold the lock.
//   Crash-safety:   whatever instruction a process dies at, nobody waits for
//                   it, and nobody is given what it left half-written as if it
//                   were whole.
//   Signal-safety:  atomic() and raw(); no other.
//   Errors:         DataLoss, as drawn. Create() and its like: as Region's
//                   (shm/region.h); FailedPrecondition where something else
//                   than such a value lies there. With() inside With() on the
//                   same value is fatal. What `fn` throws passes through: the
//                   lock is freed, and the value counts as whole, in whatever
//                   state `fn` has left it.
//   Ordering:       what was written before one call is visible after the next
//                   call under the lock, in any process.
//   Cost:           With(): as Mutex's lock() and unlock(), no system call
//                   without a rival. Each value takes a descriptor and two
//                   pages; put many small ones into one struct.
//   Reference:      Python's multiprocessing.Value; Rust's Mutex<T>;
//                   docs/design/shared_value.md.
template <typename T>
class SharedValue final {
 public:
  // Refers to nothing, until assigned to.
  SharedValue() = default;

  // A new value, made of `args` by T's constructor or, if T is an aggregate, in
  // braces; without any, with its initial value, which for numbers is 0.
  template <typename... Args>
  static absl::StatusOr<SharedValue> Create(Args&&... args) {
    CheckSharable<T>();
    return Wrap(
        Shared<Cell>::Create(std::in_place, std::forward<Args>(args)...));
  }

  // The value with that name, of which this process becomes an owner; if there
  // is none, a new one. Of several who come at once one makes it for all. For
  // names see Region.
  template <typename... Args>
  static absl::StatusOr<SharedValue> OpenOrCreate(std::string_view name,
                                                  const Args&... args) {
    CheckSharable<T>();
    return Wrap(Shared<Cell>::OpenOrCreate(name, std::in_place, args...));
  }

  // Likewise; NotFound if there is none, or if all its owners have died.
  static absl::StatusOr<SharedValue> Open(std::string_view name) {
    CheckSharable<T>();
    return Wrap(Shared<Cell>::Open(name));
  }

  // Takes the name away now; its owners keep the value. Otherwise the name goes
  // with the last owner.
  static absl::Status Unlink(std::string_view name) {
    return Shared<Cell>::Unlink(name);
  }

  // Calls `fn(T&)` under the lock. Returns what it does, as a Status if it
  // returns nothing, else as a StatusOr; a Status or StatusOr stays what it is.
  // DataLoss, without a call, if a holder has died.
  template <typename Fn>
  ipc_internal::WithResult<Fn, T&> With(Fn&& fn) const {
    Cell& cell = CellInUse();
    return ipc_internal::CallWith(cell.mu, kWhat, fn, cell.value);
  }

  // Likewise, but where a holder has died, `repair(T&)` is called first, which
  // makes the value whole from whatever it finds. If that dies or throws, the
  // next one repairs.
  template <typename Fn, typename Repair>
  ipc_internal::WithResult<Fn, T&> With(Fn&& fn, Repair&& repair) const {
    Cell& cell = CellInUse();
    return ipc_internal::RepairAndCall(cell.mu, repair, fn, cell.value);
  }

  // A copy of the value; DataLoss if a holder has died.
  absl::StatusOr<T> Load() const {
    CheckCopied();
    return With([](const T& value) -> T { return value; });
  }

  // Replaces all of the value, which repairs it.
  void Store(const T& value) const {
    CheckCopied();
    Cell& cell = CellInUse();
    // Like a repair that dies, a store that does leaves it Damaged.
    MutexLock lock(cell.mu);
    cell.value = value;
    if (lock.poisoned()) [[unlikely]] {
      cell.mu.clear_poison();
    }
  }

  // The value for lock-free use: cheaper than With(), as safe against deaths,
  // but one operation at a time. Every use must then be by atomic(), or the
  // lock excludes nobody.
  [[nodiscard]] std::atomic_ref<T> atomic() const {
    static_assert(ipc_internal::IsAtomic<T>(),
                  "cohort: no processor reads and writes a value of this type "
                  "as a whole; take With()");
    return std::atomic_ref<T>(CellInUse().value);
  }

  // The value without its lock, for who holds mutex(), or knows that nobody
  // else is there.
  [[nodiscard]] T& raw() const { return CellInUse().value; }

  // The lock. Who locks it should look at poisoned() first.
  [[nodiscard]] Mutex& mutex() const { return CellInUse().mu; }

  [[nodiscard]] bool empty() const { return cell_.empty(); }

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(cell_);
  }
  template <typename Archive>
  void load(Archive& archive) {
    archive(cell_);
  }

 private:
  using Cell = ipc_internal::ValueCell<T>;
  static constexpr char kWhat[] = "shared value";

  static constexpr void CheckCopied() {
    static_assert(ipc_internal::kIsCopied<T>,
                  "cohort: copies of this type are not simply its bytes; take "
                  "With()");
  }

  static absl::StatusOr<SharedValue> Wrap(absl::StatusOr<Shared<Cell>> cell) {
    if (!cell.ok()) return cell.status();
    SharedValue value;
    value.cell_ = *std::move(cell);
    return value;
  }

  Cell& CellInUse() const {
    Cell* const cell = cell_.get();
    os::Check(cell != nullptr, "an empty SharedValue<T> was used");
    return *cell;
  }

  Shared<Cell> cell_;
};

}  // namespace cohort

#endif  // COHORT_IPC_SHARED_VALUE_H_
