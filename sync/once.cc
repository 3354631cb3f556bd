// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/once.h"

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "cohort/os/check.h"

namespace cohort::sync_internal {

// The mutex is taken here and freed in End().
OnceCore::Turn OnceCore::Begin(Deadline deadline)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (mu_.held()) os::Fatal("Once: called from inside its own function");
  if (!mu_.try_lock_until(deadline)) return Turn::kNone;
  // Not the poison of the mutex: a function that throws leaves none.
  switch (state_.load(std::memory_order_relaxed)) {
    case kNotYet:
      state_.store(kBegun, std::memory_order_relaxed);
      // The function's stores come after it, for whoever is told of our death.
      std::atomic_signal_fence(std::memory_order_seq_cst);
      return Turn::kFirst;
    case kBegun:
      return Turn::kAgain;
    default:
      mu_.unlock();
      return Turn::kNone;
  }
}

void OnceCore::End(bool ended) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (!mu_.held()) {
    os::Fatal(
        "Once: its function was left by another thread than its runner, such "
        "as a child forked from inside it");
  }
  if (ended) state_.store(kDone, std::memory_order_release);
  mu_.unlock();
}

}  // namespace cohort::sync_internal
