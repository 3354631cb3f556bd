// SPDX-License-Identifier: Apache-2.0
//
// Kills workers of a pool at random while it works, to show that no result is
// lost.
//
//   Chaos chaos(pool, absl::Milliseconds(100));
//   ... Use the pool ...
//   chaos.Stop();
//   std::cout << chaos.killed() << " workers killed\n";

#ifndef COHORT_EXAMPLES_CHAOS_H_
#define COHORT_EXAMPLES_CHAOS_H_

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "absl/time/time.h"
#include "cohort/pool/process_pool.h"

namespace cohort_examples {

class Chaos final {
 public:
  // Kills the first worker at once and then one after each `rhythm`. The pool
  // must outlive this object.
  Chaos(const cohort::ProcessPool& pool, absl::Duration rhythm);
  ~Chaos() { Stop(); }
  Chaos(const Chaos&) = delete;
  Chaos& operator=(const Chaos&) = delete;

  // No more from here on.
  void Stop();

  // Requires that it was stopped.
  [[nodiscard]] int killed() const { return killed_; }

 private:
  void KillOne();
  void Run();

  const cohort::ProcessPool& pool_;
  const absl::Duration rhythm_;
  std::minstd_rand random_;
  int killed_ = 0;
  std::mutex mu_;
  std::condition_variable stopped_;
  bool stop_ = false;  // Guarded by mu_.
  std::thread thread_;
};

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_CHAOS_H_
