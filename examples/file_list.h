// SPDX-License-Identifier: Apache-2.0
//
// The files below some paths, and their division into batches of work.
//
//   FileList list = ListFiles({"/usr/include", "notes.txt"});
//   std::vector<Batch> batches = MakeBatches(list.files, 1 << 20);
//
// Symbolic links are followed. What is reached twice, through a link or because
// it was named twice, is listed once; a link to a folder that it lies in is an
// error.

#ifndef COHORT_EXAMPLES_FILE_LIST_H_
#define COHORT_EXAMPLES_FILE_LIST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cohort/examples/file_counter.h"

namespace cohort_examples {

struct ListedFile {
  std::string path;
  uint64_t size = 0;
};

struct FileList {
  std::vector<ListedFile> files;    // In the order of the paths, then by name.
  std::vector<std::string> notes;   // "PATH: why", of what holds no text,
  std::vector<std::string> errors;  // and of what could not be listed.
};

FileList ListFiles(const std::vector<std::string>& paths);

// All files, in batches of about `batch_bytes`: many small files together, a
// large one in parts.
std::vector<Batch> MakeBatches(const std::vector<ListedFile>& files,
                               uint64_t batch_bytes);

}  // namespace cohort_examples

#endif  // COHORT_EXAMPLES_FILE_LIST_H_
