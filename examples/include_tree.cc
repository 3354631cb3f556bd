// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/include_tree.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace cohort_examples {
namespace {

// What `command` writes, as much as there is of it.
std::string OutputOf(const std::string& command) {
  std::string output;
  std::FILE* const pipe = popen(command.c_str(), "re");
  if (pipe == nullptr) return output;
  char some[4096];
  while (const size_t got = std::fread(some, 1, sizeof(some), pipe)) {
    output.append(some, got);
  }
  (void)pclose(pipe);
  return output;
}

}  // namespace

std::vector<std::string> ParseSearchList(std::string_view printed) {
  constexpr std::string_view kBegin = "#include <...> search starts here:\n";
  constexpr std::string_view kEnd = "End of search list.";
  std::vector<std::string> folders;
  size_t at = printed.find(kBegin);
  if (at == std::string_view::npos) return folders;
  at += kBegin.size();
  while (at < printed.size() && !printed.substr(at).starts_with(kEnd)) {
    const size_t end = std::min(printed.find('\n', at), printed.size());
    std::string_view line = printed.substr(at, end - at);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (!line.empty()) folders.emplace_back(line);
    at = end + 1;
  }
  return folders;
}

std::vector<std::string> OutermostFolders(
    const std::vector<std::string>& folders) {
  std::vector<std::string> real;
  for (const std::string& folder : folders) {
    std::error_code error;
    const std::filesystem::path path =
        std::filesystem::canonical(folder, error);
    if (!error && std::filesystem::is_directory(path, error) &&
        !std::filesystem::is_empty(path, error) && !error) {
      real.push_back(path.string());
    }
  }
  // A folder stands right before all that is in it, but for names that go on
  // with a byte below '/': so all earlier ones are looked at.
  std::sort(real.begin(), real.end());
  std::vector<std::string> outermost;
  for (const std::string& path : real) {
    const bool inside =
        std::any_of(outermost.begin(), outermost.end(), [&](const auto& outer) {
          return path == outer ||
                 path.starts_with(outer == "/" ? outer : outer + "/");
        });
    if (!inside) outermost.push_back(path);
  }
  return outermost;
}

std::vector<std::string> IncludeTree() {
  for (const char* compiler : {"c++", "g++", "clang++"}) {
    const std::vector<std::string> found = OutermostFolders(
        ParseSearchList(OutputOf(std::string("LC_ALL=C ") + compiler +
                                 " -E -v -x c++ /dev/null 2>&1 >/dev/null")));
    if (!found.empty()) return found;
  }
  return OutermostFolders({"/usr/include", "/usr/local/include"});
}

}  // namespace cohort_examples
