// SPDX-License-Identifier: Apache-2.0
//
// The shortest tour: a pool of processes, a process, and a queue between two.

#include <iostream>
#include <string>

#include "cohort/ipc/queue.h"
#include "cohort/os/or_die.h"
#include "cohort/pool/process_pool.h"
#include "cohort/process/init.h"
#include "cohort/process/process.h"

using cohort::OrDie;

int Square(int x) { return x * x; }

void Greet(cohort::Queue<std::string> out, std::string whom) {
  OrDie(out.Put("hello " + whom));
}

int main(int argc, char** argv) {
  cohort::Init(argc, argv);  // The first line: children begin here.

  cohort::ProcessPool pool = OrDie(cohort::ProcessPool::Create());
  for (int y : OrDie(pool.Map(Square, {1, 2, 3}))) std::cout << y << '\n';

  auto queue = OrDie(cohort::Queue<std::string>::Create());
  auto child = OrDie(cohort::Process::Start(Greet, queue, "world"));
  const bool ok = OrDie(child.Join()).ok();
  queue.Close();  // Whoever may put has ended; what was put stays.
  for (const auto& text : queue.Items()) std::cout << OrDie(text) << '\n';
  return ok ? 0 : 1;
}
