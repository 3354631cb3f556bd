// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/spawn.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <utility>

#include "cohort/os/deadline.h"
#include "cohort/os/pidfd.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::cohort_testing::StatusIs;

int ExitCode(const absl::StatusOr<Child>& child) {
  EXPECT_THAT(child, IsOk());
  EXPECT_THAT(WaitPidfd(child->pidfd, Deadline::Infinite()),
              IsOkAndHolds(true));
  const absl::StatusOr<ExitFacts> facts = ReapPidfd(child->pidfd);
  EXPECT_THAT(facts, IsOk());
  return facts->signal != 0 ? -facts->signal : facts->code;
}

SpawnRequest Shell(std::string script) {
  SpawnRequest request;
  request.program = "/bin/sh";
  request.arguments = {"sh", "-c", std::move(script)};
  return request;
}

TEST(SpawnTest, RunsAProgramWithItsArguments) {
  EXPECT_EQ(ExitCode(Spawn(Shell("exit 44"))), 44);
  EXPECT_EQ(ExitCode(Spawn(Shell("kill -9 $$"))), -SIGKILL);
}

TEST(SpawnTest, AProgramThatCannotRunIsAnErrorHere) {
  SpawnRequest request;
  request.program = "/no/such/program";
  request.arguments = {"program"};
  EXPECT_THAT(Spawn(request), StatusIs(absl::StatusCode::kNotFound));
}

TEST(SpawnTest, TheChildHasTheListedDescriptorsAndNoOthers) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);  // Not close-on-exec: as a careless program would.
  const Descriptor read_end(ends[0]);
  const Descriptor write_end(ends[1]);
  const Descriptor null(open("/dev/null", O_RDWR | O_CLOEXEC));
  // Both orders, and one twice: no copy may overwrite one that is to come.
  SpawnRequest request = Shell(
      "for n in $(seq 6 64); do test ! -e /proc/$$/fd/$n || exit 6; done; "
      "test \"$(readlink /proc/$$/fd/3)\" = /dev/null && "
      "test \"$(readlink /proc/$$/fd/5)\" = /dev/null && echo x >&4");
  request.descriptors = {null.get(), write_end.get(), null.get()};
  EXPECT_EQ(ExitCode(Spawn(request)), 0);
  char byte = 0;
  ASSERT_EQ(read(read_end.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
}

TEST(SpawnTest, TheChildBlocksNoSignals) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
  const absl::StatusOr<Child> child =
      Spawn(Shell("grep -q '^SigBlk:.0000000000000000' /proc/self/status"));
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
  EXPECT_EQ(ExitCode(child), 0);
}

TEST(SpawnTest, NoDescriptorsLeftIsAStatus) {
  const Descriptor null(open("/dev/null", O_RDWR | O_CLOEXEC));
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {static_cast<rlim_t>(null.get()), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  SpawnRequest request = Shell("exit 0");
  const absl::Status without = Spawn(request).status();
  request.descriptors = {null.get()};
  const absl::Status with = Spawn(request).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(without, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(with.ok());
}

}  // namespace
}  // namespace cohort::os
