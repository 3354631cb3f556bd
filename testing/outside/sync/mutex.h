// SPDX-License-Identifier: Apache-2.0
//
// A header whose path a header of Cohort has too, below its own root.

#ifndef OUTSIDE_SYNC_MUTEX_H_
#define OUTSIDE_SYNC_MUTEX_H_

namespace outside {

// Counts those who went through.
struct Turnstile {
  int passed = 0;
};

}  // namespace outside

#endif  // OUTSIDE_SYNC_MUTEX_H_
