// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/own_shm.h"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace cohort_testing {
namespace {

// In a user namespace nobody is anybody until he is told who he is.
bool RemainMyself(uid_t user, gid_t group) {
  const auto write = [](const char* path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    return file.good();
  };
  const std::string u = std::to_string(user);
  const std::string g = std::to_string(group);
  return write("/proc/self/setgroups", "deny") &&
         write("/proc/self/uid_map", u + " " + u + " 1") &&
         write("/proc/self/gid_map", g + " " + g + " 1");
}

}  // namespace

bool MountOwnShm(const char* options) {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  if (unshare(CLONE_NEWNS) != 0 && (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
                                    !RemainMyself(user, group))) {
    return false;
  }
  return mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options) ==
             0;
}

}  // namespace cohort_testing
