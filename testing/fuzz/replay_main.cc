// SPDX-License-Identifier: Apache-2.0
//
// main() of a fuzz target in builds without a fuzzer: replays the files, and
// those of the folders, that it is given.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void Run(const std::string& bytes, size_t size) {
  // A copy of its own, so that a sanitizer sees one byte too many.
  const std::vector<uint8_t> input(
      bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
  (void)LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      files.push_back(entry.path());
    }
  }
  // A corpus that is not found must not look like one without faults.
  if (files.empty()) {
    std::fprintf(stderr, "no inputs: name files, or folders with files\n");
    return 1;
  }
  std::sort(files.begin(), files.end());
  Run("", 0);
  for (const std::filesystem::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)),
                            std::istreambuf_iterator<char>());
    if (!stream) {
      std::fprintf(stderr, "cannot read %s\n", file.c_str());
      return 1;
    }
    std::printf("%s: %zu bytes\n", file.c_str(), bytes.size());
    std::fflush(stdout);  // The last line names the input that crashes.
    Run(bytes, bytes.size());
    // Cut at each byte, or at some hundred places.
    for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 100) {
      Run(bytes, size);
    }
  }
  return 0;
}
