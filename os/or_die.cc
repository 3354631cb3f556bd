// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/or_die.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "cohort/os/check.h"

namespace cohort::os {

void DieBecause(const absl::Status& status, const char* file, int line) {
  const std::string text =
      absl::StrCat(file, ":", line, ": ", status.ToString());
  Fatal(text.c_str());
}

}  // namespace cohort::os
