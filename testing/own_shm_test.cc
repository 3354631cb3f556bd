// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/own_shm.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <string>

#include "cohort/testing/child.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

constexpr int kRefused = 77;

TEST(OwnShmTest, IsSmallEmptyAndSeenByNobodyElse) {
  const std::string path = "/dev/shm/own_shm_test." + std::to_string(getpid());
  const End end = Child::Fork([&] {
                    if (!MountOwnShm("size=64k")) return kRefused;
                    struct statvfs facts;
                    EXPECT_EQ(statvfs("/dev/shm", &facts), 0);
                    EXPECT_EQ(facts.f_blocks * facts.f_frsize, 65536u);
                    EXPECT_EQ(facts.f_bfree, facts.f_blocks);
                    // Its maker may use it.
                    const int file =
                        open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
                    EXPECT_GE(file, 0);
                    struct stat mine;
                    EXPECT_EQ(fstat(file, &mine), 0);
                    EXPECT_EQ(mine.st_uid, geteuid());
                    close(file);
                    return 0;
                  }).Wait();
  if (end == Exited(kRefused)) GTEST_SKIP() << "no mount of its own is allowed";
  EXPECT_EQ(end, Exited(0));
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace cohort_testing
