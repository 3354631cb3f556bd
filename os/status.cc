// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/status.h"

#include <cerrno>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace cohort::os {
namespace {

struct Meaning {
  absl::StatusCode code;
  const char* advice;  // What to do about it; empty where that is plain.
};

Meaning MeaningOf(int error) {
  switch (error) {
    case EMFILE:
      return {absl::StatusCode::kResourceExhausted,
              "; raise the limit with `ulimit -n`"};
    case ENFILE:
      return {absl::StatusCode::kResourceExhausted,
              "; the whole system is out of descriptors (fs.file-max)"};
    case ETOOMANYREFS:
      return {absl::StatusCode::kResourceExhausted,
              "; too many descriptors of this user are in flight: receive "
              "some, or raise the limit with `ulimit -n`"};
    case ENOMEM:
      return {absl::StatusCode::kResourceExhausted, "; memory is short"};
    case ENOSPC:
      return {absl::StatusCode::kResourceExhausted,
              "; free some space there or ask for less"};
    case EDQUOT:
      return {absl::StatusCode::kResourceExhausted, ""};
    case EFBIG:
      return {absl::StatusCode::kResourceExhausted,
              "; raise the limit with `ulimit -f`"};
    case EAGAIN:
      return {absl::StatusCode::kResourceExhausted,
              "; at a limit for now (processes: `ulimit -u`)"};
    case EACCES:
    case EPERM:
      return {absl::StatusCode::kPermissionDenied, ""};
    case ENOENT:
    case ESRCH:
      return {absl::StatusCode::kNotFound, ""};
    case EEXIST:
    case EADDRINUSE:
      return {absl::StatusCode::kAlreadyExists, ""};
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOTCONN:
      return {absl::StatusCode::kUnavailable, "; the other end is gone"};
    case ETIMEDOUT:
      return {absl::StatusCode::kDeadlineExceeded, ""};
    case ENOSYS:
    case EOPNOTSUPP:
      return {absl::StatusCode::kUnimplemented,
              "; this kernel, or a seccomp filter, does not offer the call"};
    case EMSGSIZE:
    case EINVAL:
    case EBADF:
    case EFAULT:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
      return {absl::StatusCode::kInvalidArgument, ""};
    default:
      return {absl::StatusCode::kInternal, ""};
  }
}

}  // namespace

absl::Status ErrnoStatus(int error, std::string_view call,
                         std::string_view object) {
  const Meaning meaning = MeaningOf(error);
  return absl::Status(
      meaning.code,
      absl::StrCat(absl::string_view(call.data(), call.size()), "(",
                   absl::string_view(object.data(), object.size()), "): ",
                   std::generic_category().message(error), meaning.advice));
}

}  // namespace cohort::os
