// SPDX-License-Identifier: Apache-2.0
//
// A POSIX condition variable shared between processes.

#ifndef COHORT_BENCHMARKS_PEERS_PTHREAD_CONDITION_H_
#define COHORT_BENCHMARKS_PEERS_PTHREAD_CONDITION_H_

#include <pthread.h>

namespace cohort_benchmarks {

class PthreadCondition final {
 public:
  PthreadCondition() {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&condition_, &attributes);
    pthread_condattr_destroy(&attributes);
  }

  // `lock` is a std::unique_lock of a PthreadMutex that is not robust.
  template <typename Lock>
  void wait(Lock& lock) {
    pthread_cond_wait(&condition_, lock.mutex()->native_handle());
  }
  void notify_one() { pthread_cond_signal(&condition_); }

 private:
  pthread_cond_t condition_;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_PEERS_PTHREAD_CONDITION_H_
