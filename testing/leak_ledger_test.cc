// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/leak_ledger.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "cohort/testing/child.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

namespace cohort_testing {
namespace {

// What a check says; empty where it is content.
std::string Complaint(const LeakLedger& ledger) {
  const ::testing::AssertionResult result = ledger.Check();
  return result ? "" : result.message();
}

LeakLedger Begin() {
  return LeakLedger({.shm_name_part = "cohort_ledger_test",
                     .patience = std::chrono::milliseconds(50)});
}

TEST(LeakLedgerTest, IsContentWithNothing) {
  LeakLedger ledger;
  EXPECT_TRUE(ledger.Check());
}

TEST(LeakLedgerTest, NamesADescriptorAndItsTarget) {
  LeakLedger ledger = Begin();
  const int fd = memfd_create("forgotten", MFD_CLOEXEC);
  const std::string complaint = Complaint(ledger);
  EXPECT_NE(complaint.find("descriptor " + std::to_string(fd) +
                           " -> /memfd:forgotten"),
            std::string::npos)
      << complaint;
  close(fd);
  EXPECT_EQ(Complaint(ledger), "");
}

TEST(LeakLedgerTest, SeesADescriptorReplacedByAnother) {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  LeakLedger ledger = Begin();
  close(fd);
  ASSERT_EQ(open("/dev/zero", O_RDONLY | O_CLOEXEC), fd);
  EXPECT_NE(Complaint(ledger).find("/dev/zero"), std::string::npos);
  close(fd);
}

TEST(LeakLedgerTest, NamesASharedMapping) {
  LeakLedger ledger = Begin();
  const int fd = memfd_create("mapped", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  void* const page = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  const std::string complaint = Complaint(ledger);
  EXPECT_NE(complaint.find("shared mapping"), std::string::npos);
  EXPECT_NE(complaint.find("/memfd:mapped"), std::string::npos);
  munmap(page, 4096);
  EXPECT_EQ(Complaint(ledger), "");
}

TEST(LeakLedgerTest, NamesAChild) {
  LeakLedger ledger = Begin();
  std::optional<Child> child = Child::Fork([] { poll(nullptr, 0, -1); });
  EXPECT_NE(Complaint(ledger).find("child " + std::to_string(child->pid())),
            std::string::npos);
  child.reset();
  EXPECT_EQ(Complaint(ledger), "");
}

TEST(LeakLedgerTest, NamesAThread) {
  LeakLedger ledger = Begin();
  std::promise<void> end;
  std::thread thread([&] { end.get_future().wait(); });
  EXPECT_NE(Complaint(ledger).find("thread "), std::string::npos);
  end.set_value();
  thread.join();
  EXPECT_EQ(Complaint(ledger), "");
}

TEST(LeakLedgerTest, NamesWhatStaysInDevShm) {
  const std::string name = "/cohort_ledger_test." + std::to_string(getpid());
  LeakLedger ledger = Begin();
  const int fd = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
  ASSERT_GE(fd, 0);
  close(fd);
  EXPECT_NE(Complaint(ledger).find("name /dev/shm" + name), std::string::npos);
  shm_unlink(name.c_str());
  EXPECT_EQ(Complaint(ledger), "");
}

TEST(LeakLedgerTest, WaitsForWhatIsJustGoing) {
  LeakLedger ledger({.patience = std::chrono::seconds(60)});
  // Open until the first look at the descriptors has happened, at least.
  std::promise<int> opened;
  std::thread closer([&] {
    const int fd = memfd_create("closing", MFD_CLOEXEC);
    opened.set_value(fd);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    close(fd);
  });
  opened.get_future().wait();
  closer.detach();
  EXPECT_TRUE(ledger.Check());
}

TEST(LeakGuardTest, FailsTheTestThatLeaks) {
  int fd = -1;
  EXPECT_NONFATAL_FAILURE(
      {
        LeakGuard guard({.patience = std::chrono::milliseconds(1)});
        fd = memfd_create("leaked", MFD_CLOEXEC);
      },
      "/memfd:leaked");
  close(fd);
}

}  // namespace
}  // namespace cohort_testing
