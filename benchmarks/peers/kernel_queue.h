// SPDX-License-Identifier: Apache-2.0
//
// The two queues that the kernel keeps: a pipe and a POSIX message queue.

#ifndef COHORT_BENCHMARKS_PEERS_KERNEL_QUEUE_H_
#define COHORT_BENCHMARKS_PEERS_KERNEL_QUEUE_H_

#include <mqueue.h>

#include "absl/status/status.h"
#include "cohort/benchmarks/internal/plays.h"

namespace cohort_benchmarks {

// A pipe(7) of the default size; one system call per message.
class KernelPipe final {
 public:
  KernelPipe();
  ~KernelPipe();
  KernelPipe(const KernelPipe&) = delete;
  KernelPipe& operator=(const KernelPipe&) = delete;

  absl::Status Ready() const;
  bool Put(const Message& message);
  bool Get(Message& message);

 private:
  int ends_[2] = {-1, -1};
};

// A mq_overview(7) queue of as many messages as an ordinary user may ask for
// (10 unless the administrator raised it). Its name is gone before it is used.
class PosixQueue final {
 public:
  PosixQueue();
  ~PosixQueue();
  PosixQueue(const PosixQueue&) = delete;
  PosixQueue& operator=(const PosixQueue&) = delete;

  absl::Status Ready() const;
  bool Put(const Message& message);
  bool Get(Message& message);

 private:
  mqd_t queue_ = -1;
  int error_ = 0;
};

}  // namespace cohort_benchmarks

#endif  // COHORT_BENCHMARKS_PEERS_KERNEL_QUEUE_H_
