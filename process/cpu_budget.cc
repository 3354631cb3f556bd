// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/cpu_budget.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "cohort/os/cpu.h"

namespace cohort {
namespace process_internal {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// Where a hierarchy of control groups is mounted, and which part of it: a
// container sees its own group as the root, or the host's whole tree.
struct Mount {
  std::string root;   // The group that stands at `point`.
  std::string point;  // A path in the file tree.
  bool v2 = false;
};

// "cpu" is one of the comma-separated words of `list`.
bool NamesCpu(const std::string& list) {
  std::istringstream words(list);
  std::string word;
  while (std::getline(words, word, ',')) {
    if (word == "cpu") return true;
  }
  return false;
}

// The mounts of hierarchies that can hold CPU quotas, from lines such as
// "42 32 0:38 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup
// rw,cpu".
std::vector<Mount> FindMounts(const std::string& root) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string id, parent, device, word, type, source, super_options;
    Mount mount;
    if (!(words >> id >> parent >> device >> mount.root >> mount.point)) {
      continue;
    }
    while (words >> word && word != "-") {
    }
    if (!(words >> type >> source >> super_options)) continue;
    mount.v2 = type == "cgroup2";
    if (mount.v2 || (type == "cgroup" && NamesCpu(super_options))) {
      mounts.push_back(mount);
    }
  }
  return mounts;
}

// cpu.max holds "200000 100000" or "max 100000": microseconds of processor time
// for each period.
double QuotaV2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || !(period > 0)) {
    return kNoLimit;
  }
  std::istringstream number(quota);
  double microseconds = 0;
  return number >> microseconds && microseconds > 0 ? microseconds / period
                                                    : kNoLimit;
}

// The same in two files; -1 is no quota.
double QuotaV1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double quota = 0;
  double period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || !(quota > 0) ||
      !(period > 0)) {
    return kNoLimit;
  }
  return quota / period;
}

// The least quota of `group` and of all groups around it that `mount` shows.
double LeastQuota(const std::string& root, const Mount& mount,
                  std::string group) {
  // Below the mount's own root, or not visible through it: then the mount point
  // itself is all that is known.
  if (mount.root != "/") {
    if (group.compare(0, mount.root.size(), mount.root) == 0) {
      group.erase(0, mount.root.size());
    } else {
      group.clear();
    }
  }
  double least = kNoLimit;
  for (;;) {
    const std::string folder = root + mount.point + group;
    least = std::min(least, mount.v2 ? QuotaV2(folder) : QuotaV1(folder));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.erase(slash);
  }
}

}  // namespace

int CpuQuota(const std::string& root) {
  const std::vector<Mount> mounts = FindMounts(root);
  if (mounts.empty()) return 0;
  double least = kNoLimit;
  // "0::/user.slice" (v2) and "4:cpu,cpuacct:/docker/abc" (v1).
  std::ifstream file(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second =
        first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string group = line.substr(second + 1);
    while (!group.empty() && group.back() == '/') group.pop_back();
    for (const Mount& mount : mounts) {
      if (mount.v2 ? controllers.empty() : NamesCpu(controllers)) {
        least = std::min(least, LeastQuota(root, mount, group));
      }
    }
  }
  if (least == kNoLimit) return 0;
  constexpr double kMost = std::numeric_limits<int>::max();
  return static_cast<int>(std::clamp(std::ceil(least), 1.0, kMost));
}

}  // namespace process_internal

int UsableCpus() {
  const int allowed = os::UsableCpus();
  const int quota = process_internal::CpuQuota("");
  return quota == 0 ? allowed : std::min(allowed, quota);
}

}  // namespace cohort
