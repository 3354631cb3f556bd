// SPDX-License-Identifier: Apache-2.0
//
// The name of a place in the code of this program, for messages of tests:
//
//   SymbolAt(reinterpret_cast<uintptr_t>(&Run))   // "Run(int)+0x0"
//
// It reads the symbol table of the file that holds the code, so names of static
// functions and lambdas are known too, and no debugger is needed. Without a
// symbol it is the file and the offset in it.

#ifndef COHORT_TESTING_SYMBOL_H_
#define COHORT_TESTING_SYMBOL_H_

#include <cstdint>
#include <string>

namespace cohort_testing {

std::string SymbolAt(uintptr_t address);

}  // namespace cohort_testing

#endif  // COHORT_TESTING_SYMBOL_H_
