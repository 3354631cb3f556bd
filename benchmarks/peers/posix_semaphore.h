// SPDX-License-Identifier: Apache-2.0
//
// A POSIX semaphore shared between processes. What a dead process has acquired
// never comes back.

#ifndef COHORT_BENCHMARKS_PEERS_POSIX_SEMAPHORE_H_
#define COHORT_BENCHMARKS_PEERS_POSIX_SEMAPHORE_H_

#include <semaphore.h>

#include <cerrno>

namespace cohort_benchmarks {

class PosixSemaphore final {
 public:
  explicit PosixSemaphore(unsigned permits) {
    sem_init(&semaphore_, /*pshared=*/1, permits);
  }

  void acquire() {
    while (sem_wait(&semaphore_) != 0 && errno == EINTR) {
    }
  }
  void release() { sem_post(&semaphore_); }

 private:
  sem_t semaphore_;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_PEERS_POSIX_SEMAPHORE_H_
