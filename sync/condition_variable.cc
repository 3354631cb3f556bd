// SPDX-License-Identifier: Apache-2.0

#include "cohort/sync/condition_variable.h"

#include <algorithm>
#include <bit>
#include <climits>

#include "cohort/os/check.h"
#include "cohort/os/robust.h"
#include "cohort/sync/internal/wait_word.h"

namespace cohort {
namespace {

// How long a notification has to stand before others than those whom it was
// for take it.
constexpr int64_t kPatience = 100'000'000;

std::atomic<uint64_t> rescues = 0;

// Sleepers of different groups are told apart, so that a notification for the
// old never wakes one of the young instead. Groups that share a bit are 32
// epochs apart.
uint32_t BitOf(uint32_t epoch) { return uint32_t{1} << epoch % 32; }

std::atomic<uint32_t>& LowHalfOf(std::atomic<uint64_t>& word) {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<std::atomic<uint32_t>&>(word);
}

}  // namespace

// The word. Those who wait are in two groups: the young, who began in the
// present epoch, and the old, who began in the one before. Whoever began
// earlier has been notified.
//
//   bits  0-10  credits: notifications for the old that none has taken yet
//   bit   11    sleepers: somebody may sleep; may be stale
//   bits 12-35  epoch
//   bits 36-41  owed: how many have been notified, as old ones, and had not
//               returned when their group was given up; may be too low
//   bits 42-52  old: how many; the killed may be counted
//   bits 53-63  young: likewise
//
// What is owed to one that was killed, nobody else would know of. A sleeper
// sleeps on the low half, which changes with each notification.
class ConditionVariable::Word final {
 public:
  static constexpr uint64_t kMaxCredits = (1 << 11) - 1;
  static constexpr uint64_t kMaxOwed = (1 << 6) - 1;
  static constexpr uint64_t kMaxWaiters = (1 << 11) - 1;
  static constexpr uint64_t kSleepers = 1 << 11;
  static constexpr uint32_t kEpochs = 1 << 24;

  explicit Word(uint64_t bits)
      : credits(bits & kMaxCredits),
        sleepers((bits & kSleepers) != 0),
        epoch(static_cast<uint32_t>(bits >> 12) % kEpochs),
        owed(bits >> 36 & kMaxOwed),
        old(bits >> 42 & kMaxWaiters),
        young(bits >> 53) {}

  [[nodiscard]] uint64_t bits() const {
    return credits | (sleepers ? kSleepers : 0) |
           uint64_t{epoch % kEpochs} << 12 | owed << 36 | old << 42 |
           young << 53;
  }

  // How many epochs ago the one that began at `begin` did.
  [[nodiscard]] uint32_t Age(uint32_t begin) const {
    return (epoch - begin) % kEpochs;
  }

  // Who waits and has not been notified.
  [[nodiscard]] uint64_t waiting() const { return old - credits + young; }

  // The young become the old, and the old have been notified.
  void Switch() {
    ++epoch;
    old = young;
    young = 0;
    credits = 0;
  }

  // All have been notified.
  void Release() {
    epoch += 2;
    credits = owed = old = young = 0;
    sleepers = false;  // All are woken.
  }

  uint64_t credits;
  bool sleepers;
  uint32_t epoch;
  uint64_t owed;
  uint64_t old;
  uint64_t young;
};

void ConditionVariable::notify(int count) {
  if (count <= 0) return;
  const auto wanted = static_cast<uint64_t>(count);
  uint64_t seen = word_.load(std::memory_order_relaxed);
  for (;;) {
    const Word was(seen);
    if (was.waiting() == 0) return;
    Word now = was;
    // The old first. Where that is not all of it, they need not be told apart
    // any more, and the young become the old.
    const uint64_t for_old = std::min(wanted, was.old - was.credits);
    if (wanted >= was.waiting()) {
      now.Release();
    } else if (wanted == for_old) {
      now.credits += wanted;
    } else {
      now.owed += was.old;
      now.Switch();
      now.credits = wanted - for_old;
      if (now.owed > Word::kMaxOwed) now.Release();
    }
    if (!word_.compare_exchange_weak(seen, now.bits(),
                                     std::memory_order_release,
                                     std::memory_order_relaxed)) {
      continue;
    }
    if (!was.sleepers) return;
    if (!now.sleepers) {
      WakeAll();
    } else {
      Wake(was.epoch - 1, for_old);
      Wake(was.epoch, wanted - for_old);
    }
    return;
  }
}

void ConditionVariable::notify_all() {
  uint64_t seen = word_.load(std::memory_order_relaxed);
  for (;;) {
    const Word was(seen);
    if (was.waiting() == 0) return;
    Word now = was;
    now.Release();
    if (word_.compare_exchange_weak(seen, now.bits(), std::memory_order_release,
                                    std::memory_order_relaxed)) {
      if (was.sleepers) WakeAll();
      return;
    }
  }
}

void ConditionVariable::Wake(uint32_t epoch, uint64_t count) {
  if (count > 0) {
    os::FutexWake(LowHalfOf(word_), static_cast<int>(count), BitOf(epoch));
  }
}

void ConditionVariable::WakeAll() { os::FutexWake(LowHalfOf(word_), INT_MAX); }

uint64_t ConditionVariable::Rescues() {
  return rescues.load(std::memory_order_relaxed);
}

void ConditionVariable::NotHeld() {
  os::Fatal("ConditionVariable: waits without holding the mutex");
}

ConditionVariable::Wait::Wait(ConditionVariable& variable, Deadline deadline)
    : variable_(variable), deadline_(deadline), slices_(deadline) {
  std::atomic<uint64_t>& word = variable_.word_;
  uint64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    const Word was(seen);
    Word now = was;
    // More than can be counted: the others return, too early.
    const bool full = was.young == Word::kMaxWaiters;
    if (full) now.Release();
    ++now.young;
    if (word.compare_exchange_weak(seen, now.bits(),
                                   std::memory_order_relaxed)) {
      epoch_ = now.epoch;
      if (full) variable_.WakeAll();
      return;
    }
  }
}

bool ConditionVariable::Wait::Ready(uint64_t bits) const {
  const Word now(bits);
  switch (now.Age(epoch_)) {
    case 0:
      return now.young == 0;  // Not even counted any more: see Decide().
    case 1:
      return now.old == 0 || now.credits > 0;
    default:
      return true;
  }
}

bool ConditionVariable::Wait::Block() {
  std::atomic<uint64_t>& word = variable_.word_;
  for (;;) {
    uint64_t seen = word.load(std::memory_order_acquire);
    for (int looks = sync_internal::LooksBeforeSleep(deadline_);; --looks) {
      if (Ready(seen)) return true;
      if (looks <= 0) break;
      sync_internal::BetweenLooks();
      seen = word.load(std::memory_order_acquire);
    }
    if (deadline_.Passed()) {
      leaves_ = timed_out_ = true;
      return true;
    }
    if ((seen & Word::kSleepers) == 0 &&
        !word.compare_exchange_strong(seen, seen | Word::kSleepers,
                                      std::memory_order_relaxed)) {
      continue;
    }
    os::RobustThread::Self().RefreshCpus();
    if (os::FutexWait(
            LowHalfOf(word), static_cast<uint32_t>(seen | Word::kSleepers),
            slices_.Next(), BitOf(epoch_)) == os::FutexEnd::kTimedOut) {
      // Notifications that stand there for others have to be looked at with
      // the mutex: who is about to take one waits for it.
      const Word now(word.load(std::memory_order_relaxed));
      return now.credits > 0 || now.owed > 0;
    }
  }
}

bool ConditionVariable::Wait::Decide() {
  std::atomic<uint64_t>& word = variable_.word_;
  uint64_t seen = word.load(std::memory_order_acquire);
  for (;;) {
    Word now(seen);
    const uint32_t age = now.Age(epoch_);
    // The second is so after 2^24 epochs only, the length of a stop: then the
    // counts are not of this wait's groups.
    const bool over = age > 1 || (age == 0 ? now.young : now.old) == 0;
    if (over && (age <= 1 || now.owed == 0)) {
      timed_out_ = false;
      return true;
    }
    const bool late = !over && OthersAreLate(now);
    bool notified = true;
    if (over) {
      --now.owed;
    } else if (late && now.owed > 0) {
      // For whom it was given is not known any more, so all return.
      now.Release();
    } else {
      if (late) {
        // Those whom it was for, if any lives, return too, without one.
        const uint64_t left = std::min(now.credits, now.young);
        now.Switch();
        now.credits = left;
      }
      notified = now.Age(epoch_) == 1 && now.credits > 0;
      if (!notified && !leaves_) return false;
      if (notified) --now.credits;
      --(now.Age(epoch_) == 0 ? now.young : now.old);
    }
    if (!word.compare_exchange_weak(seen, now.bits(),
                                    std::memory_order_acquire)) {
      continue;
    }
    if (notified) timed_out_ = false;
    if (late) {
      rescues.fetch_add(1, std::memory_order_relaxed);
      variable_.WakeAll();
    }
    return true;
  }
}

bool ConditionVariable::Wait::OthersAreLate(const Word& word) {
  Word others = word;
  others.young = 0;
  others.sleepers = false;
  // An old one takes what is for the old.
  const uint64_t for_others =
      word.owed + (word.Age(epoch_) == 0 ? word.credits : 0);
  if (for_others == 0 || others.bits() != standing_) {
    standing_ = others.bits();
    since_ = os::NowNanoseconds();
    return false;
  }
  return os::NowNanoseconds() - since_ >= kPatience;
}

}  // namespace cohort
