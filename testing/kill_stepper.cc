// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/kill_stepper.h"

#include <execinfo.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "cohort/os/deadline.h"
#include "cohort/testing/asleep.h"
#include "cohort/testing/child.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/symbol.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

#ifndef __x86_64__
#error "The kill stepper knows the registers of x86-64 only."
#endif

namespace cohort_testing {
namespace {

constexpr int kMaxSleepers = 32;
constexpr int kMaxMessages = 8;
constexpr int kMaxFrames = 16;
constexpr int kHungStatus = 104;  // Of a checker that ran into its time limit.

enum Phase : uint32_t { kNotBegun, kBegun, kReturned };

// What the stepper and its processes tell each other; shared memory.
struct Control {
  // Of the victim, or of the recoverer.
  std::atomic<uint32_t> phase;
  std::atomic<uint32_t> counting;    // The trap flag's steps count.
  std::atomic<uint64_t> killed_at;   // An address.
  std::atomic<int32_t> trace_error;  // An errno: ptrace(2) is refused.
  // Futex words, 1 when the sleeper's body has returned.
  std::atomic<uint32_t> returned[kMaxSleepers];
  // Of the checker.
  std::atomic<int32_t> messages;
  char message[kMaxMessages][1024];
  std::atomic<int32_t> frames;
  void* frame[kMaxFrames];
};

// How the victim steps itself. Plain variables: the trap handler reads them in
// the very thread that wrote them.
Control* g_control = nullptr;
int64_t g_steps_left = 0;
pid_t g_victim = 0;

// Runs before the instruction that the trapped one left to do.
void OnTrap(int, siginfo_t*, void* context) {
  if (g_control->counting.load(std::memory_order_relaxed) == 0) return;
  if (g_steps_left == 0) {
    g_control->killed_at = static_cast<uint64_t>(
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
    syscall(SYS_kill, g_victim, SIGKILL);
  }
  --g_steps_left;
}

// The stack below the pointer may be in use by the function this is inlined
// into (its red zone), so step over it.
[[gnu::always_inline]] inline void SetTrapFlag() {
  asm volatile(
      "lea -128(%%rsp), %%rsp\n"
      "pushfq\n"
      "orq $0x100, (%%rsp)\n"
      "popfq\n"
      "lea 128(%%rsp), %%rsp\n" ::
          : "memory", "cc");
}

[[gnu::always_inline]] inline void Breakpoint() {
  asm volatile("int3" ::: "memory");
}

// Sets the trap flag of a child that sleeps in a system call, which it resumes
// afterwards. False where ptrace(2) is refused.
bool SetTrapFlagOf(pid_t child) {
  if (ptrace(PTRACE_SEIZE, child, nullptr, nullptr) != 0) return false;
  ptrace(PTRACE_INTERRUPT, child, nullptr, nullptr);
  siginfo_t info = {};
  while (waitid(P_PID, static_cast<id_t>(child), &info,
                WSTOPPED | WEXITED | WNOWAIT) != 0 &&
         errno == EINTR) {
  }
  // If it has ended instead, whoever waits for its end will see that.
  if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) return true;
  constexpr size_t kFlags = offsetof(user, regs.eflags);
  const long flags = ptrace(PTRACE_PEEKUSER, child, kFlags, nullptr);
  ptrace(PTRACE_POKEUSER, child, kFlags, flags | 0x100);
  ptrace(PTRACE_DETACH, child, nullptr, nullptr);
  return true;
}

// The checker's time is over: says where it is, and ends it.
void OnCheckerAlarm(int) {
  g_control->frames = backtrace(g_control->frame, kMaxFrames);
  _exit(kHungStatus);
}

// Sends SIGALRM after `limit` of real time. Children do not inherit it.
void ArmTimer(std::chrono::milliseconds limit, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(SIGALRM, &action, nullptr);
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  sigprocmask(SIG_UNBLOCK, &alarm, nullptr);
  const auto microseconds = std::max<int64_t>(limit.count(), 1) * 1000;
  itimerval timer = {};
  timer.it_value.tv_sec = microseconds / 1'000'000;
  timer.it_value.tv_usec = microseconds % 1'000'000;
  setitimer(ITIMER_REAL, &timer, nullptr);
}

// Forks; the child dies with its parent.
pid_t ForkBound() {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    std::perror("cohort_testing::KillStepper: fork");
    std::abort();
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(kLostParent);
  }
  return pid;
}

End Reap(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
  }
  // A killed process may still report the stop it was in.
  if (WIFSTOPPED(status)) return Reap(pid);
  return End::FromWaitStatus(status);
}

// While it lives, the calling thread and the processes it forks stay on one
// CPU: a victim and the one who traces it take turns, and waking an idle
// processor costs more than a turn.
class OneCpu final {
 public:
  OneCpu() {
    sched_getaffinity(0, sizeof(all_), &all_);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
  }
  ~OneCpu() { Leave(); }
  void Leave() const { sched_setaffinity(0, sizeof(all_), &all_); }

 private:
  cpu_set_t all_;
};

// The instructions of one run of an operation, in order.
class Path final {
 public:
  void Add(uint64_t address) {
    if (!addresses_.empty() && addresses_.back() == address) {
      repeated_.insert(address);
    }
    occurrence_.push_back(seen_[address]++);
    addresses_.push_back(address);
  }

  int64_t size() const { return static_cast<int64_t>(addresses_.size()); }
  uint64_t operator[](int64_t n) const { return addresses_[Index(n)]; }

  // How to come to instruction n with few stops: run to the `hits`-th pass of
  // instruction `from`, then go on by single steps.
  struct Route {
    int64_t from = 0;
    int64_t hits = 0;  // 0: step from the beginning.
  };
  Route RouteTo(int64_t n) const {
    Route best;
    int64_t stops = n;
    for (int64_t from = n; from > 0 && n - from < stops; --from) {
      // The processor stops at a repeated string instruction once or each
      // time around, as it likes: no place for a breakpoint.
      if (repeated_.contains(addresses_[Index(from)])) continue;
      const int64_t hits = occurrence_[Index(from)] + 1;
      if (hits + (n - from) < stops) {
        stops = hits + (n - from);
        best = {.from = from, .hits = hits};
      }
    }
    return best;
  }

 private:
  static size_t Index(int64_t n) { return static_cast<size_t>(n); }

  std::vector<uint64_t> addresses_;
  std::vector<int64_t> occurrence_;  // Earlier ones of the same address.
  std::unordered_map<uint64_t, int64_t> seen_;
  std::unordered_set<uint64_t> repeated_;
};

// How a run that should end before the n-th instruction did end.
struct Outcome {
  enum Kind {
    kKilled,    // There.
    kFinished,  // It has fewer instructions; killed after it had returned.
    kDiverged,  // It took another way; killed somewhere.
    kAsleep,    // It blocks before that; killed in its sleep.
    kFailed,    // `failure` says how.
  };
  Kind kind = kKilled;
  uint64_t address = 0;  // Of the instruction it died before, where known.
  std::string failure = {};
};

Outcome Failed(std::string failure) {
  return {.kind = Outcome::kFailed, .failure = std::move(failure)};
}

std::string Text(const End& end) {
  std::ostringstream out;
  out << end;
  return out.str();
}

// A victim under ptrace(2). It stops before the first instruction of the
// operation and after the last.
class TracedVictim final {
 public:
  explicit TracedVictim(pid_t pid) : pid_(pid) {}
  TracedVictim(const TracedVictim&) = delete;
  TracedVictim& operator=(const TracedVictim&) = delete;
  // Kills it.
  ~TracedVictim() {
    if (end_.has_value()) return;
    kill(pid_, SIGKILL);
    Reap(pid_);
  }

  // Blocks until it stops at a trap. Other signals are handed to it. False when
  // it ended or ran out of time instead; `end` and `hung` say which.
  bool AwaitTrap(int request) {
    for (;;) {
      int status = 0;
      if (waitpid(pid_, &status, __WALL) != pid_) {
        if (errno == EINTR) continue;
        end_ = Exited(-1);
        return false;
      }
      if (!WIFSTOPPED(status)) {
        end_ = End::FromWaitStatus(status);
        return false;
      }
      const int signal = WSTOPSIG(status);
      if (signal == SIGTRAP) return true;
      if (signal == SIGALRM) {
        hung_ = true;
        return false;
      }
      ptrace(static_cast<__ptrace_request>(request), pid_, nullptr,
             static_cast<long>(signal));
    }
  }

  bool Step() {
    ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr);
    return AwaitTrap(PTRACE_SINGLESTEP);
  }
  bool Continue() {
    ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
    return AwaitTrap(PTRACE_CONT);
  }

  // Of the instruction that comes next.
  uint64_t Address() const {
    return static_cast<uint64_t>(
        ptrace(PTRACE_PEEKUSER, pid_, offsetof(user, regs.rip), nullptr));
  }

  // Makes Continue() stop before the instruction at `address`; 0 for no such
  // stop. False where the machine has no breakpoints to give.
  bool SetBreakpoint(uint64_t address) {
    const auto poke = [&](int number, uint64_t value) {
      return ptrace(PTRACE_POKEUSER, pid_,
                    offsetof(user, u_debugreg) +
                        static_cast<size_t>(number) * sizeof(long),
                    value) == 0;
    };
    if (address == 0) return poke(7, 0);
    return poke(0, address) && poke(7, 1);
  }

  bool hung() const { return hung_; }
  const std::optional<End>& end() const { return end_; }

 private:
  const pid_t pid_;
  bool hung_ = false;
  std::optional<End> end_;
};

}  // namespace

bool KillPoint::SleeperReturned(size_t sleeper) const {
  const auto* const control = static_cast<const Control*>(control_);
  return sleeper < kMaxSleepers && control->returned[sleeper] != 0;
}

bool KillPoint::AwaitSleeper(size_t sleeper, cohort::Deadline until) const {
  auto* const control = static_cast<Control*>(control_);
  while (!SleeperReturned(sleeper)) {
    if (sleeper >= kMaxSleepers || until.Passed()) return false;
    // Short sleeps: a sleeper that is killed wakes nobody.
    const timespec pause = {.tv_sec = 0, .tv_nsec = 1'000'000};
    syscall(SYS_futex, &control->returned[sleeper], FUTEX_WAIT, 0, &pause,
            nullptr, 0);
  }
  return true;
}

std::ostream& operator<<(std::ostream& out, const KillPoint& point) {
  if (point.asleep_) {
    out << "asleep";
  } else {
    if (point.woken_) out << "woken, ";
    out << "instruction " << point.instruction_;
    if (point.finished_) out << " (returned)";
  }
  if (point.recovery_instruction_ >= 0) {
    out << ", recoverer's instruction " << point.recovery_instruction_;
    if (point.recovery_finished_) out << " (returned)";
  }
  return out;
}

// Steps one scenario.
class KillStepper final {
 public:
  KillStepper(const KillScenario& scenario, const KillOptions& options)
      : scenario_(scenario), options_(options) {
    if (full_) options_.stride = 1;
    g_control = control_.get();
    report_.name = scenario.name;
    report_.variants = 1;
    // Its first call loads a library, which is no business of a checker.
    void* frame[1];
    backtrace(frame, 1);
  }

  KillReport Run() {
    const int64_t begin = cohort::os::NowNanoseconds();
    trap_flag_ =
        options_.mode == StepMode::kTrapFlag || scenario_.while_blocked;
    std::vector<FirstKill> first_kills =
        scenario_.while_blocked ? StepBlocking() : StepOperation();
    if (scenario_.recover) StepRecoverer(Spread(std::move(first_kills)));
    if (report_.points == 0) Complain("no instruction was stepped", {}, 0);
    if (report_.diverged > report_.points) {
      Complain("most victims took another way than the recorded one", {}, 0);
    }
    for (auto& [message, violation] : violations_) {
      report_.details.push_back(violation);
    }
    std::sort(report_.details.begin(), report_.details.end(),
              [](const KillViolation& a, const KillViolation& b) {
                return a.count > b.count;
              });
    report_.seconds =
        static_cast<double>(cohort::os::NowNanoseconds() - begin) / 1e9;
    return std::move(report_);
  }

 private:
  // A point in the operation, to come back to.
  struct FirstKill {
    enum Stage { kFromBegin, kAsleep, kWoken };
    Stage stage = kFromBegin;
    int64_t instruction = 0;
  };
  using Function = std::function<void()>;

  // --- Single victims ---

  // Becomes the victim: the operation, with an end mark, and its death.
  [[noreturn]] void RunTraced(const Function& prepare,
                              const Function& operation) {
    ArmTimer(options_.victim_limit, SIG_DFL);
    if (prepare) prepare();
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
      control_->trace_error = errno;
      _exit(0);
    }
    control_->phase = kBegun;
    Breakpoint();
    operation();
    control_->phase = kReturned;
    Breakpoint();
    _exit(0);
  }

  // From when on a victim steps itself, and from when on it counts the steps.
  enum class Begin {
    kAtOnce,           // Both.
    kCountsWhenAsked,  // Counts when the word `counting` is set.
    kStepsWhenAsked,   // Likewise, and steps when its trap flag is set.
  };

  [[noreturn]] void RunSelfStepped(const Function& prepare,
                                   const Function& operation, int64_t n,
                                   Begin begin) {
    ArmTimer(options_.victim_limit, SIG_DFL);
    if (prepare) prepare();
    g_steps_left = n;
    g_victim = getpid();
    control_->counting = begin == Begin::kAtOnce ? 1 : 0;
    struct sigaction action = {};
    action.sa_sigaction = &OnTrap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, nullptr);
    control_->phase = kBegun;
    if (begin != Begin::kStepsWhenAsked) SetTrapFlag();
    operation();
    control_->phase = kReturned;
    for (;;) kill(g_victim, SIGKILL);
  }

  // Runs the operation to its n-th instruction, or to its end, and kills it.
  Outcome KillAt(const Function& prepare, const Function& operation,
                 int64_t n) {
    if (trap_flag_) {
      const pid_t victim =
          ForkSelfStepped(prepare, operation, n, Begin::kAtOnce);
      return EndOfSelfStepped(Reap(victim));
    }
    Outcome outcome;
    for (int attempt = 0; attempt < 3; ++attempt) {
      outcome = TraceTo(*path_, prepare, operation, n);
      if (outcome.kind != Outcome::kDiverged || attempt == 2) break;
      // The state has been touched, so begin anew.
      if (!World()) return Failed("");
    }
    return outcome;
  }

  pid_t ForkSelfStepped(const Function& prepare, const Function& operation,
                        int64_t n, Begin begin) {
    control_->phase = kNotBegun;
    control_->killed_at = 0;
    const pid_t pid = ForkBound();
    if (pid == 0) RunSelfStepped(prepare, operation, n, begin);
    return pid;
  }

  Outcome EndOfSelfStepped(const End& end) {
    if (end == KilledBy(SIGKILL)) {
      if (control_->phase == kReturned) return {.kind = Outcome::kFinished};
      return {.kind = Outcome::kKilled, .address = control_->killed_at};
    }
    return Failed(Describe("the victim", end));
  }

  std::string Describe(const char* who, const End& end) {
    if (end == KilledBy(SIGALRM)) {
      ++hangs_;
      return std::string(who) + " hangs";
    }
    return std::string(who) +
           (control_->phase == kNotBegun ? " ends before the operation begins: "
                                         : " ends by itself: ") +
           Text(end);
  }

  std::string Describe(const TracedVictim& victim) {
    return Describe("the victim",
                    victim.hung() ? KilledBy(SIGALRM) : *victim.end());
  }

  // Forks a traced victim, which stops before the operation.
  std::unique_ptr<TracedVictim> ForkTraced(const Function& prepare,
                                           const Function& operation) {
    control_->phase = kNotBegun;
    const pid_t pid = ForkBound();
    if (pid == 0) RunTraced(prepare, operation);
    return std::make_unique<TracedVictim>(pid);
  }

  // Writes the path down, one step after the other. Nothing where that failed;
  // where ptrace(2) is refused, trap_flag_ is set.
  std::optional<Path> Record(const Function& prepare,
                             const Function& operation) {
    if (!World()) return std::nullopt;
    const auto victim = ForkTraced(prepare, operation);
    if (!victim->AwaitTrap(PTRACE_CONT)) {
      if (control_->trace_error != 0) {
        UseTrapFlag("ptrace(2) is refused here: ");
      } else {
        Complain(Describe(*victim), {}, 0);
      }
      return std::nullopt;
    }
    const uint64_t probe = victim->Address();
    if (!victim->SetBreakpoint(probe) || !victim->SetBreakpoint(0)) {
      control_->trace_error = errno;
      UseTrapFlag("no hardware breakpoints here: ");
      return std::nullopt;
    }
    Path path;
    while (control_->phase != kReturned) {
      path.Add(victim->Address());
      if (!victim->Step()) {
        Complain(victim->hung()
                     ? "the operation blocks (see while_blocked), or has more "
                       "instructions than can be stepped in its time"
                     : Describe(*victim),
                 {}, victim->end().has_value() ? 0 : victim->Address());
        return std::nullopt;
      }
    }
    return path;
  }

  void UseTrapFlag(const char* why) {
    std::cout << "kill stepper: " << why << std::strerror(control_->trace_error)
              << "; the victims step themselves" << std::endl;
    trap_flag_ = true;
  }

  Outcome TraceTo(const Path& path, const Function& prepare,
                  const Function& operation, int64_t n) {
    const auto victim = ForkTraced(prepare, operation);
    if (!victim->AwaitTrap(PTRACE_CONT)) return Failed(Describe(*victim));
    if (n >= path.size()) {
      if (!victim->Continue()) return Failed(Describe(*victim));
      return {.kind = control_->phase == kReturned ? Outcome::kFinished
                                                   : Outcome::kDiverged};
    }
    const Path::Route route = path.RouteTo(n);
    int64_t at = 0;
    if (route.hits > 0) {
      victim->SetBreakpoint(path[route.from]);
      for (int64_t hit = 0; hit < route.hits; ++hit) {
        if (!victim->Continue()) return Failed(Describe(*victim));
        if (control_->phase == kReturned) return {.kind = Outcome::kDiverged};
      }
      victim->SetBreakpoint(0);
      at = route.from;
    }
    for (; at < n; ++at) {
      if (!victim->Step()) return Failed(Describe(*victim));
      if (control_->phase == kReturned) return {.kind = Outcome::kDiverged};
    }
    const uint64_t address = victim->Address();
    return {.kind = address == path[n] ? Outcome::kKilled : Outcome::kDiverged,
            .address = address};
  }

  // The victim sleeps in some system call; false when it has died (or failed to
  // do either, and been killed).
  bool AwaitAsleepOrDead(pid_t victim) {
    int seen = 0;
    for (;;) {
      siginfo_t info = {};
      waitid(P_PID, static_cast<id_t>(victim), &info,
             WEXITED | WNOHANG | WNOWAIT);
      if (info.si_pid == victim) return false;
      // Twice: once may be a moment's wait inside a system call.
      seen = SleepsIn(victim).has_value() ? seen + 1 : 0;
      if (seen == 2) return true;
      sched_yield();
    }
  }

  // Brings an operation that blocks to the given point and kills it. Its
  // event happens in any case, after the death unless the victim must wake.
  Outcome KillBlocking(const FirstKill& kill_at) {
    const bool woken = kill_at.stage == FirstKill::kWoken;
    const int64_t steps =
        kill_at.stage == FirstKill::kAsleep ? INT64_MAX : kill_at.instruction;
    // The way to sleep may be long, and is not stepped if that can be avoided.
    const Begin begin = !woken     ? Begin::kAtOnce
                        : refused_ ? Begin::kCountsWhenAsked
                                   : Begin::kStepsWhenAsked;
    const pid_t victim =
        ForkSelfStepped(scenario_.prepare, scenario_.operation, steps, begin);
    bool asleep = AwaitAsleepOrDead(victim);
    if (asleep && begin == Begin::kStepsWhenAsked) {
      refused_ = !SetTrapFlagOf(victim);
      if (refused_) {
        kill(victim, SIGKILL);
        Reap(victim);
        return World() ? KillBlocking(kill_at) : Failed("");
      }
      asleep = AwaitAsleepOrDead(victim);
    }
    const auto reap = [&] { return EndOfSelfStepped(Reap(victim)); };
    if (asleep && woken) {
      if (!StartSleepers(scenario_.sleepers_behind)) {
        kill(victim, SIGKILL);
        Reap(victim);
        return Failed("");
      }
      control_->counting = 1;
      scenario_.while_blocked();
      return reap();
    }
    Outcome outcome;
    if (asleep) {
      kill(victim, SIGKILL);
      Reap(victim);
      outcome = {.kind = Outcome::kAsleep};
    } else {
      outcome = reap();
    }
    if (outcome.kind == Outcome::kFailed) return outcome;
    if (outcome.kind == Outcome::kFinished) {
      return Failed("the operation does not block, but has while_blocked");
    }
    if (!StartSleepers(scenario_.sleepers_behind)) return Failed("");
    scenario_.while_blocked();
    return outcome;
  }

  // --- The situation before a kill ---

  // Fresh state, with sleepers; for a recoverer, a dead victim too. False where
  // that failed, which has been recorded.
  bool World() {
    sleepers_.clear();
    for (std::atomic<uint32_t>& returned : control_->returned) returned = 0;
    if (scenario_.setup) scenario_.setup();
    if (StartSleepers(scenario_.sleepers) && (!first_kill_ || first_kill_())) {
      return true;
    }
    ++hangs_;  // It would fail again, and again take its time.
    return false;
  }

  bool StartSleepers(const std::vector<Function>& bodies) {
    for (const Function& body : bodies) {
      const size_t index = sleepers_.size();
      if (index == kMaxSleepers) {
        Complain("too many sleepers", {}, 0);
        return false;
      }
      sleepers_.push_back(Child::Fork([&, index] {
        cpu_.Leave();
        body();
        control_->returned[index] = 1;
        syscall(SYS_futex, &control_->returned[index], FUTEX_WAKE, INT32_MAX,
                nullptr, nullptr, 0);
      }));
      if (!AwaitAsleep(sleepers_.back())) {
        std::string what =
            "sleeper " + std::to_string(index) + " does not go to sleep";
        if (!sleepers_.back().Running()) {
          what += " but ends: " + Text(sleepers_.back().Wait());
        }
        Complain(what, {}, 0);
        return false;
      }
    }
    return true;
  }

  bool AwaitAsleep(Child& child) {
    const cohort::Deadline until =
        cohort::Deadline::After(options_.victim_limit);
    for (int seen = 0; seen < 2;) {
      seen = SleepsIn(child.pid()).has_value() ? seen + 1 : 0;
      if (until.Passed() || !child.Running()) return false;
      if (seen == 0) sched_yield();
    }
    return true;
  }

  // --- Verdicts ---

  // Runs the checker in a process of its own and records what it says.
  void Judge(KillPoint point, uint64_t address) {
    point.control_ = control_.get();
    control_->messages = 0;
    control_->frames = 0;
    const pid_t pid = ForkBound();
    if (pid == 0) RunChecker(point);
    const End end = Reap(pid);
    std::vector<std::string> messages;
    for (int i = 0; i < std::min<int>(control_->messages, kMaxMessages); ++i) {
      messages.emplace_back(control_->message[i]);
    }
    if (end == Exited(kHungStatus)) {
      ++hangs_;
      messages.push_back("the checker hangs" + HungIn());
    } else if (end != Exited(0)) {
      messages.push_back("the checker ends: " + Text(end));
    }
    for (size_t i = 0; i < sleepers_.size(); ++i) {
      if (!sleepers_[i].Running() && sleepers_[i].Wait() != Exited(0)) {
        messages.push_back("sleeper " + std::to_string(i) +
                           " ends: " + Text(sleepers_[i].Wait()));
      }
    }
    sleepers_.clear();
    if (!messages.empty()) ++report_.violations;
    for (const std::string& message : messages) {
      Note(message, point, address);
    }
  }

  [[noreturn]] void RunChecker(const KillPoint& point) {
    cpu_.Leave();
    ArmTimer(options_.check_limit, &OnCheckerAlarm);
    ::testing::TestPartResultArray results;
    std::string thrown;
    {
      const ::testing::ScopedFakeTestPartResultReporter reporter(
          ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ALL_THREADS,
          &results);
      try {
        scenario_.check(point);
      } catch (const std::exception& error) {
        thrown = std::string("the checker threw: ") + error.what();
      } catch (...) {
        thrown = "the checker threw";
      }
    }
    for (int i = 0; i < results.size(); ++i) {
      const ::testing::TestPartResult& result = results.GetTestPartResult(i);
      if (!result.failed()) continue;
      const char* file = result.file_name();
      if (file == nullptr) file = "?";
      const char* const slash = std::strrchr(file, '/');
      Say(std::string(slash == nullptr ? file : slash + 1) + ":" +
          std::to_string(result.line_number()) + ": " + result.message());
    }
    if (!thrown.empty()) Say(thrown);
    _exit(0);
  }

  // In the checker: hands a message to the stepper.
  void Say(const std::string& message) {
    const int index = control_->messages;
    if (index == kMaxMessages) return;
    std::snprintf(control_->message[index], sizeof(control_->message[index]),
                  "%s", message.c_str());
    control_->messages = index + 1;
  }

  // " in Wait+0x12 < Lock+0x20 < …": the checker's stack, without the handler.
  std::string HungIn() {
    std::string text;
    for (int i = 2; i < std::min<int>(control_->frames, 8); ++i) {
      text += i == 2 ? " in " : " < ";
      text +=
          Shorten(SymbolAt(reinterpret_cast<uintptr_t>(control_->frame[i])));
    }
    return text;
  }

  static std::string Shorten(const std::string& symbol) {
    constexpr size_t kLongest = 100;
    if (symbol.size() <= kLongest) return symbol;
    return symbol.substr(0, kLongest - 30) + "..." +
           symbol.substr(symbol.size() - 27);
  }

  // A violation that no checker has found.
  void Complain(const std::string& message, const KillPoint& point,
                uint64_t address) {
    if (message.empty()) return;  // Recorded before.
    ++report_.violations;
    Note(message, point, address);
  }

  void Note(const std::string& message, const KillPoint& point,
            uint64_t address) {
    std::ostringstream where;
    where << point;
    if (address != 0) where << " (" << Shorten(SymbolAt(address)) << ")";
    KillViolation& violation = violations_[message];
    violation.message = message;
    if (violation.count++ == 0) violation.first = where.str();
    violation.last = where.str();
  }

  bool GiveUp() {
    if (given_up_) return true;
    if (hangs_ < options_.max_hangs &&
        report_.violations < options_.max_violations) {
      return false;
    }
    given_up_ = true;
    Complain("given up after so many violations", {}, 0);
    return true;
  }

  // Counts the outcome at a point and judges what it left.
  void Account(const Outcome& outcome, KillPoint point, bool second_order) {
    if (outcome.kind == Outcome::kFailed) {
      Complain(outcome.failure, point, outcome.address);
      sleepers_.clear();
      return;
    }
    if (outcome.kind == Outcome::kDiverged) {
      ++report_.diverged;
    } else {
      ++report_.points;
      if (second_order) ++report_.second_order;
    }
    Judge(point, outcome.address);
  }

  // --- The three sweeps ---

  // Kills the operation at each of its instructions.
  std::vector<FirstKill> StepOperation() {
    std::vector<FirstKill> kills;
    const Function& prepare = scenario_.prepare;
    const Function& operation = scenario_.operation;
    if (!PreparePath(prepare, operation)) return kills;
    for (int64_t n = 0;; n = Next(n)) {
      if (GiveUp()) return kills;
      if (!World()) continue;
      const Outcome outcome = KillAt(prepare, operation, n);
      KillPoint point;
      point.instruction_ = n;
      point.finished_ = control_->phase == kReturned;
      Account(outcome, point, false);
      kills.push_back({.instruction = n});
      if (IsLast(outcome, n)) return kills;
    }
  }

  // Kills an operation that blocks: on its way to sleep, asleep, and woken.
  std::vector<FirstKill> StepBlocking() {
    std::vector<FirstKill> kills;
    for (const FirstKill::Stage stage :
         {FirstKill::kFromBegin, FirstKill::kWoken}) {
      for (int64_t n = 0;; n += options_.stride) {
        if (GiveUp()) return kills;
        if (!World()) continue;
        FirstKill at = {.stage = stage, .instruction = n};
        const Outcome outcome = KillBlocking(at);
        if (outcome.kind == Outcome::kAsleep) at.stage = FirstKill::kAsleep;
        Account(outcome, PointOf(at), false);
        kills.push_back(at);
        if (outcome.kind == Outcome::kAsleep ||
            outcome.kind == Outcome::kFinished ||
            outcome.kind == Outcome::kFailed) {
          break;
        }
      }
    }
    return kills;
  }

  KillPoint PointOf(const FirstKill& at) {
    KillPoint point;
    point.instruction_ = at.instruction;
    point.finished_ = control_->phase == kReturned;
    point.asleep_ = at.stage == FirstKill::kAsleep;
    point.woken_ = at.stage == FirstKill::kWoken;
    return point;
  }

  // After each of the given first kills, kills the recoverer at each of its
  // instructions.
  void StepRecoverer(const std::vector<FirstKill>& kills) {
    const std::optional<Path> first_path = std::move(path_);
    const bool blocking = static_cast<bool>(scenario_.while_blocked);
    for (const FirstKill& at : kills) {
      KillPoint point;
      first_kill_ = [&] {
        Outcome outcome;
        if (blocking) {
          outcome = KillBlocking(at);
        } else if (trap_flag_) {
          outcome = EndOfSelfStepped(
              Reap(ForkSelfStepped(scenario_.prepare, scenario_.operation,
                                   at.instruction, Begin::kAtOnce)));
        } else {
          outcome = TraceTo(*first_path, scenario_.prepare, scenario_.operation,
                            at.instruction);
        }
        point = PointOf(at);
        if (outcome.kind != Outcome::kFailed) return true;
        Complain(outcome.failure, point, outcome.address);
        return false;
      };
      // The first operation may block and still the recovery need not.
      const bool trap_flag = trap_flag_;
      trap_flag_ = options_.mode == StepMode::kTrapFlag || refused_;
      StepRecovererAfter(point);
      trap_flag_ = trap_flag;
      first_kill_ = nullptr;
      if (given_up_) return;
    }
  }

  void StepRecovererAfter(const KillPoint& first) {
    if (!PreparePath(nullptr, scenario_.recover)) return;
    for (int64_t n = 0;; n = Next(n)) {
      if (GiveUp()) return;
      if (!World()) return;
      const Outcome outcome = KillAt(nullptr, scenario_.recover, n);
      KillPoint point = first;
      point.recovery_instruction_ = n;
      point.recovery_finished_ = control_->phase == kReturned;
      Account(outcome, point, true);
      if (IsLast(outcome, n)) return;
    }
  }

  // Records the path where paths are needed. False where nothing can be
  // stepped.
  bool PreparePath(const Function& prepare, const Function& operation) {
    path_.reset();
    if (trap_flag_) return true;
    path_ = Record(prepare, operation);
    refused_ = trap_flag_;
    return path_.has_value() || trap_flag_;
  }

  // The next point; the end of the path is never strided over.
  int64_t Next(int64_t n) const {
    const int64_t next = n + options_.stride;
    if (!path_.has_value() || n >= path_->size()) return next;
    return std::min(next, path_->size());
  }

  bool IsLast(const Outcome& outcome, int64_t n) const {
    if (path_.has_value()) return n >= path_->size();
    return outcome.kind == Outcome::kFinished ||
           outcome.kind == Outcome::kFailed;
  }

  // Some of them, evenly spread, the first and the last among them.
  std::vector<FirstKill> Spread(std::vector<FirstKill> kills) const {
    const auto wanted = static_cast<size_t>(std::max(options_.first_kills, 1));
    if (kills.size() <= wanted || full_) return kills;
    std::vector<FirstKill> some;
    for (size_t i = 0; i < wanted; ++i) {
      some.push_back(
          kills[wanted == 1 ? 0 : i * (kills.size() - 1) / (wanted - 1)]);
    }
    return some;
  }

  const KillScenario& scenario_;
  const bool full_ = getenv("COHORT_CRASH_FULL") != nullptr;
  KillOptions options_;
  const OneCpu cpu_;
  Shared<Control> control_;
  KillReport report_;
  std::map<std::string, KillViolation> violations_;
  bool trap_flag_ = false;
  bool refused_ = false;  // ptrace(2) or breakpoints, so trap flag it is.
  int hangs_ = 0;
  bool given_up_ = false;
  std::optional<Path> path_;  // Of what is being stepped, if traced.
  std::vector<Child> sleepers_;
  std::function<bool()> first_kill_;
};

KillReport& KillReport::operator+=(const KillReport& other) {
  if (name.empty()) name = other.name;
  points += other.points;
  variants += other.variants;
  violations += other.violations;
  diverged += other.diverged;
  second_order += other.second_order;
  seconds += other.seconds;
  for (const KillViolation& violation : other.details) {
    details.push_back(violation);
    details.back().message = other.name + ": " + violation.message;
  }
  return *this;
}

std::ostream& operator<<(std::ostream& out, const KillReport& report) {
  out << report.name << ": points=" << report.points
      << " variants=" << report.variants << " violations=" << report.violations
      << " diverged=" << report.diverged
      << " second_order=" << report.second_order << " in " << report.seconds
      << " s";
  constexpr size_t kMostShown = 12;
  for (size_t i = 0; i < std::min(report.details.size(), kMostShown); ++i) {
    const KillViolation& violation = report.details[i];
    out << "\n  " << violation.count << " x " << violation.message
        << "\n    first: " << violation.first;
    if (violation.count > 1) out << "\n    last:  " << violation.last;
  }
  if (report.details.size() > kMostShown) {
    out << "\n  and " << report.details.size() - kMostShown
        << " other messages";
  }
  return out;
}

KillReport KillAtEveryInstruction(const KillScenario& scenario,
                                  const KillOptions& options) {
  KillReport report = KillStepper(scenario, options).Run();
  // tools/crash reads this line.
  std::ostringstream line;
  line << "[crash] points=" << report.points << " variants=" << report.variants
       << " violations=" << report.violations << " diverged=" << report.diverged
       << " second_order=" << report.second_order << " per_second="
       << static_cast<int64_t>(static_cast<double>(report.points) /
                               std::max(report.seconds, 1e-9))
       << " name=" << report.name << "\n";
  std::cout << line.str() << std::flush;
  return report;
}

KillReport KillAtEveryInstruction(std::span<const KillScenario> scenarios,
                                  const KillOptions& options) {
  KillReport sum;
  for (const KillScenario& scenario : scenarios) {
    sum += KillAtEveryInstruction(scenario, options);
  }
  return sum;
}

}  // namespace cohort_testing
