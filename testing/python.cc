// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/python.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cohort_testing {
namespace {

// What a step may take. No step of a test takes a hundredth of it.
constexpr timeval kPatience = {.tv_sec = 60, .tv_usec = 0};
constexpr size_t kMostBytes = 1 << 17;
constexpr char kStatements = 'S';
constexpr char kExpression = 'E';
constexpr char kDone = 'D';

// Reads messages, a kind and code, and answers each: kDone and the result, or
// another character and the exception.
constexpr char kDriver[] = R"(
import socket, traceback
def serve(scope):
    link = socket.socket(fileno=3)
    while request := link.recv(1 << 17).decode():
        kind, code = request[0], request[1:]
        try:
            if kind == 'E':
                answer = 'D' + repr(eval(code, scope))
            else:
                exec(code, scope)
                answer = 'D'
        except BaseException as error:
            parts = type(error), error, error.__traceback__
            answer = 'X' + (''.join(traceback.format_exception(*parts))
                            if kind == 'S' else
                            ''.join(traceback.format_exception_only(*parts[:2])))
        link.send(answer.encode('utf-8', 'backslashreplace'))
serve({'__name__': '__main__'})
)";

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::abort();
}

}  // namespace

std::string UniqueShmName() {
  uint64_t random[2];
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) Die("getrandom");
  char name[64];
  std::snprintf(name, sizeof(name), "cohort-test-%016llx%016llx",
                static_cast<unsigned long long>(random[0]),
                static_cast<unsigned long long>(random[1]));
  return name;
}

std::string PythonLiteral(std::string_view text) {
  std::string literal = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') {
      literal += {'\\', c};
    } else if (c == '\n') {
      literal += "\\n";
    } else {
      literal += c;
    }
  }
  return literal + "'";
}

Python::Python() : ends_(Connect()), process_(Start(ends_)) {
  close(ends_.there);
}

Python::~Python() { close(ends_.here); }

Python::Ends Python::Connect() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    Die("socketpair");
  }
  if (setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &kPatience,
                 sizeof(kPatience)) != 0) {
    Die("SO_RCVTIMEO");
  }
  return {ends[0], ends[1]};
}

Child Python::Start(const Ends& ends) {
  return Child::Fork([&]() -> int {
    // Out of the way of the 3 that it is to be, which must not be close-on-exec.
    const int spare = fcntl(ends.there, F_DUPFD_CLOEXEC, 4);
    if (spare < 0 || dup2(spare, 3) != 3) Die("dup2");
    execl("/usr/bin/python3", "/usr/bin/python3", "-I", "-c", kDriver, nullptr);
    Die("/usr/bin/python3, which tools/setup installs");
  });
}

bool Python::Ask(char kind, std::string_view code, std::string* answer) {
  const std::string request = kind + std::string(code);
  if (send(ends_.here, request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    *answer = std::string("python is gone: ") + std::strerror(errno);
    return false;
  }
  answer->resize(kMostBytes);
  const ssize_t size = recv(ends_.here, answer->data(), answer->size(), 0);
  if (size <= 0) {
    *answer = size == 0 ? "python has ended"
                        : std::string("no answer: ") + std::strerror(errno);
    return false;
  }
  const bool done = answer->front() == kDone;
  *answer = answer->substr(1, static_cast<size_t>(size) - 1);
  while (!answer->empty() && answer->back() == '\n') answer->pop_back();
  return done;
}

::testing::AssertionResult Python::Run(std::string_view statements) {
  std::string answer;
  if (Ask(kStatements, statements, &answer)) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << statements << "\n" << answer;
}

std::string Python::Eval(std::string_view expression) {
  std::string answer;
  Ask(kExpression, expression, &answer);
  return answer;
}

End Python::Exit() {
  shutdown(ends_.here, SHUT_RDWR);
  return process_.Wait();
}

}  // namespace cohort_testing
