// SPDX-License-Identifier: Apache-2.0
//
// A limit on how many are inside: five guests share two chairs. Then a guest
// is killed on a chair, and the chair is free again.

#include <chrono>
#include <csignal>
#include <iostream>
#include <string>
#include <thread>

#include "cohort/os/or_die.h"
#include "cohort/process/exit_status.h"
#include "cohort/process/init.h"
#include "cohort/process/process.h"
#include "cohort/process/process_group.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/semaphore.h"

namespace {

using cohort::OrDie;

struct Room {
  cohort::Semaphore chairs{2};
};

// In one piece, so that lines of several processes do not mix.
void Say(const std::string& line) { std::cout << line + '\n' << std::flush; }

void Visit(const cohort::Shared<Room>& room, int number) {
  const std::string name = "guest " + std::to_string(number);
  Say(name + " waits");
  cohort::SemaphoreLock chair(room->chairs);
  Say(name + " sits");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  Say(name + " goes");
}

void DieSitting(const cohort::Shared<Room>& room) {
  cohort::SemaphoreLock chair(room->chairs);
  raise(SIGKILL);
}

}  // namespace

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  auto room = OrDie(cohort::Shared<Room>::Create());
  cohort::ProcessGroup guests;
  for (int i = 1; i <= 5; ++i) guests.Start(Visit, room, i);
  OrDie(guests.Join());

  auto guest =
      OrDie(cohort::Process::Start({.name = "guest 6"}, DieSitting, room));
  std::cout << OrDie(guest.Join()) << '\n';
  room->chairs.reclaim();  // As whoever waits does by itself.
  std::cout << room->chairs.value() << " chairs are free\n";
}
