// SPDX-License-Identifier: Apache-2.0

#include "cohort/examples/file_list.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

namespace cohort_examples {
namespace {

using Identity = std::pair<dev_t, ino_t>;

class Lister {
 public:
  // `named` by the user, not met in a folder.
  void Add(const std::string& path, bool named) {
    struct stat facts;
    if (stat(path.c_str(), &facts) != 0) {
      Error(path, std::strerror(errno));
      return;
    }
    const Identity identity = {facts.st_dev, facts.st_ino};
    if (S_ISDIR(facts.st_mode)) {
      if (std::find(above_.begin(), above_.end(), identity) != above_.end()) {
        Error(path, "symbolic link to a folder that it lies in, not followed");
      } else if (seen_.insert(identity).second) {
        above_.push_back(identity);
        AddFolder(path);
        above_.pop_back();
      }
    } else if (S_ISREG(facts.st_mode)) {
      if (seen_.insert(identity).second) {
        list_.files.push_back({path, static_cast<uint64_t>(facts.st_size)});
      }
    } else if (named) {
      Error(path, "neither a file nor a folder");
    } else {
      list_.notes.push_back(path +
                            ": neither a file nor a folder, not counted");
    }
  }

  FileList Finish() && { return std::move(list_); }

 private:
  void AddFolder(const std::string& path) {
    std::error_code error;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator at(path, error), end;
         !error && at != end; at.increment(error)) {
      names.push_back(at->path().filename().string());
    }
    if (error) {
      Error(path, error.message());
    } else if (names.empty()) {
      list_.notes.push_back(path + ": empty folder");
    }
    std::sort(names.begin(), names.end());
    const std::string_view between = path.ends_with('/') ? "" : "/";
    for (const std::string& name : names) {
      Add(path + std::string(between) + name, false);
    }
  }

  void Error(const std::string& path, std::string_view why) {
    list_.errors.push_back(path + ": " + std::string(why));
  }

  FileList list_;
  std::set<Identity> seen_;
  std::vector<Identity> above_;  // The folders that Add() is in.
};

}  // namespace

FileList ListFiles(const std::vector<std::string>& paths) {
  Lister lister;
  for (const std::string& path : paths) lister.Add(path, true);
  return std::move(lister).Finish();
}

std::vector<Batch> MakeBatches(const std::vector<ListedFile>& files,
                               uint64_t batch_bytes) {
  // A file costs something even if it is empty: to open it.
  constexpr uint64_t kFileCost = 512;
  std::vector<Batch> batches;
  uint64_t left = 0;  // Of the last batch.
  for (const ListedFile& file : files) {
    uint64_t begin = 0;
    do {
      const uint64_t rest = file.size - begin;
      // Rather a new batch than a small part.
      if (left == 0 || (left < batch_bytes / 4 && rest > left)) {
        batches.emplace_back();
        left = batch_bytes;
      }
      // The last part takes a small rest, and what the file has grown by.
      const bool last = rest <= left + left / 4;
      const uint64_t end = last ? FilePart::kToTheEnd : begin + left;
      batches.back().push_back({.path = file.path, .begin = begin, .end = end});
      left -= std::min(left, last ? rest + kFileCost : left);
      begin = end;
    } while (begin != FilePart::kToTheEnd);
  }
  return batches;
}

}  // namespace cohort_examples
