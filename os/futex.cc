// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "cohort/os/check.h"

namespace cohort::os {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) &&
              std::atomic<uint32_t>::is_always_lock_free);

static_assert(kAllFutexBits == FUTEX_BITSET_MATCH_ANY);

constexpr int64_t kLongestSlice = 100'000'000;

std::atomic<bool> slices_are_off = false;

}  // namespace

FutexEnd FutexWait(const std::atomic<uint32_t>& word, uint32_t expected,
                   Deadline until, uint32_t bits) {
  timespec at;
  at.tv_sec = until.nanoseconds() / 1'000'000'000;
  at.tv_nsec = until.nanoseconds() % 1'000'000'000;
  const int saved_errno = errno;
  // The bit-set form takes an absolute time; without FUTEX_PRIVATE_FLAG the key
  // is the page, not the address.
  if (syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected,
              until.infinite() ? nullptr : &at, nullptr, bits) == 0) {
    return FutexEnd::kWoken;
  }
  const int error = errno;
  errno = saved_errno;
  switch (error) {
    case EAGAIN:
      return FutexEnd::kChanged;
    case ETIMEDOUT:
      return FutexEnd::kTimedOut;
    case EINTR:
      return FutexEnd::kInterrupted;
    case EFAULT:
      Fatal("futex: the word to sleep on is not mapped");
    default:
      Fatal("futex: this kernel or sandbox refuses FUTEX_WAIT_BITSET");
  }
}

int FutexWake(std::atomic<uint32_t>& word, int count, uint32_t bits) {
  const int saved_errno = errno;
  // The only failure for an aligned word is that its page is gone (EFAULT):
  // whoever unmapped it left nobody to be woken through it.
  const long woken = syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, count,
                             nullptr, nullptr, bits);
  errno = saved_errno;
  return woken < 0 ? 0 : static_cast<int>(woken);
}

Deadline Slices::Next() {
  if (slices_are_off.load(std::memory_order_relaxed)) return overall_;
  const Deadline next =
      overall_.Earlier(Deadline::AtNanoseconds(NowNanoseconds() + slice_));
  slice_ = std::min(2 * slice_, kLongestSlice);
  return next;
}

void Slices::TurnOff() {
  slices_are_off.store(true, std::memory_order_relaxed);
}

}  // namespace cohort::os
