// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/socket.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/memfd.h"
#include "cohort/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace cohort::os {
namespace {

using ::cohort_testing::IsOk;
using ::cohort_testing::IsOkAndHolds;
using ::cohort_testing::StatusIs;

constexpr Deadline kAtOnce = Deadline::AtNanoseconds(0);

class SocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ends = SocketPair();
    ASSERT_THAT(ends, IsOk());
    here_ = std::move(ends->first);
    there_ = std::move(ends->second);
  }
  Descriptor here_;
  Descriptor there_;
};

TEST_F(SocketTest, KeepsTheBordersOfMessages) {
  ASSERT_THAT(SendMessage(here_, "one", kAtOnce), IsOk());
  ASSERT_THAT(SendMessage(here_, "three", kAtOnce), IsOk());
  EXPECT_EQ(ReceiveMessage(there_, 64, 0, kAtOnce)->bytes, "one");
  EXPECT_EQ(ReceiveMessage(there_, 64, 0, kAtOnce)->bytes, "three");
  EXPECT_THAT(ReceiveMessage(there_, 64, 0, kAtOnce),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(SocketTest, CarriesDescriptorsCloseOnExec) {
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("socket_test", 77);
  ASSERT_THAT(memfd, IsOk());
  const std::vector<int> list(kMostDescriptorsPerMessage, memfd->get());
  ASSERT_THAT(SendMessage(here_, "x", list, kAtOnce), IsOk());
  absl::StatusOr<Message> message =
      ReceiveMessage(there_, 8, kMostDescriptorsPerMessage, kAtOnce);
  ASSERT_THAT(message, IsOk());
  ASSERT_EQ(message->descriptors.size(), kMostDescriptorsPerMessage);
  for (const Descriptor& copy : message->descriptors) {
    EXPECT_THAT(CheckSealedMemfd(copy), IsOkAndHolds(77));
    EXPECT_EQ(fcntl(copy.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
}

TEST_F(SocketTest, TooManyForOneMessageIsRefusedBeforeItIsSent) {
  const std::vector<int> list(kMostDescriptorsPerMessage + 1, 0);
  EXPECT_THAT(SendMessage(here_, "x", list, kAtOnce),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SendMessage(here_, "", kAtOnce),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(SocketTest, UnexpectedDescriptorsAreClosed) {
  absl::StatusOr<Descriptor> memfd = CreateSealedMemfd("socket_test", 1);
  ASSERT_THAT(memfd, IsOk());
  // The lowest free number before, and after the refusal.
  const int free_before = Descriptor(dup(0)).get();
  ASSERT_THAT(SendMessage(here_, "x", {memfd->get()}, kAtOnce), IsOk());
  EXPECT_THAT(ReceiveMessage(there_, 8, 0, kAtOnce),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(Descriptor(dup(0)).get(), free_before);
}

// Whoever shares a socket can switch this on; the kernel then adds a descriptor
// of the sender's process to each message.
TEST_F(SocketTest, AProcessThatTheKernelAddsIsClosed) {
  constexpr int kPassPidfd = 76;  // SO_PASSPIDFD: Linux 6.5
  const int on = 1;
  if (setsockopt(there_.get(), SOL_SOCKET, kPassPidfd, &on, sizeof(on)) != 0) {
    GTEST_SKIP() << "this kernel does not do it";
  }
  const auto second_free = [] {
    const Descriptor first(dup(0));
    return Descriptor(dup(0)).get();
  };
  const int before = second_free();
  ASSERT_THAT(SendMessage(here_, "x", {here_.get()}, kAtOnce), IsOk());
  {
    DescriptorBatch batch;
    char byte;
    size_t size = 0;
    EXPECT_EQ(TryPeek(there_, &byte, 1, &size, &batch), PeekEnd::kDone);
    EXPECT_EQ(batch.size(), 1u);
  }
  EXPECT_EQ(second_free(), before);
  EXPECT_THAT(ReceiveMessage(there_, 64, 1, kAtOnce), IsOk());
  EXPECT_EQ(second_free(), before);
}

TEST_F(SocketTest, AMessageLongerThanExpectedIsNotCutInSilence) {
  ASSERT_THAT(SendMessage(here_, "eleven bytes", kAtOnce), IsOk());
  EXPECT_THAT(ReceiveMessage(there_, 4, 0, kAtOnce),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(SocketTest, NoNumberLeftForADescriptorIsSaid) {
  ASSERT_THAT(SendMessage(here_, "x", {0}, kAtOnce), IsOk());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {3, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::StatusOr<Message> message = ReceiveMessage(there_, 8, 1, kAtOnce);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(message, StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(SocketTest, ReadsWhatIsLeftBeforeTheEnd) {
  ASSERT_THAT(SendMessage(here_, "last", kAtOnce), IsOk());
  here_.Reset();
  EXPECT_EQ(ReceiveMessage(there_, 64, 0, kAtOnce)->bytes, "last");
  EXPECT_THAT(ReceiveMessage(there_, 64, 0, Deadline::Infinite()),
              StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(SendMessage(there_, "x", Deadline::Infinite()),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(SocketTest, LastWordsAreHeardThoughOursWereNotRead) {
  ASSERT_THAT(SendMessage(here_, "never read", kAtOnce), IsOk());
  ASSERT_THAT(SendMessage(there_, "last words", kAtOnce), IsOk());
  there_.Reset();
  absl::StatusOr<Message> last = ReceiveMessage(here_, 64, 0, kAtOnce);
  ASSERT_THAT(last, IsOk());
  EXPECT_EQ(last->bytes, "last words");
  EXPECT_THAT(ReceiveMessage(here_, 64, 0, kAtOnce),
              StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(SocketTest, AFullBufferIsNotNowAndAHugeMessageNever) {
  const std::string block(16 * 1024, 'b');
  absl::Status sent;
  for (int i = 0; i < 1'000 && sent.ok(); ++i) {
    sent = SendMessage(here_, block, kAtOnce);
  }
  EXPECT_THAT(sent, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(SendMessage(there_, std::string(64 << 20, 'b'), kAtOnce),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(SocketTest, PeekLeavesTheMessageAndDropTakesIt) {
  std::vector<Descriptor> files;
  files.push_back(*CreateSealedMemfd("first", 1));
  files.push_back(*CreateSealedMemfd("second", 2));
  ASSERT_EQ(TrySend(here_, "12345678", files), SendEnd::kDone);
  ASSERT_EQ(TrySend(here_, "x", {}), SendEnd::kDone);
  for (int i = 0; i < 2; ++i) {
    char bytes[4];
    size_t size = 0;
    DescriptorBatch batch;
    ASSERT_EQ(TryPeek(there_, bytes, sizeof(bytes), &size, &batch),
              PeekEnd::kDone);
    EXPECT_EQ(size, 8u);
    EXPECT_EQ(std::string(bytes, 4), "1234");
    const std::vector<Descriptor> got = batch.Take();
    EXPECT_EQ(batch.size(), 0u);
    ASSERT_EQ(got.size(), 2u);
    EXPECT_THAT(CheckSealedMemfd(got[1]), IsOkAndHolds(2));
  }
  EXPECT_TRUE(TryDrop(there_));
  char byte = 0;
  size_t size = 0;
  EXPECT_EQ(TryPeek(there_, &byte, 1, &size, nullptr), PeekEnd::kDone);
  EXPECT_EQ(byte, 'x');
  EXPECT_TRUE(TryDrop(there_));
  EXPECT_FALSE(TryDrop(there_));
  EXPECT_EQ(TryPeek(there_, &byte, 1, &size, nullptr), PeekEnd::kNone);
}

TEST_F(SocketTest, PeekWithoutNumbersLosesNothing) {
  std::vector<Descriptor> files;
  files.push_back(*CreateSealedMemfd("first", 1));
  ASSERT_EQ(TrySend(here_, "x", files), SendEnd::kDone);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  char byte = 0;
  size_t size = 0;
  DescriptorBatch batch;
  const PeekEnd end = TryPeek(there_, &byte, 1, &size, &batch);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(end, PeekEnd::kNoNumbers);
  batch.Clear();
  EXPECT_EQ(TryPeek(there_, &byte, 1, &size, &batch), PeekEnd::kDone);
  EXPECT_EQ(batch.size(), 1u);
}

TEST_F(SocketTest, TriesSayWhatIsFullAndWhatIsClosed) {
  SendEnd end = SendEnd::kDone;
  for (int i = 0; i < 100'000 && end == SendEnd::kDone; ++i) {
    end = TrySend(here_, "x", {});
  }
  EXPECT_EQ(end, SendEnd::kFull);
  there_.Reset();
  EXPECT_EQ(TrySend(here_, "x", {}), SendEnd::kFailed);
  char byte;
  size_t size = 0;
  EXPECT_EQ(TryPeek(Descriptor(), &byte, 1, &size, nullptr), PeekEnd::kFailed);
}

TEST_F(SocketTest, IsToldFromOtherFiles) {
  EXPECT_TRUE(IsMessageSocket(here_));
  EXPECT_FALSE(IsMessageSocket(Descriptor()));
  EXPECT_FALSE(IsMessageSocket(*CreateSealedMemfd("file", 1)));
}

}  // namespace
}  // namespace cohort::os
