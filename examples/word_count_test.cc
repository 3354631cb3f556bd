// SPDX-License-Identifier: Apache-2.0
//
// Runs the program as a user does, on a tree made here, and compares what it
// prints with a count made here in another way.

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

// Where Bazel puts it, seen from where Bazel runs tests.
constexpr std::string_view kProgram = "examples/word_count";

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

class WordCountTest : public ::testing::TestWithParam<std::string> {
 protected:
  WordCountTest() { std::filesystem::create_directories(tree_); }
  ~WordCountTest() override { std::filesystem::remove_all(root_); }

  // A file of the tree, of which the expected counts know.
  void Write(const std::string& name, const std::string& text) {
    const std::string path = tree_ + "/" + name;
    std::filesystem::create_directories(
        std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
    ++files_;
    bytes_ += text.size();
    std::string word;
    for (const char c : text + " ") {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 128 || std::isalnum(byte) != 0 || c == '_') {
        word += c;
      } else if (!word.empty()) {
        ++counts_[word];
        ++words_;
        word.clear();
      }
    }
  }

  // Folders, small files, one that has to be divided: some megabytes.
  void WriteTree() {
    std::minstd_rand random(7);
    auto text = [&](size_t bytes) {
      const std::string_view between = " \n.,;()\t-";
      std::string all;
      while (all.size() < bytes) {
        // Few long words and many short ones, as in real text.
        const size_t kind = random() % 3000 * (random() % 3000) / 3000;
        all += "w" + std::to_string(kind);
        if (kind % 7 == 0) all += "_\xc3\xa9t\xc3\xa9";
        all += between[random() % between.size()];
      }
      return all;
    };
    Write("large.txt", text(3'000'000));
    for (int i = 0; i < 40; ++i) {
      Write("folder" + std::to_string(i % 5) + "/deep/file" + std::to_string(i),
            text(i * 1000));
    }
  }

  Outcome Run(const std::string& arguments) const {
    const std::string out = root_ + "/out";
    const std::string err = root_ + "/err";
    const int status = std::system((std::string(kProgram) + " " + arguments +
                                    " >" + out + " 2>" + err + " </dev/null")
                                       .c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, Read(out), Read(err)};
  }

  // The program printed exactly what was written into the tree.
  void ExpectExact(const Outcome& outcome) const {
    std::vector<std::pair<int64_t, std::string>> top;
    for (const auto& [word, count] : counts_) top.emplace_back(-count, word);
    std::sort(top.begin(), top.end());
    std::ostringstream expected;
    for (size_t i = 0; i < top.size() && i < 20; ++i) {
      expected << std::setw(9) << -top[i].first << "  " << top[i].second
               << '\n';
    }
    expected << "files     " << files_ << "\nbytes     " << bytes_ << " (";
    EXPECT_THAT(outcome.out, HasSubstr(expected.str()));
    EXPECT_THAT(outcome.out,
                HasSubstr("\nwords     " + std::to_string(words_) + " (" +
                          std::to_string(counts_.size()) + " different)\n"));
  }

  const std::string root_ = ::testing::TempDir() + "/word_count_test";
  const std::string tree_ = root_ + "/tree";
  uint64_t files_ = 0;
  uint64_t bytes_ = 0;
  uint64_t words_ = 0;
  std::map<std::string, int64_t> counts_;
};

TEST_P(WordCountTest, CountsExactly) {
  WriteTree();
  const Outcome outcome =
      Run("--verify --workers=3 --start_method=" + GetParam() + " " + tree_);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  ExpectExact(outcome);
  EXPECT_THAT(outcome.out, HasSubstr(", 3 workers by " + GetParam() + "\n"));
  EXPECT_THAT(outcome.out,
              ContainsRegex("\nverify    exact; serially [0-9.]+ s, speed-up "
                            "[0-9.]+\n$"));
}

TEST_P(WordCountTest, KilledWorkersLoseNothing) {
  WriteTree();
  const std::string flags =
      " --workers=2 --start_method=" + GetParam() + " " + tree_;
  // Some kills in the time that the job takes; a sanitizer makes it long, and
  // with it all that a killed worker has to do again.
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(Run(flags).code, 0);
  const auto calm = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - begin);
  const Outcome outcome =
      Run("--verify --chaos=" +
          std::to_string(std::max<int64_t>(20, calm.count() / 4)) + flags);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  ExpectExact(outcome);
  EXPECT_THAT(outcome.out, HasSubstr("\nverify    exact; "));
  EXPECT_THAT(outcome.out,
              ContainsRegex("\nchaos     [1-9][0-9]* workers killed, [0-9]+ "
                            "attempts retried\n"));
}

INSTANTIATE_TEST_SUITE_P(Methods, WordCountTest,
                         ::testing::Values("spawn", "fork"),
                         [](const auto& suite) { return suite.param; });

using WordCountErrorsTest = WordCountTest;

TEST_F(WordCountErrorsTest, WhatCannotBeReadIsToldAndTheRestCounted) {
  Write("good", "some good words");
  const Outcome outcome =
      Run("--workers=1 " + tree_ + " " + tree_ + "/missing /proc/self/mem");
  EXPECT_EQ(outcome.code, 1);
  ExpectExact(outcome);
  EXPECT_EQ(outcome.err,
            "word_count: " + tree_ + "/missing: No such file or directory\n" +
                "word_count: /proc/self/mem: Input/output error\n");
}

TEST_F(WordCountErrorsTest, LoopOfLinksIsTold) {
  Write("a/good", "some good words");
  std::filesystem::create_symlink("..", tree_ + "/a/up");
  const Outcome outcome = Run("--workers=1 " + tree_);
  EXPECT_EQ(outcome.code, 1);
  ExpectExact(outcome);
  EXPECT_EQ(outcome.err, "word_count: " + tree_ +
                             "/a/up: symbolic link to a folder that it lies "
                             "in, not followed\n");
}

TEST_F(WordCountErrorsTest, WhatHoldsNoTextIsNotedOnly) {
  Write("good", "some good words");
  std::ofstream(tree_ + "/binary") << "ELF" << '\0' << "not words";
  std::filesystem::create_directories(tree_ + "/empty");
  const Outcome outcome = Run("--workers=1 --verify " + tree_);
  EXPECT_EQ(outcome.code, 0);
  ExpectExact(outcome);
  EXPECT_EQ(outcome.err, "word_count: " + tree_ + "/empty: empty folder\n" +
                             "word_count: " + tree_ +
                             "/binary: binary file, not counted\n");
}

TEST_F(WordCountErrorsTest, NothingToCount) {
  const Outcome outcome = Run("--workers=1 --verify " + tree_ + "/missing");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("files     0\n"));
  EXPECT_THAT(outcome.err, HasSubstr("/missing: No such file or directory\n"));
}

TEST_F(WordCountErrorsTest, FullDiskBelowTheOutputIsTold) {
  Write("good", "some good words");
  const int status = std::system((std::string(kProgram) + " --workers=1 " +
                                  tree_ + " >/dev/full 2>" + root_ + "/err")
                                     .c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(Read(root_ + "/err"),
              HasSubstr("the standard output cannot be written"));
}

TEST_F(WordCountErrorsTest, SenselessCommandLines) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--wrokers=2", "--wrokers=2: no such flag; --help lists them\n"},
      {"--workers=0", "--workers=N takes a number from 1 to 1024\n"},
      {"--workers=2x", "--workers=N takes a number from 1 to 1024\n"},
      {"--workers", "--workers=N takes a number from 1 to 1024\n"},
      {"--chaos=-1", "--chaos=MILLISECONDS takes a number from 1 on\n"},
      {"--verify=yes", "this flag takes no value\n"},
      {"--start_method=thread", "--start_method=METHOD takes spawn or fork\n"},
      {"--start_method=forkserver",
       "a fork server does not exist yet; take spawn or fork\n"}};
  for (const auto& [arguments, message] : cases) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("word_count: " + arguments),
                                   HasSubstr(message)));
  }
}

TEST_F(WordCountErrorsTest, HelpNamesEveryFlag) {
  const Outcome outcome = Run("--help");
  EXPECT_EQ(outcome.code, 0);
  for (const char* flag :
       {"--workers", "--start_method", "--verify", "--chaos"}) {
    EXPECT_THAT(outcome.out, HasSubstr(flag));
  }
}

TEST_F(WordCountErrorsTest, BehindTwoDashesAllArePaths) {
  const Outcome outcome = Run("--workers=1 -- --verify");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "word_count: --verify: No such file or directory\n");
}

TEST_F(WordCountErrorsTest, PlainLinesWhereThereIsNoTerminal) {
  Write("good", "some good words");
  const Outcome outcome = Run("--workers=1 " + tree_);
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(outcome.out, Not(HasSubstr("\r")));
  EXPECT_THAT(outcome.out, HasSubstr("100%  15 B  "));
}

TEST_F(WordCountErrorsTest, BarOnATerminal) {
  Write("good", "some good words");
  int terminal;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    execl(std::string(kProgram).c_str(), "word_count", "--workers=1",
          tree_.c_str(), nullptr);
    _exit(127);
  }
  std::string out;
  char some[1024];
  // When the program has gone, read() fails with EIO.
  for (ssize_t got; (got = read(terminal, some, sizeof(some))) > 0;) {
    out.append(some, static_cast<size_t>(got));
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  close(terminal);
  EXPECT_EQ(status, 0);
  EXPECT_THAT(out, HasSubstr("\r\x1b[K[==============================] 100%  "
                             "15 B  "));
  EXPECT_THAT(out, HasSubstr("files     1\r\n"));
}

}  // namespace
