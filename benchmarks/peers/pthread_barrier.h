// SPDX-License-Identifier: Apache-2.0
//
// A POSIX barrier shared between two processes.

#ifndef COHORT_BENCHMARKS_PEERS_PTHREAD_BARRIER_H_
#define COHORT_BENCHMARKS_PEERS_PTHREAD_BARRIER_H_

#include <pthread.h>

namespace cohort_benchmarks {

class PthreadBarrier final {
 public:
  PthreadBarrier() {
    pthread_barrierattr_t attributes;
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&barrier_, &attributes, 2);
    pthread_barrierattr_destroy(&attributes);
  }

  void arrive_and_wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_PEERS_PTHREAD_BARRIER_H_
