// SPDX-License-Identifier: Apache-2.0
//
// Processes that make, open, drop, unlink and sweep the same few names at full
// speed, killed at random and replaced. At every moment a name is absent or
// means a complete region; a living region keeps its name unless somebody
// unlinks it; and when all are dead, Sweep() leaves nothing.

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/named_memory.h"
#include "cohort/shm/region.h"
#include "cohort/testing/child.h"
#include "cohort/testing/leak_ledger.h"
#include "cohort/testing/own_shm.h"
#include "cohort/testing/shared.h"
#include "cohort/testing/status_matchers.h"
#include "cohort/testing/stress.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using cohort_testing::ChaosReport;
using cohort_testing::Child;
using cohort_testing::KillAtRandom;
using cohort_testing::Shared;
using cohort_testing::Worker;

constexpr int kNames = 2;
constexpr size_t kWords = 700;  // More than a page.

struct Books {
  // A name has been unlinked so often, or may be being unlinked.
  std::array<std::atomic<uint64_t>, kNames> unlinks_begun;
  std::array<std::atomic<uint64_t>, kNames> unlinks_ended;
  std::atomic<bool> stop;
  std::atomic<uint64_t> made;
  std::atomic<uint64_t> opened;
  std::atomic<uint64_t> swept;
  std::atomic<uint64_t> unlinked;
  // None of these may happen.
  std::atomic<uint64_t> torn;     // Opened, and not complete.
  std::atomic<uint64_t> lost;     // Held, and its name meant something else.
  std::atomic<uint64_t> strange;  // A status that nobody can explain.
  std::array<char, 300> example;
};

class RegionStressTest : public testing::Test {
 protected:
  // In a /dev/shm of one's own, where that is allowed.
  static void SetUpTestSuite() { (void)cohort_testing::MountOwnShm(); }

  ~RegionStressTest() override {
    for (int i = 0; i < kNames; ++i) (void)Region::Unlink(Name(i));
  }

  std::string Name(int i) const { return prefix_ + "." + std::to_string(i); }

  // All words follow from the first.
  static void Fill(std::span<std::byte> bytes) {
    const uint64_t first = std::random_device()() | uint64_t{1};
    for (uint64_t i = 0; i < kWords; ++i) {
      const uint64_t word = first * (i + 1);
      std::memcpy(bytes.data() + i * 8, &word, 8);
    }
  }
  static bool IsWhole(const Region& region) {
    if (region.size() != kWords * 8 || region.type_tag() != 77) return false;
    std::vector<uint64_t> words(kWords);
    std::memcpy(words.data(), region.bytes().data(), kWords * 8);
    for (uint64_t i = 0; i < kWords; ++i) {
      if (words[i] != words[0] * (i + 1)) return false;
    }
    return words[0] != 0;
  }

  void Expect(const absl::Status& status,
              std::initializer_list<absl::StatusCode> allowed) {
    for (const absl::StatusCode code : allowed) {
      if (status.code() == code) return;
    }
    if (books_->strange++ == 0) {
      std::snprintf(books_->example.data(), books_->example.size(), "%s",
                    status.ToString().c_str());
    }
  }

  // Gets hold of a region by `get`, and looks whether it stays what it is.
  void Hold(int name, std::atomic<uint64_t>& count,
            const std::function<absl::StatusOr<Region>()>& get) {
    Books& books = *books_;
    const uint64_t begun = books.unlinks_begun[name];
    const bool calm = books.unlinks_ended[name] == begun;
    absl::StatusOr<Region> region = get();
    if (!region.ok()) {
      // A rival that is not let run for a second counts as a stopped one.
      Expect(region.status(),
             {absl::StatusCode::kNotFound, absl::StatusCode::kAlreadyExists,
              absl::StatusCode::kUnavailable});
      return;
    }
    ++count;
    const absl::StatusOr<os::FileId> id = os::IdOf(region->descriptor());
    for (int look = 0; look < 3; ++look) {
      if (!IsWhole(*region)) ++books.torn;
      const bool mine = id.ok() && os::IsNameOf(Name(name), *id);
      if (!mine && calm && books.unlinks_begun[name] == begun) ++books.lost;
      sched_yield();
    }
  }

  void Run(bool with_unlink) {
    const RegionOptions options = {.size = kWords * 8, .type_tag = 77};
    const auto each_name = [](auto body) {
      return [body](const Worker& self) {
        for (uint64_t i = 0; !self.Stopping(); ++i) {
          body(static_cast<int>(i / 8 % kNames));
        }
      };
    };
    const auto open_or_create = each_name([&](int name) {
      Hold(name, books_->made,
           [&] { return Region::OpenOrCreate(Name(name), options, Fill); });
    });
    const auto create = each_name([&](int name) {
      Hold(name, books_->made,
           [&] { return Region::CreateNamed(Name(name), options, Fill); });
    });
    const auto open = each_name([&](int name) {
      Hold(name, books_->opened, [&] { return Region::Open(Name(name)); });
    });
    const auto sweep = each_name([&](int) {
      const absl::StatusOr<int> swept = Region::Sweep();
      if (swept.ok()) books_->swept += static_cast<uint64_t>(*swept);
      Expect(swept.status(), {absl::StatusCode::kOk});
    });
    // Lives on, so that the books about it are right.
    const auto unlink_now_and_then = [&] {
      for (uint64_t i = 0; !books_->stop; ++i) {
        const int name = static_cast<int>(i % kNames);
        ++books_->unlinks_begun[name];
        const absl::Status status = Region::Unlink(Name(name));
        ++books_->unlinks_ended[name];
        if (status.ok()) ++books_->unlinked;
        Expect(status, {absl::StatusCode::kOk, absl::StatusCode::kNotFound,
                        absl::StatusCode::kUnavailable});
        usleep(300);
      }
    };
    Child unlinker = Child::Fork([&] {
      if (with_unlink) unlink_now_and_then();
    });
    const ChaosReport report = KillAtRandom(
        {open_or_create, open_or_create, create, open, open, sweep},
        {.duration = cohort_testing::StressSeconds() / 2});
    books_->stop = true;
    EXPECT_EQ(unlinker.Wait(), cohort_testing::Exited(0));
    EXPECT_EQ(report.failures, 0) << report;
    EXPECT_GT(report.kills, 10);
    EXPECT_OK(Region::Sweep());
    for (int i = 0; i < kNames; ++i) {
      struct stat facts;
      EXPECT_NE(lstat(("/dev/shm/" + Name(i)).c_str(), &facts), 0)
          << "all died, and a name is left";
    }
    const Books& books = *books_;
    std::printf("made or met %lu, opened %lu, swept %lu, unlinked %lu\n",
                books.made.load(), books.opened.load(), books.swept.load(),
                books.unlinked.load());
    EXPECT_GT(books.made, 0u);
    EXPECT_GT(books.opened, 0u);
    EXPECT_EQ(books.unlinked > 0, with_unlink);
    EXPECT_EQ(books.torn, 0u);
    EXPECT_EQ(books.lost, 0u);
    EXPECT_EQ(books.strange, 0u) << books.example.data();
  }

  const std::string prefix_ =
      "region_stress_test." + std::to_string(std::random_device()());
  cohort_testing::LeakGuard guard_{{.shm_name_part = prefix_}};
  Shared<Books> books_;
};

TEST_F(RegionStressTest, ALivingRegionKeepsItsName) {
  Run(/*with_unlink=*/false);
}

TEST_F(RegionStressTest, OnlyUnlinkTakesALivingRegionsName) {
  Run(/*with_unlink=*/true);
}

// One makes and drops a region all the time, others look in between any two of
// its steps. Nobody dies, so nobody may lose a name.
TEST_F(RegionStressTest, ANewRegionIsNotTakenForADeadOne) {
  const RegionOptions options = {.size = kWords * 8, .type_tag = 77};
  const auto until_stop = [&](const std::function<void()>& act) {
    return Child::Fork([&] {
      while (!books_->stop) act();
    });
  };
  const auto open = [&] {
    Hold(0, books_->opened, [&] { return Region::Open(Name(0)); });
  };
  Child first = until_stop(open);
  Child second = until_stop(open);
  Child third = until_stop(open);
  const Deadline end = Deadline::After(cohort_testing::StressSeconds() / 2);
  while (!end.Passed()) {
    Hold(0, books_->made,
         [&] { return Region::CreateNamed(Name(0), options, Fill); });
  }
  books_->stop = true;
  for (Child* child : {&first, &second, &third}) {
    EXPECT_EQ(child->Wait(), cohort_testing::Exited(0));
  }
  EXPECT_GT(books_->made, 0u);
  EXPECT_EQ(books_->torn, 0u);
  EXPECT_EQ(books_->lost, 0u);
  EXPECT_EQ(books_->strange, 0u) << books_->example.data();
}

}  // namespace
}  // namespace cohort
