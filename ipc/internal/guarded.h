// SPDX-License-Identifier: Apache-2.0
//
// What SharedValue and SharedArray do alike: calling a user's function with
// something that a Mutex guards, unless a holder has died.
//
//   return CallWith(cell.mu, cell.value, kValue, fn);

#ifndef COHORT_IPC_INTERNAL_GUARDED_H_
#define COHORT_IPC_INTERNAL_GUARDED_H_

#include <atomic>
#include <functional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cohort/serialize/result_of.h"
#include "cohort/sync/mutex.h"

namespace cohort::ipc_internal {

// Copies of it can be handed out and put in. A lock is trivially copyable, too,
// in the eyes of some compilers.
template <typename T>
inline constexpr bool kIsCopied = std::is_trivially_copyable_v<T>&&
    std::is_copy_constructible_v<T>&& std::is_copy_assignable_v<T>;

// The processor reads and writes it as a whole.
template <typename T>
constexpr bool IsAtomic() {
  if constexpr (kIsCopied<T>) {
    return std::atomic_ref<T>::is_always_lock_free;
  } else {
    return false;
  }
}

// What a call of `fn` with a V under a lock gives.
template <typename Fn, typename V>
using WithResult = typename ResultOf<std::invoke_result_t<Fn&, V>>::type;

// DataLoss, with what to do about it. `what` names the type.
absl::Status HolderDied(absl::string_view what);

template <typename Fn, typename V>
WithResult<Fn, V> CallHolding(Fn& fn, V&& view) {
  if constexpr (std::is_void_v<std::invoke_result_t<Fn&, V>>) {
    std::invoke(fn, std::forward<V>(view));
    return absl::OkStatus();
  } else {
    return std::invoke(fn, std::forward<V>(view));
  }
}

template <typename Fn, typename V>
WithResult<Fn, V> CallWith(Mutex& mu, absl::string_view what, Fn& fn,
                           V&& view) {
  const MutexLock lock(mu);
  if (lock.poisoned()) [[unlikely]] {
    return HolderDied(what);
  }
  return CallHolding(fn, std::forward<V>(view));
}

// Likewise, after `repair` where a holder has died.
template <typename Fn, typename Repair, typename V>
WithResult<Fn, V> RepairAndCall(Mutex& mu, Repair& repair, Fn& fn, V&& view) {
  const MutexLock lock(mu, [&] { std::invoke(repair, view); });
  return CallHolding(fn, std::forward<V>(view));
}

}  // namespace cohort::ipc_internal

#endif  // COHORT_IPC_INTERNAL_GUARDED_H_
