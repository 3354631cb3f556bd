// SPDX-License-Identifier: Apache-2.0
//
// A start for all at once: three processes wait for an event, a fourth one sets
// it when all of them are there.

#include <iostream>
#include <string>

#include "cohort/os/or_die.h"
#include "cohort/process/init.h"
#include "cohort/process/process_group.h"
#include "cohort/shm/shared.h"
#include "cohort/sync/event.h"
#include "cohort/sync/latch.h"

namespace {

constexpr int kRunners = 3;

struct Race {
  cohort::Latch lined_up{kRunners};
  cohort::Event start;
};

// In one piece, so that lines of several processes do not mix.
void Say(const std::string& line) { std::cout << line + '\n' << std::flush; }

void Run(const cohort::Shared<Race>& race, int number) {
  const std::string name = "runner " + std::to_string(number);
  Say(name + " is at the line");
  race->lined_up.count_down();
  race->start.wait();
  Say(name + " runs");
}

void GiveStart(const cohort::Shared<Race>& race) {
  race->lined_up.wait();
  Say("the start is given");
  race->start.set();  // It stays set: who came late would not wait.
}

}  // namespace

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  auto race = cohort::OrDie(cohort::Shared<Race>::Create());
  cohort::ProcessGroup all;
  for (int i = 1; i <= kRunners; ++i) all.Start(Run, race, i);
  all.Start(GiveStart, race);
  cohort::OrDie(all.Join());
}
