// SPDX-License-Identifier: Apache-2.0
//
// How far a job is, how fast, and how long it will still take: a bar that moves
// on a terminal, or now and then a line elsewhere.
//
//   Progress progress(std::cout, Progress::Style::kBar, total_bytes);
//   progress.Update(done_bytes, absl::Now() - begin);
//   progress.Finish(done_bytes, absl::Now() - begin);
//
//   [=============>                ]  46%  134.2 MiB  312.0 MiB/s  0:01 left

#ifndef COHORT_EXAMPLES_PROGRESS_H_
#define COHORT_EXAMPLES_PROGRESS_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/time/time.h"

namespace cohort_examples {

// "134.2 MiB", "17 B".
std::string FormatBytes(double bytes);
// "1:05", "1:02:03"; parts of a second are rounded up.
std::string FormatMinutes(absl::Duration duration);

class Progress final {
 public:
  enum class Style {
    kBar,    // Redrawn in place, ten times a second at most.
    kLines,  // One line a second at most.
  };

  Progress(std::ostream& out, Style style, uint64_t total)
      : out_(out), style_(style), total_(total) {}

  // `done` of the total after `elapsed`; neither ever shrinks.
  void Update(uint64_t done, absl::Duration elapsed);

  // The last line, which is always written: all is done, and it was `done`.
  void Finish(uint64_t done, absl::Duration elapsed);

  // Makes the terminal's line free for a message; the next Update() draws the
  // bar again.
  void Clear();

  // What stands on the line.
  [[nodiscard]] std::string Line(uint64_t done, absl::Duration elapsed) const;

 private:
  void Write(uint64_t done, absl::Duration elapsed);

  std::ostream& out_;
  Style style_;
  uint64_t total_;
  absl::Duration next_ = absl::ZeroDuration();  // When to write again.
  bool drawn_ = false;                          // A bar stands on the line.
};

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_PROGRESS_H_
