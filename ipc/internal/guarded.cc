// SPDX-License-Identifier: Apache-2.0

#include "cohort/ipc/internal/guarded.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace cohort::ipc_internal {

absl::Status HolderDied(absl::string_view what) {
  return absl::DataLossError(absl::StrCat(
      what,
      ": a process died while it used this, so it may be half-written; pass "
      "With() a repair as well, or Store() all of it anew"));
}

}  // namespace cohort::ipc_internal
