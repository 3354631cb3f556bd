// SPDX-License-Identifier: Apache-2.0
//
// The stage on which a measurement is played: the clock, two processors, memory
// that two processes see, and a second process.
//
//   SharedObject<std::atomic<int>> turn;
//   Companion peer([&] { PinTo(kSecondCpu); Answer(*turn); });
//   PinTo(kFirstCpu);
//   const int64_t begin = Now();
//   Ask(*turn);
//   const int64_t took = Now() - begin;
//   if (absl::Status s = peer.Join(); !s.ok()) return s;
//
// It stands on the kernel and on Abseil alone, not on the library that is
// measured: a limit or a peer must not depend on what it is compared with.

#ifndef COHORT_BENCHMARKS_INTERNAL_STAGE_H_
#define COHORT_BENCHMARKS_INTERNAL_STAGE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>

#include "absl/status/status.h"

namespace cohort_benchmarks {

// Nanoseconds of CLOCK_MONOTONIC.
int64_t Now();

// How often the calling thread has fallen asleep so far.
int64_t TimesAsleep();

// Processors of the set that the program was started with.
inline constexpr int kFirstCpu = 0;
inline constexpr int kSecondCpu = 1;

// Unavailable, with the reason, where the program may use one processor only:
// two spinning processes would then measure the scheduler.
absl::Status NeedTwoCpus();

// Binds the calling thread to one processor; with one only, to that one.
void PinTo(int which);

// Lets the calling thread run on all the processors that the program started
// with.
void Unpin();

// Makes the compiler believe that `value` is used, and all memory with it.
template <typename T>
inline void Keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

// Sees to it that the program has a second, sleeping thread: with one thread
// only, the C library leaves out the atomic instructions of its locks and looks
// faster than any program that needs a lock can have it.
void HaveSecondThread();

// Touched, zeroed memory that children of fork() share; ends the program when
// there is none.
std::byte* MapShared(size_t size);
void UnmapShared(std::byte* memory, size_t size);

// A `T` in a mapping of its own, made of zero bytes and T's constructor.
template <typename T>
class SharedObject final {
 public:
  SharedObject() : object_(new (MapShared(sizeof(T))) T) {}
  ~SharedObject() {
    object_->~T();
    UnmapShared(reinterpret_cast<std::byte*>(object_), sizeof(T));
  }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }

 private:
  T* const object_;
};

// A forked process that runs one function and ends; it dies with its parent.
class Companion final {
 public:
  // Where the function returns in the child, the child exits with status 0.
  explicit Companion(const std::function<void()>& run);
  // Kills the process if Join() was not called.
  ~Companion();
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;

  // Waits for its end; Aborted, and how it ended, where that was not status 0.
  absl::Status Join();

 private:
  pid_t pid_;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_INTERNAL_STAGE_H_
