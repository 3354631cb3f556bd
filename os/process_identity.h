// SPDX-License-Identifier: Apache-2.0
//
// `os::ProcessIdentity` names one process in 64 bits, so that a table in shared
// memory can say who owns an entry and a survivor can find out whether that one
// is still there. A process id alone cannot: it is given to another process
// some time after a death. Here it stands beside the time at which the process
// started.
//
//   entry->owner = os::ProcessIdentity::Self().bits();
//   ...
//   const auto owner = os::ProcessIdentity::FromBits(entry->owner);
//   if (owner.CheckLiveness() == os::Liveness::kDead) entry->owner = 0;
//
// Whoever started the process should keep its pidfd instead (os/pidfd.h): that
// tells of the death by itself.

#ifndef COHORT_OS_PROCESS_IDENTITY_H_
#define COHORT_OS_PROCESS_IDENTITY_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

namespace cohort::os {

enum class Liveness {
  kAlive,
  kDead,     // All its threads have ended; nobody need have waited for it.
  kUnknown,  // The kernel does not tell. To be treated as alive.
};

// ProcessIdentity
//
// |         | Self()        | execve()    | fork()        | it ends     |
// |---------+---------------+-------------+---------------+-------------|
// | running | its identity, | stays as it | the child has | kDead, also |
// |         | in any thread | was         | another one   | as a zombie |
//
// Contract
//   Placement:      anywhere; 8 bytes. All-zero bits name no process.
//   Thread-safety:  every member.
//   Process-safety: the bits mean the same process in all processes of one PID
//                   namespace and one time namespace. In another one they mean
//                   a stranger, alive or dead.
//   Fork-safety:    a child of fork(), _Fork() or clone() is another process.
//                   Children that share their parent's memory (vfork()) must
//                   not ask.
//   Crash-safety:   no state but a private cache.
//   Signal-safety:  Self(), once it was called in this process.
//   Errors:         none. What the kernel refuses to tell is kUnknown; so is,
//                   where /proc is that of another PID namespace, everybody
//                   whose id is in use. Fatal where no page of memory is left
//                   for the cache.
//   Ordering:       who is told kDead sees what the dead process wrote.
//   Cost:           Self(): two loads. CheckLiveness(): about six system calls,
//                   10 us.
//   Reference:      proc_pid_stat(5), field 22; pidfd_open(2).
class ProcessIdentity final {
 public:
  // Of the calling process.
  [[nodiscard]] static ProcessIdentity Self();

  // As bits() gave it. Any other number names no process, or some process.
  [[nodiscard]] static constexpr ProcessIdentity FromBits(uint64_t bits) {
    return ProcessIdentity(bits);
  }

  // No process.
  constexpr ProcessIdentity() = default;

  // Bits 0-21: the process id, which Linux keeps below 2^22. Bits 22-63: when
  // the process started, in clock ticks since boot; 0 where /proc did not say.
  [[nodiscard]] constexpr uint64_t bits() const { return bits_; }
  [[nodiscard]] constexpr pid_t pid() const {
    return static_cast<pid_t>(bits_ & kPidMask);
  }
  [[nodiscard]] constexpr uint64_t start_ticks() const {
    return bits_ >> kPidBits;
  }

  // Asks the kernel about this process. kDead is a fact and stays one; the
  // others may have changed when this returns.
  [[nodiscard]] Liveness CheckLiveness() const;

  friend constexpr bool operator==(ProcessIdentity, ProcessIdentity) = default;

 private:
  static constexpr int kPidBits = 22;
  static constexpr uint64_t kPidMask = (uint64_t{1} << kPidBits) - 1;

  constexpr explicit ProcessIdentity(uint64_t bits) : bits_(bits) {}

  static ProcessIdentity Bind();

  // Holds the caller's bits, or 0 where nobody has asked yet: a page that the
  // kernel clears in every copy of the process.
  static std::atomic<std::atomic<uint64_t>*> cache_;

  uint64_t bits_ = 0;
};

// Field 22 of the text of /proc/PID/stat; nothing where it is cut or damaged.
// The name of the program, which stands before it, may hold any character.
[[nodiscard]] std::optional<uint64_t> ParseStartTicks(std::string_view stat);

inline ProcessIdentity ProcessIdentity::Self() {
  const uint64_t bits =
      cache_.load(std::memory_order_acquire)->load(std::memory_order_relaxed);
  if (bits == 0) [[unlikely]] {
    return Bind();
  }
  return ProcessIdentity(bits);
}

}  // namespace cohort::os

#endif  // COHORT_OS_PROCESS_IDENTITY_H_
