// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/peers/kernel_queue.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace cohort_benchmarks {

KernelPipe::KernelPipe() {
  if (pipe2(ends_, O_CLOEXEC) != 0) ends_[0] = ends_[1] = -1;
}

KernelPipe::~KernelPipe() {
  close(ends_[0]);
  close(ends_[1]);
}

absl::Status KernelPipe::Ready() const {
  if (ends_[0] >= 0) return absl::OkStatus();
  return absl::UnavailableError("pipe2 failed: too many open files?");
}

bool KernelPipe::Put(const Message& message) {
  return write(ends_[1], &message, sizeof(message)) == sizeof(message);
}

// Writes of this size are atomic, so that a read never finds half of one.
bool KernelPipe::Get(Message& message) {
  return read(ends_[0], &message, sizeof(message)) == sizeof(message);
}

PosixQueue::PosixQueue() {
  const std::string name = absl::StrCat("/cohort-benchmark-", getpid());
  mq_attr attributes = {};
  attributes.mq_maxmsg = 10;
  attributes.mq_msgsize = sizeof(Message);
  queue_ = mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600,
                   &attributes);
  if (queue_ < 0) {
    error_ = errno;
  } else {
    mq_unlink(name.c_str());
  }
}

PosixQueue::~PosixQueue() {
  if (queue_ >= 0) mq_close(queue_);
}

absl::Status PosixQueue::Ready() const {
  if (queue_ >= 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("mq_open: ", strerror(error_)));
}

bool PosixQueue::Put(const Message& message) {
  return mq_send(queue_, reinterpret_cast<const char*>(&message),
                 sizeof(message), 0) == 0;
}

bool PosixQueue::Get(Message& message) {
  return mq_receive(queue_, reinterpret_cast<char*>(&message), sizeof(message),
                    nullptr) == sizeof(message);
}

}  // namespace cohort_benchmarks
