// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/asleep.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>

namespace cohort_testing {
namespace {

// Since 5.16; the headers of an older C library do not know it.
constexpr long kFutexWaitv = 449;

// The beginning of a file in /proc; empty where it cannot be read.
std::string ReadProc(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char text[1024];
  const ssize_t size = read(fd, text, sizeof(text));
  close(fd);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "";
}

struct Stat {
  char state = 'X';  // 'X' is "dead" in the kernel's own alphabet.
  pid_t parent = 0;
  std::string name;
};

Stat ReadStat(pid_t thread) {
  const std::string text =
      ReadProc("/proc/" + std::to_string(thread) + "/stat");
  // The name is in parentheses and may contain any character, ')' as well.
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos ||
      close + 4 > text.size()) {
    return {};
  }
  return {.state = text[close + 2],
          .parent = std::atoi(text.c_str() + close + 4),
          .name = text.substr(open + 1, close - open - 1)};
}

bool Ended(pid_t thread) {
  const char state = ReadStat(thread).state;
  return state == 'X' || state == 'Z';
}

// The entries of a folder in /proc whose names are numbers.
std::vector<pid_t> Numbers(const std::string& folder) {
  std::vector<pid_t> numbers;
  DIR* const dir = opendir(folder.c_str());
  if (dir == nullptr) return numbers;
  while (const dirent* entry = readdir(dir)) {
    if (std::isdigit(static_cast<unsigned char>(entry->d_name[0]))) {
      numbers.push_back(std::atoi(entry->d_name));
    }
  }
  closedir(dir);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

template <typename Predicate>
bool Await(pid_t thread, cohort::Deadline until, Predicate there) {
  for (int attempt = 0;; ++attempt) {
    if (there()) return true;
    if (until.Passed() || Ended(thread)) return there();
    if (attempt < 200) {
      sched_yield();
    } else {
      const timespec pause = {.tv_sec = 0, .tv_nsec = 100'000};
      nanosleep(&pause, nullptr);
    }
  }
}

}  // namespace

std::optional<long> SleepsIn(pid_t thread) {
  // "202 0x7f… …" where it sleeps in a system call, "-1 …" where it sleeps for
  // another reason, "running" where it does not sleep.
  const std::string text =
      ReadProc("/proc/" + std::to_string(thread) + "/syscall");
  if (text.empty() || !std::isdigit(static_cast<unsigned char>(text[0]))) {
    return std::nullopt;
  }
  // Stopped threads stay in their system call, but nothing can wake them.
  if (ReadStat(thread).state != 'S') return std::nullopt;
  return std::atol(text.c_str());
}

bool AsleepInFutex(pid_t thread) {
  const std::optional<long> call = SleepsIn(thread);
  // NOLINTNEXTLINE(misc-redundant-expression): they are two numbers.
  return call == SYS_futex || call == kFutexWaitv;
}

bool AwaitAsleepInFutex(pid_t thread, cohort::Deadline until) {
  return Await(thread, until, [&] { return AsleepInFutex(thread); });
}

bool AwaitAsleepIn(pid_t thread, long system_call, cohort::Deadline until) {
  return Await(thread, until, [&] { return SleepsIn(thread) == system_call; });
}

std::vector<pid_t> ThreadsOf(pid_t process) {
  return Numbers("/proc/" + std::to_string(process) + "/task");
}

std::vector<pid_t> DescendantsOf(pid_t process) {
  std::multimap<pid_t, pid_t> children;
  for (const pid_t pid : Numbers("/proc")) {
    children.emplace(ReadStat(pid).parent, pid);
  }
  std::vector<pid_t> found;
  const auto add_children_of = [&](pid_t parent) {
    const auto [begin, end] = children.equal_range(parent);
    for (auto it = begin; it != end; ++it) found.push_back(it->second);
  };
  add_children_of(process);
  for (size_t i = 0; i < found.size(); ++i) add_children_of(found[i]);
  return found;
}

std::string DescribeProcess(pid_t process) {
  const Stat stat = ReadStat(process);
  std::string text = std::to_string(process) + " (" + stat.name + ") ";
  text += stat.state;
  for (const pid_t thread : ThreadsOf(process)) {
    text += ", thread " + std::to_string(thread);
    const std::optional<long> call = SleepsIn(thread);
    text += call.has_value() ? " in system call " + std::to_string(*call)
                             : " not asleep";
    if (AsleepInFutex(thread)) text += " (futex)";
  }
  return text;
}

}  // namespace cohort_testing
