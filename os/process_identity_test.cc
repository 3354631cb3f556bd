// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/process_identity.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "cohort/testing/child.h"
#include "cohort/testing/gate.h"
#include "cohort/testing/shared.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::Gate;
using cohort_testing::Shared;

Liveness LivenessOf(uint64_t bits) {
  return ProcessIdentity::FromBits(bits).CheckLiveness();
}

uint64_t Bits(uint64_t start_ticks, pid_t pid) {
  return start_ticks << 22 | static_cast<uint64_t>(pid);
}

TEST(ProcessIdentityTest, IsThePidAndTheStart) {
  const ProcessIdentity self = ProcessIdentity::Self();
  EXPECT_EQ(self.pid(), getpid());
  EXPECT_GT(self.start_ticks(), 0u);
  EXPECT_EQ(self, ProcessIdentity::Self());
  EXPECT_EQ(self, ProcessIdentity::FromBits(self.bits()));
  EXPECT_EQ(self.CheckLiveness(), Liveness::kAlive);
}

TEST(ProcessIdentityTest, AllThreadsHaveOne) {
  const ProcessIdentity self = ProcessIdentity::Self();
  std::thread([&] { EXPECT_EQ(ProcessIdentity::Self(), self); }).join();
}

TEST(ProcessIdentityTest, ManyThreadsMayAskFirst) {
  Child child = Child::Fork([] {
    std::atomic<int> wrong = 0;
    std::thread threads[8];
    for (std::thread& thread : threads) {
      thread = std::thread([&] {
        if (ProcessIdentity::Self().pid() != getpid()) ++wrong;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return wrong.load();
  });
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(ProcessIdentityTest, AForkedChildIsAnother) {
  const ProcessIdentity parent = ProcessIdentity::Self();
  auto differs = [&] {
    const ProcessIdentity self = ProcessIdentity::Self();
    return self.pid() == getpid() && self != parent &&
                   parent.CheckLiveness() == Liveness::kAlive
               ? 0
               : 1;
  };
  EXPECT_EQ(Child::Fork(differs).Wait(), Exited(0));
  for (const bool raw : {false, true}) {
    // Neither runs a pthread_atfork() handler.
    const pid_t pid =
        raw ? static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
            : _Fork();
    if (pid == 0) _exit(differs());
    int status = 1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0) << (raw ? "clone" : "_Fork");
  }
}

TEST(ProcessIdentityTest, AGrandchildIsAThird) {
  const ProcessIdentity first = ProcessIdentity::Self();
  Child child = Child::Fork([&] {
    const ProcessIdentity second = ProcessIdentity::Self();
    Child grandchild = Child::Fork([&] {
      const ProcessIdentity third = ProcessIdentity::Self();
      return third != first && third != second && third.pid() == getpid() ? 0
                                                                          : 1;
    });
    return grandchild.Wait() == Exited(0) ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(ProcessIdentityTest, ExecveKeepsIt) {
  // The shell prints what it was before the exec, and what the kernel says of
  // it now.
  Shared<uint64_t> before;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  Child child = Child::Fork([&] {
    *before = ProcessIdentity::Self().bits();
    dup2(ends[1], STDOUT_FILENO);
    execl("/bin/cat", "cat", "/proc/self/stat", nullptr);
    return 1;
  });
  ASSERT_EQ(child.Wait(), Exited(0));
  char text[1024];
  const ssize_t size = read(ends[0], text, sizeof text);
  ASSERT_GT(size, 0);
  const std::string_view stat(text, static_cast<size_t>(size));
  EXPECT_EQ(ParseStartTicks(stat),
            std::optional(ProcessIdentity::FromBits(*before).start_ticks()));
  EXPECT_EQ(std::atoi(text), ProcessIdentity::FromBits(*before).pid());
  close(ends[0]);
  close(ends[1]);
}

TEST(ProcessIdentityTest, TheDeadAreDead) {
  Shared<uint64_t> who;
  Shared<Gate> gate;
  Child child = Child::Fork([&] {
    *who = ProcessIdentity::Self().bits();
    gate->Pass();
  });
  while (*static_cast<volatile uint64_t*>(who.get()) == 0) sched_yield();
  EXPECT_EQ(LivenessOf(*who), Liveness::kAlive);
  child.Stop();  // Stopped is not dead.
  EXPECT_EQ(LivenessOf(*who), Liveness::kAlive);
  child.Kill(SIGKILL);
  // A zombie: it has ended, and nobody has waited for it.
  siginfo_t info;
  ASSERT_EQ(
      waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT),
      0);
  EXPECT_EQ(LivenessOf(*who), Liveness::kDead);
  (void)child.Wait();
  EXPECT_EQ(LivenessOf(*who), Liveness::kDead);
}

// /proc calls such a process a zombie, too.
TEST(ProcessIdentityTest, AProcessLivesUntilItsLastThreadEnds) {
  Shared<uint64_t> who;
  Shared<Gate> gate;
  Child child = Child::Fork([&] {
    std::thread last([&] {
      gate->Pass();
      _exit(7);
    });
    *who = ProcessIdentity::Self().bits();
    syscall(SYS_exit, 0);  // The first thread only.
  });
  const std::string stat = "/proc/" + std::to_string(child.pid()) + "/stat";
  char state = 0;
  while (state != 'Z') {
    FILE* const file = std::fopen(stat.c_str(), "r");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(std::fscanf(file, "%*d %*s %c", &state), 1);
    std::fclose(file);
    sched_yield();
  }
  EXPECT_EQ(LivenessOf(*who), Liveness::kAlive);
  gate->Open();
  EXPECT_EQ(child.Wait(), Exited(7));
  EXPECT_EQ(LivenessOf(*who), Liveness::kDead);
}

TEST(ProcessIdentityTest, ALaterOwnerOfThePidIsAnother) {
  const ProcessIdentity self = ProcessIdentity::Self();
  EXPECT_EQ(LivenessOf(Bits(self.start_ticks() - 1, self.pid())),
            Liveness::kDead);
  EXPECT_EQ(LivenessOf(Bits(self.start_ticks() + 1, self.pid())),
            Liveness::kDead);
}

TEST(ProcessIdentityTest, TheIdOfAThreadIsNoProcess) {
  Gate gate;
  std::atomic<pid_t> id = 0;
  std::thread thread([&] {
    id = static_cast<pid_t>(syscall(SYS_gettid));
    gate.Pass();
  });
  while (id == 0) sched_yield();
  // That a process once had this number and started at this time is past.
  EXPECT_NE(LivenessOf(Bits(1, id)), Liveness::kAlive);
  gate.Open();
  thread.join();
}

// In a new PID namespace without a mount of its own, /proc/1 is a stranger, which
// started at another time.
TEST(ProcessIdentityTest, AForeignProcIsNotBelieved) {
  Shared<uint64_t> gone;
  const cohort_testing::End end =
      Child::ForkIntoPidNamespace([&] {
        const ProcessIdentity first = ProcessIdentity::Self();
        if (first.pid() != 1) return 1;
        if (first.CheckLiveness() == Liveness::kDead) return 2;
        Child other = Child::Fork([&] {
          *gone = ProcessIdentity::Self().bits();
          return first.CheckLiveness() == Liveness::kDead ? 3 : 0;
        });
        if (other.Wait() != Exited(0)) return 3;
        return LivenessOf(*gone) == Liveness::kDead ? 0 : 4;
      }).Wait();
  if (end == Exited(cohort_testing::kNoNamespace)) GTEST_SKIP() << end;
  EXPECT_EQ(end, Exited(0));
}

TEST(ProcessIdentityTest, NobodyIsUnknown) {
  EXPECT_EQ(ProcessIdentity().CheckLiveness(), Liveness::kUnknown);
  EXPECT_EQ(LivenessOf(Bits(17, 0)), Liveness::kUnknown);
}

TEST(ProcessIdentityTest, WithoutAStartTimeOnlyAbsenceIsDeath) {
  EXPECT_EQ(LivenessOf(Bits(0, getpid())), Liveness::kUnknown);
  Child child = Child::Fork([] {});
  const pid_t pid = child.pid();
  ASSERT_EQ(child.Wait(), Exited(0));
  EXPECT_EQ(LivenessOf(Bits(0, pid)), Liveness::kDead);
}

TEST(ProcessIdentityTest, WithoutDescriptorsTheLivingAreUnknown) {
  Shared<uint64_t> gone;
  ASSERT_EQ(Child::Fork([&] { *gone = ProcessIdentity::Self().bits(); }).Wait(),
            Exited(0));
  const uint64_t parent = ProcessIdentity::Self().bits();
  Child child = Child::Fork([&] {
    rlimit none;
    getrlimit(RLIMIT_NOFILE, &none);
    none.rlim_cur = 0;
    if (setrlimit(RLIMIT_NOFILE, &none) != 0) return 1;
    errno = 77;
    if (LivenessOf(parent) != Liveness::kUnknown) return 2;
    // A death is a fact also where only its shadow is seen.
    if (LivenessOf(*gone) != Liveness::kDead) return 3;
    if (errno != 77) return 4;
    // Its own identity lacks the start, then, but is one.
    return ProcessIdentity::Self().pid() == getpid() ? 0 : 5;
  });
  EXPECT_EQ(child.Wait(), Exited(0));
}

TEST(ProcessIdentityTest, TheNameMayHoldAnything) {
  for (const char* name : {"a b", "a) R 1 (b", ")))", "(", " ) S 1 2 3 4"}) {
    Child child = Child::Fork([&] {
      const ProcessIdentity parent =
          ProcessIdentity::FromBits(Bits(1, getppid()));
      prctl(PR_SET_NAME, name);
      const ProcessIdentity self = ProcessIdentity::Self();
      return self.start_ticks() > 0 &&
                     self.CheckLiveness() == Liveness::kAlive &&
                     parent.CheckLiveness() == Liveness::kDead
                 ? 0
                 : 1;
    });
    EXPECT_EQ(child.Wait(), Exited(0)) << name;
  }
}

TEST(ParseStartTicksTest, FindsTheField) {
  const std::string rest =
      " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n";
  EXPECT_EQ(ParseStartTicks("12 (name)" + rest),
            std::optional<uint64_t>(987654));
  EXPECT_EQ(ParseStartTicks("12 (na) me) R)" + rest),
            std::optional<uint64_t>(987654));
}

TEST(ParseStartTicksTest, RefusesWhatIsCutOrDamaged) {
  const std::string whole =
      "12 (name) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20\n";
  for (size_t size = 0; size < whole.find("987654") + 7; ++size) {
    EXPECT_EQ(ParseStartTicks(whole.substr(0, size)), std::nullopt) << size;
  }
  EXPECT_EQ(ParseStartTicks("no bracket"), std::nullopt);
  std::string damaged = whole;
  damaged[damaged.find("987654")] = 'x';
  EXPECT_EQ(ParseStartTicks(damaged), std::nullopt);
  damaged = whole;
  damaged.replace(damaged.find("987654"), 6, "99999999999999999999999");
  EXPECT_EQ(ParseStartTicks(damaged), std::nullopt);
}

}  // namespace
}  // namespace cohort::os
