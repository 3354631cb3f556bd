// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/spawn.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/pidfd.h"
#include "cohort/os/status.h"

namespace cohort::os {
namespace {

// Owns the two argument objects of posix_spawn.
class SpawnArguments {
 public:
  SpawnArguments() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnArguments() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnArguments(const SpawnArguments&) = delete;
  SpawnArguments& operator=(const SpawnArguments&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

absl::StatusOr<Child> Watched(pid_t pid) {
  Child child;
  child.pid = pid;
  absl::StatusOr<Descriptor> pidfd = OpenPidfd(pid);
  if (!pidfd.ok()) {
    // NotFound: SIGCHLD is ignored, the child has ended and its number may be
    // another's by now. Otherwise it is our child until we collect it.
    if (!absl::IsNotFound(pidfd.status())) {
      kill(pid, SIGKILL);
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
    return pidfd.status();
  }
  child.pidfd = *std::move(pidfd);
  return child;
}

}  // namespace

absl::StatusOr<Child> Spawn(const SpawnRequest& request) {
  SpawnArguments arguments;
  // Copies above all target numbers, so that no dup2 of the list overwrites a
  // source that is still to come. Closed here at the end, in the child at exec.
  std::vector<Descriptor> sources;
  const int count = static_cast<int>(request.descriptors.size());
  const int first_free = kFirstListedDescriptor + count;
  for (int i = 0; i < count; ++i) {
    Descriptor copy(fcntl(request.descriptors[i], F_DUPFD_CLOEXEC, first_free));
    if (!copy.valid()) {
      return ErrnoStatus(errno, "fcntl(F_DUPFD_CLOEXEC)",
                         std::to_string(request.descriptors[i]));
    }
    posix_spawn_file_actions_adddup2(&arguments.actions, copy.get(),
                                     kFirstListedDescriptor + i);
    sources.push_back(std::move(copy));
  }
  posix_spawn_file_actions_addclosefrom_np(&arguments.actions, first_free);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&arguments.attributes, &none);
  posix_spawnattr_setflags(&arguments.attributes, POSIX_SPAWN_SETSIGMASK);

  std::vector<char*> argv;
  for (const std::string& argument : request.arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, request.program.c_str(), &arguments.actions,
                  &arguments.attributes, argv.data(), environ);
  if (error != 0) {
    return ErrnoStatus(error, "posix_spawn", request.program);
  }
  return Watched(pid);
}

absl::StatusOr<Descriptor> AdoptListed(int index) {
  const int number = kFirstListedDescriptor + index;
  if (fcntl(number, F_SETFD, FD_CLOEXEC) != 0) {
    return absl::NotFoundError(
        absl::StrCat("descriptor ", number, " was not handed to this process"));
  }
  return Descriptor(number);
}

absl::StatusOr<Child> Fork() {
  std::cout.flush();
  std::cerr.flush();
  (void)std::fflush(stdout);
  (void)std::fflush(stderr);
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork", "process");
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    return Child{};
  }
  return Watched(pid);
}

}  // namespace cohort::os
