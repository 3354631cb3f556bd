// SPDX-License-Identifier: Apache-2.0
//
// `cohort_testing::Python` is a Python interpreter in a process of its own,
// Debian's unchanged, which a test tells what to do step by step.
//
//   cohort_testing::Python python;
//   EXPECT_TRUE(python.Run("import struct; packed = struct.pack('q', 7)"));
//   EXPECT_EQ(python.Eval("packed[0]"), "7");
//   EXPECT_EQ(python.Eval("1 // 0"),
//             "ZeroDivisionError: integer division or modulo by zero");
//   EXPECT_EQ(python.Exit(), Exited(0));   // as a script ends
//
// It sees no environment variable PYTHON..., no site packages of the user, and
// dies with the thread that made it.

#ifndef COHORT_TESTING_PYTHON_H_
#define COHORT_TESTING_PYTHON_H_

#include <string>
#include <string_view>

#include "cohort/testing/child.h"
#include "gtest/gtest.h"

namespace cohort_testing {

// A name for something in /dev/shm that nobody can guess or has taken. A
// LeakLedger notices when it stays behind.
std::string UniqueShmName();

// `text` as a literal of Python's.
std::string PythonLiteral(std::string_view text);

class Python final {
 public:
  // Starts it. Where that fails, the test ends with a message.
  Python();
  Python(const Python&) = delete;
  Python& operator=(const Python&) = delete;
  // Kills it if it still runs.
  ~Python();

  // Runs statements at the top level of its module. A failure shows the
  // traceback.
  ::testing::AssertionResult Run(std::string_view statements);

  // What repr() says of an expression's value; "TYPE: MESSAGE" if it raises.
  std::string Eval(std::string_view expression);

  // Lets it end by itself, with all that Python does at its end.
  End Exit();

  Child& process() { return process_; }

 private:
  struct Ends {
    int here;
    int there;
  };
  static Ends Connect();
  static Child Start(const Ends& ends);
  // Whether `*answer` is what it answered, not why there is no answer.
  bool Ask(char kind, std::string_view code, std::string* answer);

  Ends ends_;
  Child process_;
};

}  // namespace cohort_testing

#endif  // COHORT_TESTING_PYTHON_H_
