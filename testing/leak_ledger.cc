// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/leak_ledger.h"

#include <dirent.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <string_view>
#include <thread>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/testing/asleep.h"

namespace cohort_testing {
namespace {

std::vector<std::string> Names(const char* folder) {
  std::vector<std::string> names;
  DIR* const dir = opendir(folder);
  if (dir == nullptr) return names;
  while (const dirent* entry = readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  closedir(dir);
  return names;
}

}  // namespace

LeakLedger::LeakLedger(LeakLedgerOptions options)
    : options_(std::move(options)) {
  // A sanitizer starts a thread of its own together with the program's first.
  std::thread([] {}).join();
  before_ = Take();
}

LeakLedger::Snapshot LeakLedger::Take() const {
  Snapshot snapshot;
  // The list is complete before a link is read, and the descriptor of the list
  // itself has no link any more.
  for (const std::string& name : Names("/proc/self/fd")) {
    std::array<char, 512> target;
    const ssize_t size = readlink(("/proc/self/fd/" + name).c_str(),
                                  target.data(), target.size());
    if (size < 0) continue;
    snapshot["descriptor " + name + " -> " +
             std::string(target.data(), static_cast<size_t>(size))]++;
  }
  // "7f…-7f… rw-s 00000000 00:01 1053   /memfd:queue (deleted)"
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t access = line.find(' ');
    if (access == std::string::npos || line.size() < access + 5) continue;
    if (line[access + 4] != 's' && line.find("/memfd:") == std::string::npos) {
      continue;
    }
    const size_t name = line.find('/');
    snapshot["shared mapping " + line.substr(0, access) + " of " +
             (name == std::string::npos ? "?" : line.substr(name))]++;
  }
  for (const std::string& name : Names("/dev/shm")) {
    if (name.find(options_.shm_name_part) != std::string::npos) {
      snapshot["name /dev/shm/" + name]++;
    }
  }
  for (const pid_t pid : DescendantsOf(getpid())) {
    snapshot["child " + DescribeProcess(pid)]++;
  }
  for (const pid_t thread : ThreadsOf(getpid())) {
    snapshot["thread " + std::to_string(thread)]++;
  }
  return snapshot;
}

::testing::AssertionResult LeakLedger::Check() const {
  const cohort::Deadline until = cohort::Deadline::After(options_.patience);
  for (;;) {
    std::string more;
    for (const auto& [what, count] : Take()) {
      const auto before = before_.find(what);
      if (before == before_.end() || before->second < count) {
        more += "\n  " + what;
      }
    }
    if (more.empty()) return ::testing::AssertionSuccess();
    if (until.Passed()) {
      return ::testing::AssertionFailure() << "left behind:" << more;
    }
    const timespec pause = {.tv_sec = 0, .tv_nsec = 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace cohort_testing
