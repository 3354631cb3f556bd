// SPDX-License-Identifier: Apache-2.0
//
// Kills a process at every instruction of Set(). The element is then as it was,
// as it was to be, or says that it is torn; its neighbours are untouched; and a
// survivor sets it.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/shm/shareable_list.h"
#include "cohort/testing/kill_stepper.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::KillAtEveryInstruction;
using cohort_testing::KillPoint;
using cohort_testing::KillReport;

using Value = ShareableList::Value;
using Bytes = ShareableList::Bytes;
using None = ShareableList::None;

struct Change {
  std::string name;
  Value from;
  Value to;
  bool whole;  // Never torn.
};

TEST(ShareableListCrashTest, Set) {
  const Value first = "before";
  const Value last = 7;
  const std::vector<Change> changes = {
      {"int to int", 1, -1, true},
      {"float to float", 1.5, 2.5, true},
      {"bool to bool", true, false, true},
      {"int to float", 1, 2.5, false},
      {"none to int", None(), 5, false},
      {"int to str", 1, "text", false},
      {"str to none", "a longer text", None(), false},
      {"str to str", "one text of 24 bytes", "another text, as long", false},
      {"str to bytes", "one text", Bytes{"another"}, false}};
  ShareableList list;
  const auto is = [](const absl::StatusOr<Value>& element, const Value& value) {
    return element.ok() && *element == value;
  };
  for (const Change& change : changes) {
    const KillReport report = KillAtEveryInstruction(
        {.name = "shareable_list/set, " + change.name,
         .setup =
             [&] {
               absl::StatusOr<ShareableList> fresh =
                   ShareableList::Create({first, change.from, last});
               ASSERT_TRUE(fresh.ok()) << fresh.status();
               list = *std::move(fresh);
             },
         .operation = [&] { list.Set(1, change.to).IgnoreError(); },
         .check =
             [&](const KillPoint& point) {
               const absl::StatusOr<Value> element = list.Get(1);
               if (point.finished()) {
                 EXPECT_TRUE(is(element, change.to)) << element.status();
               } else if (element.ok() || change.whole) {
                 EXPECT_TRUE(is(element, change.from) || is(element, change.to))
                     << element.status();
               } else {
                 EXPECT_TRUE(absl::IsDataLoss(element.status()));
               }
               EXPECT_TRUE(is(list.Get(0), first));
               EXPECT_TRUE(is(list.Get(2), last));
               EXPECT_TRUE(list.Set(1, change.to).ok());
               EXPECT_TRUE(is(list.Get(1), change.to));
             }});
    EXPECT_EQ(report.violations, 0) << report;
    EXPECT_GT(report.points, 20);
  }
}

}  // namespace
}  // namespace cohort
