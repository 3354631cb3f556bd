// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/ordinary_user.h"

#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace cohort_testing {
namespace {

constexpr unsigned kNobody = 65534;

}  // namespace

bool BecomeOrdinaryUser() {
  if (geteuid() != 0) return true;
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0) {
    return false;
  }
  // A process that has changed its user does not own its files in /proc, until
  // it says that they hold no secrets. Its parent, too, is another's then.
  return prctl(PR_SET_DUMPABLE, 1) == 0;
}

}  // namespace cohort_testing
