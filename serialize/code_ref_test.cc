// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/code_ref.h"

#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "cohort/testing/child.h"
#include "cohort/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort {
namespace {

using ::cohort_testing::Exited;
using ::cohort_testing::IsOk;
using ::cohort_testing::StatusIs;
using ::testing::HasSubstr;

int Triple(int x) { return 3 * x; }
int Quiet(int x) noexcept { return -x; }

struct First {
  virtual ~First() = default;
  virtual int One() { return 1; }
  int tag = 10;
};
struct Second {
  virtual ~Second() = default;
  virtual int Two() { return 2; }
  int Plain(int x) const { return other + x; }
  int other = 20;
};
struct Both : First, Second {
  int One() override { return 100; }
  int Two() override { return 200; }
};

// What a new process of this program does instead of testing: calls the
// functions that its arguments name and exits with the sum.
int CallWhatIsNamed(char** argv) {
  CodeRef ref;
  MemberCodeRef member;
  for (size_t i = 0; i < sizeof(ref); ++i) {
    const std::string digits(argv[0] + 2 * i, 2);
    reinterpret_cast<unsigned char*>(&ref)[i] =
        static_cast<unsigned char>(std::stoi(digits, nullptr, 16));
  }
  for (size_t i = 0; i < sizeof(member); ++i) {
    const std::string digits(argv[1] + 2 * i, 2);
    reinterpret_cast<unsigned char*>(&member)[i] =
        static_cast<unsigned char>(std::stoi(digits, nullptr, 16));
  }
  auto function = ResolveCodeRef<int(int)>(ref);
  auto virtual_function = ResolveMemberCodeRef<int (Second::*)()>(member);
  if (!function.ok() || !virtual_function.ok()) return 99;
  Both both;
  return (*function)(5) + (both.**virtual_function)() / 10;
}

template <class T>
std::string Hex(const T& value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < sizeof(T); ++i) {
    const auto byte = reinterpret_cast<const unsigned char*>(&value)[i];
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

TEST(CodeRefTest, ComesBackAsTheSameFunction) {
  absl::StatusOr<CodeRef> ref = MakeCodeRef(&Triple);
  ASSERT_THAT(ref, IsOk());
  EXPECT_EQ(ref->module, BuildFingerprint());
  for (int i = 0; i < 3; ++i) {  // The first time, and from the cache.
    auto found = ResolveCodeRef<int(int)>(*ref);
    ASSERT_THAT(found, IsOk());
    EXPECT_EQ(*found, &Triple);
    EXPECT_EQ(*MakeCodeRef(&Triple), *ref);
  }
  EXPECT_EQ((*ResolveCodeRef<int(int)>(*MakeCodeRef(&Quiet)))(4), -4);
}

TEST(CodeRefTest, WorksInSharedLibraries) {
  absl::StatusOr<CodeRef> ref = MakeCodeRef(&::strtol);
  ASSERT_THAT(ref, IsOk());
  auto found = ResolveCodeRef<long(const char*, char**, int)>(*ref);
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ((*found)("12", nullptr, 10), 12);
}

TEST(CodeRefTest, NamesTheFunctionInANewProcessToo) {
  const std::string function = Hex(*MakeCodeRef(&Triple));
  const std::string member = Hex(*MakeMemberCodeRef(&Second::Two));
  auto child = cohort_testing::Child::Fork([&] {
    execl("/proc/self/exe", "code_ref_test", "--call", function.c_str(),
          member.c_str(), nullptr);
    return 98;
  });
  EXPECT_EQ(child.Wait(), Exited(15 + 20));
}

TEST(CodeRefTest, AnotherBuildIsRefused) {
  CodeRef ref = *MakeCodeRef(&Triple);
  ref.module ^= 1;
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(ResolveCodeRef<int(int)>(ref),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("different build")));
  }
  MemberCodeRef member = *MakeMemberCodeRef(&Second::Two);
  member.code.module ^= 1;
  EXPECT_THAT(ResolveMemberCodeRef<int (Second::*)()>(member),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(CodeRefTest, AnotherTypeIsRefused) {
  const CodeRef ref = *MakeCodeRef(&Triple);
  EXPECT_THAT(
      ResolveCodeRef<long(long)>(ref),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another type")));
  const MemberCodeRef member = *MakeMemberCodeRef(&Second::Two);
  EXPECT_THAT(ResolveMemberCodeRef<int (First::*)()>(member),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CodeRefTest, WhatIsNotCodeIsRefused) {
  static int data = 0;
  int (*function)(int) = nullptr;
  EXPECT_THAT(MakeCodeRef(function),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("null")));
  function = std::bit_cast<int (*)(int)>(&data);
  EXPECT_THAT(MakeCodeRef(function),
              StatusIs(absl::StatusCode::kInvalidArgument));
  CodeRef ref = *MakeCodeRef(&Triple);
  const uint64_t base = std::bit_cast<uint64_t>(&Triple) - ref.offset;
  for (uint64_t offset : {std::bit_cast<uint64_t>(&data) - base,
                          uint64_t{1} << 60, ~uint64_t{0}}) {
    ref.offset = offset;
    EXPECT_THAT(ResolveCodeRef<int(int)>(ref),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(CodeRefTest, MemberFunctionsComeBack) {
  Both both;
  auto plain = MakeMemberCodeRef(&Second::Plain);
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ(plain->slot, 0u);
  auto back = ResolveMemberCodeRef<int (Second::*)(int) const>(*plain);
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ((both.**back)(3), 23);

  auto two = MakeMemberCodeRef(&Second::Two);
  ASSERT_THAT(two, IsOk());
  EXPECT_NE(two->slot, 0u);
  EXPECT_EQ((both.**ResolveMemberCodeRef<int (Second::*)()>(*two))(), 200);

  // Seen from the derived class, the object is found behind First.
  int (Both::*inherited)(int) const = &Second::Plain;
  auto adjusted = MakeMemberCodeRef(inherited);
  ASSERT_THAT(adjusted, IsOk());
  EXPECT_NE(adjusted->adjustment, 0);
  auto from_both = ResolveMemberCodeRef<int (Both::*)(int) const>(*adjusted);
  ASSERT_THAT(from_both, IsOk());
  EXPECT_TRUE(*from_both == inherited);
}

TEST(CodeRefTest, MembersThatNoClassHasAreRefused) {
  using Member = int (Second::*)();
  EXPECT_THAT(MakeMemberCodeRef(Member{}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("null")));
  MemberCodeRef ref = *MakeMemberCodeRef(&Second::Two);
  ref.slot = 1'000'000;
  EXPECT_THAT(ResolveMemberCodeRef<Member>(ref),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ref = *MakeMemberCodeRef(&Second::Two);
  ref.adjustment = int64_t{1} << 40;
  EXPECT_THAT(ResolveMemberCodeRef<Member>(ref),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--call") {
    return cohort::CallWhatIsNamed(argv + 2);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
