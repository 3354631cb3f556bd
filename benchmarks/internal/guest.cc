// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/internal/guest.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

extern char** environ;

namespace cohort_benchmarks {
namespace {

class Program final {
 public:
  explicit Program(std::vector<std::string> command)
      : command_(std::move(command)) {}
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  ~Program() {
    if (to_ != nullptr) fclose(to_);
    if (from_ != nullptr) fclose(from_);
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }

  absl::StatusOr<double> Play() {
    if (pid_ == 0) {
      if (absl::Status s = Start(); !s.ok()) return s;
    }
    if (fputs("play\n", to_) < 0 || fflush(to_) != 0) return Gone();
    const std::optional<std::string> line = Read();
    if (!line.has_value()) return Gone();
    char* end = nullptr;
    const double figure = strtod(line->c_str(), &end);
    if (end == line->c_str()) return absl::UnavailableError(*line);
    return figure;
  }

 private:
  absl::Status Start() {
    if (access(command_[0].c_str(), X_OK) != 0) {
      return absl::NotFoundError(
          absl::StrCat(command_[0], ": ", strerror(errno)));
    }
    int to[2];
    int from[2];
    if (pipe2(to, O_CLOEXEC) != 0) {
      return absl::InternalError(absl::StrCat("pipe2: ", strerror(errno)));
    }
    if (pipe2(from, O_CLOEXEC) != 0) {
      close(to[0]);
      close(to[1]);
      return absl::InternalError(absl::StrCat("pipe2: ", strerror(errno)));
    }
    std::vector<char*> argv;
    for (std::string& word : command_) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    const int error = posix_spawn(&pid_, command_[0].c_str(), &actions, nullptr,
                                  argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    to_ = fdopen(to[1], "w");
    from_ = fdopen(from[0], "r");
    if (error != 0) {
      pid_ = 0;
      return absl::NotFoundError(
          absl::StrCat(command_[0], ": ", strerror(error)));
    }
    signal(SIGPIPE, SIG_IGN);
    const std::optional<std::string> line = Read();
    if (!line.has_value()) return Gone();
    if (*line != "ready") return absl::UnavailableError(*line);
    return absl::OkStatus();
  }

  std::optional<std::string> Read() {
    char line[1024];
    if (fgets(line, sizeof(line), from_) == nullptr) return std::nullopt;
    line[strcspn(line, "\n")] = '\0';
    return line;
  }

  absl::Status Gone() const {
    return absl::AbortedError(
        absl::StrCat(command_[0], " ended before it gave a figure"));
  }

  std::vector<std::string> command_;
  pid_t pid_ = 0;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

std::string PeerFolder() {
  if (const char* folder = getenv("COHORT_BENCHMARK_PEERS")) return folder;
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
  if (length <= 0) return ".";
  std::string path(self, static_cast<size_t>(length));
  return path.substr(0, path.rfind('/')) + "/../peers";
}

}  // namespace

Player Guest(std::vector<std::string> command) {
  return [program = std::make_shared<Program>(std::move(command))] {
    return program->Play();
  };
}

Player Python(const std::string& figure) {
  return [figure, guest = Player()]() mutable -> absl::StatusOr<double> {
    if (guest == nullptr) {
      constexpr const char* kPython = "/usr/bin/python3";
      if (access(kPython, X_OK) != 0) {
        return absl::NotFoundError(
            "no /usr/bin/python3 on this machine; apt-get install python3");
      }
      guest = Guest({kPython, PeerFolder() + "/python_peer.py", figure});
    }
    return guest();
  };
}

Player Boost(const std::string& figure) {
  const std::string program = PeerFolder() + "/boost_peer";
  if (access(program.c_str(), X_OK) != 0) {
    return [] {
      return absl::NotFoundError(
          "boost_peer was not built; apt-get install libboost-dev");
    };
  }
  return Guest({program, figure});
}

Player Tbb(const std::string& figure) {
  const std::string program = PeerFolder() + "/tbb_peer";
  if (access(program.c_str(), X_OK) != 0) {
    return [] {
      return absl::NotFoundError(
          "tbb_peer was not built; apt-get install libtbb-dev");
    };
  }
  return Guest({program, figure});
}

}  // namespace cohort_benchmarks
