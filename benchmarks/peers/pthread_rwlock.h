// SPDX-License-Identifier: Apache-2.0
//
// A POSIX read-write lock shared between processes. There is no robust one.

#ifndef COHORT_BENCHMARKS_PEERS_PTHREAD_RWLOCK_H_
#define COHORT_BENCHMARKS_PEERS_PTHREAD_RWLOCK_H_

#include <pthread.h>

namespace cohort_benchmarks {

class PthreadRwlock final {
 public:
  PthreadRwlock() {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_rwlock_init(&lock_, &attributes);
    pthread_rwlockattr_destroy(&attributes);
  }

  void lock_shared() { pthread_rwlock_rdlock(&lock_); }
  void unlock_shared() { pthread_rwlock_unlock(&lock_); }
  void lock() { pthread_rwlock_wrlock(&lock_); }
  void unlock() { pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_PEERS_PTHREAD_RWLOCK_H_
