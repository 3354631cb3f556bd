// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/frame.h"

#include <fcntl.h>

#include <new>
#include <string>
#include <utility>

#include "cohort/os/descriptor.h"
#include "cohort/testing/leak_ledger.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

os::Descriptor OpenNull() {
  return os::Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
}

TEST(FrameTest, KeepsWhatIsAppendedWhileItGrows) {
  Frame frame;
  std::string expected;
  for (int i = 0; i < 1000; ++i) {
    const std::string word = "word " + std::to_string(i);
    frame.Append(word);
    expected += word;
  }
  EXPECT_EQ(frame.bytes(), expected);
  frame.Truncate(4);
  EXPECT_EQ(frame.bytes(), "word");
}

TEST(FrameTest, ReusesItsMemoryAfterClear) {
  Frame frame;
  frame.Append(std::string(5000, 'x'));
  const char* data = frame.data();
  const size_t capacity = frame.capacity();
  frame.Clear();
  EXPECT_TRUE(frame.empty());
  EXPECT_EQ(frame.Extend(5000), data);
  EXPECT_EQ(frame.capacity(), capacity);
}

TEST(FrameTest, MovesBytesAndDescriptors) {
  cohort_testing::LeakGuard guard;
  Frame frame("abc");
  frame.descriptors().push_back(OpenNull());
  const int number = frame.descriptors()[0].get();
  Frame moved = std::move(frame);
  EXPECT_TRUE(frame.empty());                // NOLINT: what a move leaves.
  EXPECT_TRUE(frame.descriptors().empty());  // NOLINT
  EXPECT_EQ(moved.bytes(), "abc");
  Frame assigned("old");
  assigned.descriptors().push_back(OpenNull());
  assigned = std::move(moved);
  EXPECT_EQ(assigned.bytes(), "abc");
  ASSERT_EQ(assigned.descriptors().size(), 1u);
  EXPECT_EQ(assigned.descriptors()[0].get(), number);
}

TEST(FrameTest, ClosesItsDescriptors) {
  cohort_testing::LeakGuard guard;
  Frame frame;
  frame.descriptors().push_back(OpenNull());
  frame.descriptors().push_back(OpenNull());
  frame.Clear();
  EXPECT_TRUE(frame.descriptors().empty());
  frame.descriptors().push_back(OpenNull());
}

TEST(FrameTest, AbsurdSizeThrowsAndChangesNothing) {
  Frame frame("abc");
  EXPECT_THROW(frame.Extend(~size_t{0} - 1), std::bad_alloc);
  EXPECT_THROW(frame.Extend(~size_t{0} / 2 - 1), std::bad_alloc);
  EXPECT_EQ(frame.bytes(), "abc");
}

}  // namespace
}  // namespace cohort
