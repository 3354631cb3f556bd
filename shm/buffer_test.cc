// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/file.h"
#include "cohort/os/memfd.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::Child;
using cohort_testing::Exited;
using cohort_testing::KilledBy;
using cohort_testing::StatusIs;

constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

struct Picture {
  int64_t id = 0;
  Buffer pixels = {};
  template <class A>
  void serialize(A& a) {
    a(id, pixels);
  }
};

// As a carrier does it.
template <typename T>
absl::StatusOr<T> Sent(const T& value) {
  absl::StatusOr<Frame> frame = Encode(value);
  if (!frame.ok()) return frame.status();
  return Decode<T>(*std::move(frame));
}

struct stat Facts(const Buffer& buffer) {
  struct stat facts = {};
  EXPECT_EQ(fstat(buffer.descriptor().get(), &facts), 0);
  return facts;
}

class BufferTest : public testing::Test {
 private:
  cohort_testing::LeakGuard guard_;
};

TEST_F(BufferTest, IsWrittenThenSentThenRead) {
  ASSERT_OK_AND_ASSIGN(Buffer buffer, Buffer::Create(12));
  EXPECT_EQ(buffer.size(), 12u);
  EXPECT_FALSE(buffer.sealed());
  const absl::Span<int32_t> numbers = buffer.MutableAs<int32_t>();
  ASSERT_EQ(numbers.size(), 3u);
  EXPECT_EQ(numbers[2], 0);
  for (int i = 0; i < 3; ++i) numbers[i] = i + 7;

  ASSERT_OK_AND_ASSIGN(const Buffer received, Sent(buffer));
  EXPECT_THAT(received.As<int32_t>(), testing::ElementsAre(7, 8, 9));
  EXPECT_TRUE(received.sealed());
  // The sender's own stays where it was, and can be read.
  EXPECT_TRUE(buffer.sealed());
  EXPECT_EQ(buffer.As<int32_t>().data(), numbers.data());
  EXPECT_EQ(numbers[2], 9);
}

TEST_F(BufferTest, PassesManyHandsWithoutACopy) {
  constexpr size_t kSize = 8 << 20;
  ASSERT_OK_AND_ASSIGN(Buffer pixels, Buffer::Create(kSize));
  for (std::byte& byte : pixels.mutable_bytes()) byte = std::byte{5};
  Picture picture = {.id = 0, .pixels = std::move(pixels)};
  ASSERT_OK(picture.pixels.Seal());
  const struct stat before = Facts(picture.pixels);
  for (int stage = 1; stage <= 5; ++stage) {
    ASSERT_OK_AND_ASSIGN(picture, Sent(picture));
    ++picture.id;
    const struct stat after = Facts(picture.pixels);
    EXPECT_EQ(after.st_ino, before.st_ino);
    EXPECT_EQ(after.st_blocks, before.st_blocks);
  }
  EXPECT_EQ(picture.id, 5);
  EXPECT_EQ(picture.pixels.bytes()[kSize - 1], std::byte{5});
}

TEST_F(BufferTest, EmptyOnesTravel) {
  ASSERT_OK_AND_ASSIGN(Buffer none, Buffer::Create(0));
  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(none.mutable_bytes().empty());
  EXPECT_TRUE(none.As<uint64_t>().empty());
  EXPECT_OK(none.Seal());
  ASSERT_OK_AND_ASSIGN(const Buffer received, Sent(none));
  EXPECT_TRUE(received.empty());
  ASSERT_OK_AND_ASSIGN(const Picture picture, Sent(Picture{.id = 3}));
  EXPECT_TRUE(picture.pixels.empty());
}

TEST_F(BufferTest, TravelsInsideOthers) {
  std::vector<Buffer> some(3);
  for (size_t i = 0; i < some.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(some[i], Buffer::Create(i + 1));
    some[i].mutable_bytes()[i] = std::byte{9};
  }
  ASSERT_OK_AND_ASSIGN(const auto received, Sent(some));
  ASSERT_EQ(received.size(), 3u);
  EXPECT_EQ(received[2].bytes()[2], std::byte{9});
  std::optional<Buffer> maybe = std::move(some[0]);
  ASSERT_OK_AND_ASSIGN(const auto same, Sent(maybe));
  EXPECT_EQ(same->bytes()[0], std::byte{9});
}

TEST_F(BufferTest, SizesBeyondReasonAreRefused) {
  EXPECT_THAT(Buffer::Create(std::numeric_limits<size_t>::max()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Buffer::Create(size_t{1} << 62),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(BufferTest, LargeOnesTakeNoMemoryUntilTouched) {
  ASSERT_OK_AND_ASSIGN(Buffer huge, Buffer::Create(size_t{1} << 36));
  huge.mutable_bytes()[size_t{1} << 35] = std::byte{1};
  ASSERT_OK_AND_ASSIGN(const Buffer received, Sent(huge));
  EXPECT_EQ(received.bytes()[size_t{1} << 35], std::byte{1});
  EXPECT_LT(Facts(received).st_blocks, 10000);
}

// Each way in which a process might change what it has sent, or was sent.
TEST_F(BufferTest, NobodyWritesWhatIsSealed) {
  ASSERT_OK_AND_ASSIGN(Buffer buffer, Buffer::Create(5000));
  const std::span<std::byte> late = buffer.mutable_bytes();
  ASSERT_OK_AND_ASSIGN(const Buffer received, Sent(buffer));
  const auto scribble = [](const std::byte& byte) {
    // Whatever the sanitizers have installed.
    std::signal(SIGSEGV, SIG_DFL);
    const_cast<volatile std::byte&>(byte) = std::byte{1};
  };
  EXPECT_EQ(Child::Fork([&] { scribble(late[0]); }).Wait(), KilledBy(SIGSEGV));
  EXPECT_EQ(Child::Fork([&] { scribble(received.bytes()[0]); }).Wait(),
            KilledBy(SIGSEGV));
  const Buffer* const both[] = {&buffer, &received};
  for (const Buffer* one : both) {
    void* const first = const_cast<std::byte*>(one->bytes().data());
    EXPECT_NE(mprotect(first, 4096, PROT_READ | PROT_WRITE), 0);
    const int fd = one->descriptor().get();
    EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
              MAP_FAILED);
    EXPECT_NE(ftruncate(fd, 0), 0);
    // With a new descriptor, too.
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const os::Descriptor again(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!again.valid()) continue;
    EXPECT_EQ(write(again.get(), "x", 1), -1);
    EXPECT_EQ(ftruncate(again.get(), 0), -1);
    EXPECT_EQ(fallocate(again.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        0, 4096),
              -1);
    EXPECT_EQ(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again.get(), 0),
        MAP_FAILED);
  }
}

TEST_F(BufferTest, WhatIsNotSealedIsRefused) {
  EXPECT_THAT(Buffer::Attach(os::Descriptor()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK_AND_ASSIGN(os::Descriptor loose, os::CreateMemfd("loose"));
  ASSERT_OK(os::Resize(loose, 4096));
  EXPECT_THAT(Buffer::Attach(std::move(loose)), StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(os::Descriptor sized,
                       os::CreateSealedMemfd("sized", 4096));
  EXPECT_THAT(Buffer::Attach(std::move(sized)), StatusIs(kRefused));
  EXPECT_THAT(
      Buffer::Attach(os::Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC))),
      StatusIs(kRefused));
  ASSERT_OK_AND_ASSIGN(os::Descriptor none, os::CreateMemfd("none"));
  ASSERT_OK(os::SealContent(none));
  EXPECT_THAT(Buffer::Attach(std::move(none)), StatusIs(kRefused));
}

// A peer that sends a descriptor which could write, were the file not sealed.
TEST_F(BufferTest, WritableDescriptorOfSealedMemoryIsReadOnly) {
  ASSERT_OK_AND_ASSIGN(os::Descriptor file, os::CreateMemfd("peer"));
  ASSERT_OK(os::Resize(file, 100));
  ASSERT_EQ(pwrite(file.get(), "yes", 3, 0), 3);
  ASSERT_OK(os::SealContent(file));
  ASSERT_OK_AND_ASSIGN(const Buffer buffer, Buffer::Attach(std::move(file)));
  EXPECT_EQ(buffer.size(), 100u);
  EXPECT_EQ(buffer.As<char>()[1], 'e');
  EXPECT_FALSE(os::IsWritable(buffer.descriptor()));
}

// Neither without a descriptor number, nor while somebody else has it mapped
// writable.
TEST_F(BufferTest, StaysWritableWhereItCannotBeSealed) {
  ASSERT_OK_AND_ASSIGN(Buffer buffer, Buffer::Create(4096));
  const std::span<std::byte> bytes = buffer.mutable_bytes();
  bytes[0] = std::byte{1};
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit soft = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &soft), 0);
  const absl::Status refused = buffer.Seal();
  const absl::Status encoded = Encode(buffer).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(encoded, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(buffer.sealed());
  bytes[0] = std::byte{2};

  // A mapping that this one knows nothing of, found by its descriptor.
  int file = -1;
  for (int fd = 0; fd < 1000; ++fd) {
    std::string to(100, '\0');
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t length = readlink(path.c_str(), to.data(), to.size());
    if (length > 0 && to.find("memfd:buffer") != std::string::npos) file = fd;
  }
  void* const other =
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ASSERT_NE(other, MAP_FAILED);
  EXPECT_THAT(buffer.Seal(), StatusIs(kRefused));
  EXPECT_FALSE(buffer.sealed());
  EXPECT_EQ(bytes[0], std::byte{2});
  bytes[0] = std::byte{3};
  munmap(other, 4096);
  ASSERT_OK_AND_ASSIGN(const Buffer received, Sent(buffer));
  EXPECT_EQ(received.bytes()[0], std::byte{3});
}

TEST_F(BufferTest, StaysWithItsMakerUntilItIsSealed) {
  ASSERT_OK_AND_ASSIGN(Buffer open, Buffer::Create(4096));
  open.mutable_bytes()[0] = std::byte{1};
  ASSERT_OK_AND_ASSIGN(Buffer closed, Buffer::Create(4096));
  closed.mutable_bytes()[0] = std::byte{2};
  ASSERT_OK(closed.Seal());
  Child child = Child::Fork([&] {
    EXPECT_TRUE(open.empty());
    EXPECT_TRUE(open.mutable_bytes().empty());
    EXPECT_EQ(closed.bytes()[0], std::byte{2});
    // What lies there now is none of the copy's affair.
    ASSERT_OK_AND_ASSIGN(Buffer other, Buffer::Create(4096));
    other.mutable_bytes()[0] = std::byte{3};
    open = Buffer();
    EXPECT_EQ(other.bytes()[0], std::byte{3});
    pause();
  });
  // The child lives, and has no part in it.
  ASSERT_OK(open.Seal());
  EXPECT_EQ(open.bytes()[0], std::byte{1});
  child.Kill(SIGKILL);
  EXPECT_EQ(child.Wait(), KilledBy(SIGKILL));
}

// Children of another thread that come at any moment of its making, and live on.
TEST_F(BufferTest, IsSealedWhateverOtherThreadsFork) {
  constexpr int kForks = 150;
  std::atomic<int> sealed = 0;
  std::atomic<bool> done = false;
  std::thread forker([&] {
    for (int i = 0; i < kForks; ++i) {
      Child child = Child::Fork([] { pause(); });
      for (const int before = sealed; sealed < before + 2;) {
        std::this_thread::yield();
      }
      child.Kill(SIGKILL);
      child.Wait();
    }
    done = true;
  });
  int refused = 0;
  for (; !done; ++sealed) {
    const absl::StatusOr<Buffer> buffer = Buffer::Create(4096);
    if (!buffer.ok() || !buffer->Seal().ok()) ++refused;
  }
  forker.join();
  EXPECT_EQ(refused, 0) << "of " << sealed;
}

TEST_F(BufferTest, MovesAndIsEmptyThen) {
  ASSERT_OK_AND_ASSIGN(Buffer first, Buffer::Create(10));
  Buffer second = std::move(first);
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.size(), 10u);
  second = Buffer();
  EXPECT_TRUE(second.empty());
}

TEST(BufferDeathTest, MisuseIsFatal) {
  ASSERT_OK_AND_ASSIGN(Buffer buffer, Buffer::Create(10));
  ASSERT_OK(buffer.Seal());
  EXPECT_DEATH((void)buffer.As<int32_t>(), "no whole number");
  EXPECT_DEATH((void)buffer.mutable_bytes(), "after it was sent");
}

}  // namespace
}  // namespace cohort
