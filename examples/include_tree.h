// SPDX-License-Identifier: Apache-2.0
//
// The folders in which the installed C++ compiler looks for headers: real text
// that every machine with a compiler has.

#ifndef COHORT_EXAMPLES_INCLUDE_TREE_H_
#define COHORT_EXAMPLES_INCLUDE_TREE_H_

#include <string>
#include <string_view>
#include <vector>

namespace cohort_examples {

// As the compiler itself says, none inside another, empty ones left out; the
// usual folders where there is no compiler. Empty if there are none either.
std::vector<std::string> IncludeTree();

// The search list in what `c++ -E -v` prints.
std::vector<std::string> ParseSearchList(std::string_view printed);

// `folders` by their real paths, without those that do not exist, have nothing
// in them, or lie in another of them.
std::vector<std::string> OutermostFolders(
    const std::vector<std::string>& folders);

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_INCLUDE_TREE_H_
