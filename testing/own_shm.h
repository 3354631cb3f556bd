// SPDX-License-Identifier: Apache-2.0
//
// A /dev/shm that only this process and its children see: no other program's
// names come and go in it, and it may be as small as a test wants.
//
//   if (!cohort_testing::MountOwnShm("size=64k")) GTEST_SKIP() << "refused";

#ifndef COHORT_TESTING_OWN_SHM_H_
#define COHORT_TESTING_OWN_SHM_H_

namespace cohort_testing {

// Puts an empty one in place of the other, for the rest of this process's life.
// `options` are those of tmpfs in mount(8). False where a sandbox refuses it or
// the process has several threads, one of a sanitizer's among them; then all is
// as it was.
[[nodiscard]] bool MountOwnShm(const char* options = "");

}  // namespace cohort_testing

#endif  // COHORT_TESTING_OWN_SHM_H_
