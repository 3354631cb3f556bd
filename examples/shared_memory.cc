// SPDX-License-Identifier: Apache-2.0
//
// Bytes under a name, for programs that know nothing of each other but that
// name; Python's SharedMemory(name) would find the same. Then one struct under
// a name, which whoever comes first makes for all.

#include <unistd.h>

#include <cstddef>
#include <iostream>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cohort/os/or_die.h"
#include "cohort/process/init.h"
#include "cohort/process/process_group.h"
#include "cohort/shm/region.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/mutex.h"

namespace {

using cohort::OrDie;
using cohort::Region;

// Puts the first ten bytes on one line.
absl::Status Consume(std::string name) {
  absl::StatusOr<Region> memory = Region::Open(name);
  if (!memory.ok()) return memory.status();
  std::string line;
  for (const std::byte byte : memory->bytes().first(10)) {
    absl::StrAppend(&line, line.empty() ? "" : " ", static_cast<int>(byte));
  }
  std::cout << "the consumer sees " << line << std::endl;
  return absl::OkStatus();
}

struct Board {
  cohort::Mutex mu;
  int players ABSL_GUARDED_BY(mu) = 0;
};

absl::Status Play(std::string name) {
  absl::StatusOr<cohort::Shared<Board>> board =
      cohort::Shared<Board>::OpenOrCreate(name);
  if (!board.ok()) return board.status();
  cohort::MutexLock lock((*board)->mu);
  ++(*board)->players;
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  const std::string name = absl::StrCat("cohort-example-", getpid());
  {
    auto memory = OrDie(Region::OpenOrCreate(name, {.size = 1024}));
    for (int i = 0; i < 256; ++i) {
      memory.bytes()[i] = static_cast<std::byte>(i);
    }
    cohort::ProcessGroup consumers;
    consumers.Start(Consume, name);
    OrDie(consumers.Join());
  }
  // No unlink: the name has gone with its last owner, as it would have if that
  // had been killed.
  std::cout << "afterwards: "
            << absl::StatusCodeToString(Region::Open(name).status().code())
            << '\n';

  auto board = OrDie(cohort::Shared<Board>::OpenOrCreate(name));
  cohort::ProcessGroup players;
  for (int i = 0; i < 3; ++i) players.Start(Play, name);
  OrDie(players.Join());
  cohort::MutexLock lock(board->mu);
  std::cout << "players: " << board->players << '\n';
}
