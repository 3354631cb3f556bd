// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/limits/raw_process.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace cohort_benchmarks {
namespace {

absl::Status Failed(const char* call, int error) {
  return absl::UnavailableError(absl::StrCat(call, ": ", strerror(error)));
}

absl::Status Wait(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return Failed("waitpid", errno);
  if (status == 0) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("the child ended with ", status));
}

}  // namespace

absl::Status ForkAndWait() {
  const pid_t pid = fork();
  if (pid == 0) _exit(0);
  if (pid < 0) return Failed("fork", errno);
  return Wait(pid);
}

absl::Status SpawnAndWait(const char* path, const char* argument) {
  char* const argv[] = {const_cast<char*>(path), const_cast<char*>(argument),
                        nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, path, nullptr, nullptr, argv, environ);
  if (error != 0) return Failed("posix_spawn", error);
  return Wait(pid);
}

}  // namespace cohort_benchmarks
