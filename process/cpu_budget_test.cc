// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/cpu_budget.h"

#include <sched.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace cohort {
namespace {

// A file tree with what the kernel would show.
class CpuQuotaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "/quota_" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  int Quota() const { return process_internal::CpuQuota(root_); }

 private:
  std::string root_;
};

constexpr char kMountV2[] =
    "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
constexpr char kMountV1[] =
    "24 18 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    "33 30 0:29 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup "
    "rw,memory\n"
    "35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 master:4 - cgroup "
    "cgroup rw,cpu,cpuacct\n";

TEST_F(CpuQuotaTest, NothingToReadIsNoLimit) { EXPECT_EQ(Quota(), 0); }

TEST_F(CpuQuotaTest, V2RoundsUp) {
  Write("/proc/self/mountinfo", kMountV2);
  Write("/proc/self/cgroup", "0::/app\n");
  Write("/sys/fs/cgroup/app/cpu.max", "250000 100000\n");
  EXPECT_EQ(Quota(), 3);
  Write("/sys/fs/cgroup/app/cpu.max", "1000 100000\n");
  EXPECT_EQ(Quota(), 1);
  Write("/sys/fs/cgroup/app/cpu.max", "400000 200000\n");
  EXPECT_EQ(Quota(), 2);
}

TEST_F(CpuQuotaTest, V2WithoutALimit) {
  Write("/proc/self/mountinfo", kMountV2);
  Write("/proc/self/cgroup", "0::/app\n");
  Write("/sys/fs/cgroup/app/cpu.max", "max 100000\n");
  EXPECT_EQ(Quota(), 0);
}

TEST_F(CpuQuotaTest, V2TakesTheLeastOfAllGroupsAround) {
  Write("/proc/self/mountinfo", kMountV2);
  Write("/proc/self/cgroup", "0::/slice/app/worker\n");
  Write("/sys/fs/cgroup/slice/cpu.max", "200000 100000\n");
  Write("/sys/fs/cgroup/slice/app/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/slice/app/worker/cpu.max", "800000 100000\n");
  EXPECT_EQ(Quota(), 2);
}

TEST_F(CpuQuotaTest, V2InAContainerWhoseGroupIsTheRoot) {
  Write("/proc/self/mountinfo", kMountV2);
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_EQ(Quota(), 2);
}

TEST_F(CpuQuotaTest, V1) {
  Write("/proc/self/mountinfo", kMountV1);
  Write("/proc/self/cgroup", "5:memory:/other\n4:cpuacct,cpu:/docker/abc\n");
  const std::string group = "/sys/fs/cgroup/cpu,cpuacct/docker/abc";
  Write(group + "/cpu.cfs_quota_us", "350000\n");
  Write(group + "/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), 4);
  Write(group + "/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(Quota(), 0);
}

TEST_F(CpuQuotaTest, V1WhereTheMountShowsTheContainersOwnGroup) {
  Write("/proc/self/mountinfo",
        "35 30 0:31 /docker/abc /sys/fs/cgroup/cpu ro master:4 - cgroup cgroup "
        "rw,cpu\n");
  Write("/proc/self/cgroup", "4:cpu:/docker/abc\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), 2);
}

TEST_F(CpuQuotaTest, NonsenseIsNoLimit) {
  Write("/proc/self/mountinfo", std::string("a b\n- \n") + kMountV2);
  Write("/proc/self/cgroup", "no colons\n0:one\n0::/app\n");
  for (const char* text : {"", "x y", "100000", "0 100000", "100000 0",
                           "-5 100000", "nan 100000"}) {
    Write("/sys/fs/cgroup/app/cpu.max", text);
    EXPECT_EQ(Quota(), 0) << text;
  }
}

TEST(UsableCpusTest, FollowsTheAffinityMask) {
  const int all = UsableCpus();
  EXPECT_GE(all, 1);
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_LE(all, CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &before)) {
      CPU_SET(i, &one);
      break;
    }
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(UsableCpus(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

}  // namespace
}  // namespace cohort
