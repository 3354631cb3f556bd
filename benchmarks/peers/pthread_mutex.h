// SPDX-License-Identifier: Apache-2.0
//
// POSIX mutexes shared between processes: plain and robust, and recursive ones.

#ifndef COHORT_BENCHMARKS_PEERS_PTHREAD_MUTEX_H_
#define COHORT_BENCHMARKS_PEERS_PTHREAD_MUTEX_H_

#include <pthread.h>

#include <cerrno>

namespace cohort_benchmarks {

template <bool kRobust, bool kRecursive = false>
class PthreadMutex final {
 public:
  PthreadMutex() {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (kRobust) {
      pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    }
    if (kRecursive) {
      pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    }
    pthread_mutex_init(&mutex_, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }

  // As a careful user of a robust mutex must: the result is looked at.
  void lock() {
    if (pthread_mutex_lock(&mutex_) == EOWNERDEAD) {
      pthread_mutex_consistent(&mutex_);
    }
  }
  void unlock() { pthread_mutex_unlock(&mutex_); }

  pthread_mutex_t* native_handle() { return &mutex_; }

 private:
  pthread_mutex_t mutex_;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_PEERS_PTHREAD_MUTEX_H_
