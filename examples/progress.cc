// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/progress.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "absl/strings/str_format.h"

namespace cohort_examples {
namespace {

constexpr int kBarWidth = 30;
constexpr std::string_view kEraseLine = "\r\x1b[K";

}  // namespace

std::string FormatBytes(double bytes) {
  constexpr std::array<const char*, 6> kUnits = {"B",   "KiB", "MiB",
                                                 "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, bytes, kUnits[unit]);
}

std::string FormatMinutes(absl::Duration duration) {
  const auto seconds =
      static_cast<int64_t>(std::ceil(absl::ToDoubleSeconds(duration)));
  if (seconds < 3600) {
    return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
  }
  return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60,
                         seconds % 60);
}

std::string Progress::Line(uint64_t done, absl::Duration elapsed) const {
  const double part = total_ == 0
                          ? 1
                          : static_cast<double>(std::min(done, total_)) /
                                static_cast<double>(total_);
  const double seconds = absl::ToDoubleSeconds(elapsed);
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string line;
  if (style_ == Style::kBar) {
    const int full = static_cast<int>(part * kBarWidth);
    line = "[" + std::string(full, '=');
    if (full < kBarWidth) line += ">" + std::string(kBarWidth - full - 1, ' ');
    line += "] ";
  }
  absl::StrAppendFormat(&line, "%3d%%  %s  %s/s", static_cast<int>(part * 100),
                        FormatBytes(static_cast<double>(done)),
                        FormatBytes(rate));
  if (part < 1 && rate > 0) {
    line += "  " +
            FormatMinutes(absl::Seconds(
                static_cast<double>(total_ - std::min(done, total_)) / rate)) +
            " left";
  }
  return line;
}

void Progress::Update(uint64_t done, absl::Duration elapsed) {
  if (elapsed < next_) return;
  Write(done, elapsed);
}

void Progress::Finish(uint64_t done, absl::Duration elapsed) {
  total_ = done;
  Write(done, elapsed);
  if (style_ == Style::kBar) out_ << '\n' << std::flush;
  drawn_ = false;
}

void Progress::Clear() {
  if (!drawn_) return;
  out_ << kEraseLine << std::flush;
  drawn_ = false;
  next_ = absl::ZeroDuration();
}

void Progress::Write(uint64_t done, absl::Duration elapsed) {
  if (style_ == Style::kBar) {
    out_ << kEraseLine << Line(done, elapsed) << std::flush;
    drawn_ = true;
    next_ = elapsed + absl::Milliseconds(100);
  } else {
    out_ << Line(done, elapsed) << '\n' << std::flush;
    next_ = elapsed + absl::Seconds(1);
  }
}

}  // namespace cohort_examples
