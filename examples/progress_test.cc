// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/progress.h"

#include <sstream>
#include <string>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace cohort_examples {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(ProgressTest, FormatsBytesAndTimes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(134.2 * kMiB), "134.2 MiB");
  EXPECT_EQ(FormatMinutes(absl::ZeroDuration()), "0:00");
  EXPECT_EQ(FormatMinutes(absl::Milliseconds(1)), "0:01");
  EXPECT_EQ(FormatMinutes(absl::Seconds(65)), "1:05");
  EXPECT_EQ(FormatMinutes(absl::Seconds(3723)), "1:02:03");
}

TEST(ProgressTest, LineTellsPartRateAndWhatIsLeft) {
  std::ostringstream out;
  const Progress bar(out, Progress::Style::kBar, 400 * kMiB);
  EXPECT_EQ(bar.Line(100 * kMiB, absl::Seconds(2)),
            "[=======>                      ]  25%  100.0 MiB  50.0 MiB/s  "
            "0:06 left");
  EXPECT_EQ(bar.Line(400 * kMiB, absl::Seconds(4)),
            "[==============================] 100%  400.0 MiB  100.0 MiB/s");
  EXPECT_EQ(bar.Line(0, absl::ZeroDuration()),
            "[>                             ]   0%  0 B  0 B/s");
  const Progress lines(out, Progress::Style::kLines, 400 * kMiB);
  EXPECT_EQ(lines.Line(100 * kMiB, absl::Seconds(2)),
            " 25%  100.0 MiB  50.0 MiB/s  0:06 left");
  EXPECT_EQ(out.str(), "");
}

TEST(ProgressTest, MoreThanAnnouncedIsAllOfIt) {
  std::ostringstream out;
  const Progress lines(out, Progress::Style::kLines, kMiB);
  EXPECT_EQ(lines.Line(2 * kMiB, absl::Seconds(1)), "100%  2.0 MiB  2.0 MiB/s");
  const Progress none(out, Progress::Style::kLines, 0);
  EXPECT_EQ(none.Line(0, absl::Seconds(1)), "100%  0 B  0 B/s");
}

TEST(ProgressTest, LinesComeOnceASecondAndAtTheEnd) {
  std::ostringstream out;
  Progress progress(out, Progress::Style::kLines, 4 * kMiB);
  progress.Update(1 * kMiB, absl::Milliseconds(500));
  progress.Update(2 * kMiB, absl::Milliseconds(1000));  // Too soon.
  progress.Update(3 * kMiB, absl::Milliseconds(1500));
  progress.Clear();  // Nothing to clear.
  progress.Finish(4 * kMiB, absl::Milliseconds(1600));
  EXPECT_EQ(out.str(),
            " 25%  1.0 MiB  2.0 MiB/s  0:02 left\n"
            " 75%  3.0 MiB  2.0 MiB/s  0:01 left\n"
            "100%  4.0 MiB  2.5 MiB/s\n");
}

TEST(ProgressTest, BarIsRedrawnInPlace) {
  std::ostringstream out;
  Progress progress(out, Progress::Style::kBar, 4 * kMiB);
  progress.Update(1 * kMiB, absl::Milliseconds(500));
  progress.Update(1 * kMiB, absl::Milliseconds(550));  // Too soon.
  const std::string first =
      "\r\x1b[K" + progress.Line(1 * kMiB, absl::Milliseconds(500));
  EXPECT_EQ(out.str(), first);
  progress.Clear();
  EXPECT_EQ(out.str(), first + "\r\x1b[K");
  progress.Update(1 * kMiB, absl::Milliseconds(560));  // Drawn again at once.
  progress.Finish(4 * kMiB, absl::Milliseconds(600));
  EXPECT_EQ(out.str(),
            first + "\r\x1b[K" + "\r\x1b[K" +
                progress.Line(1 * kMiB, absl::Milliseconds(560)) + "\r\x1b[K" +
                progress.Line(4 * kMiB, absl::Milliseconds(600)) + "\n");
}

}  // namespace
}  // namespace cohort_examples
