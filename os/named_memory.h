// SPDX-License-Identifier: Apache-2.0
//
// Memory files with a name in /dev/shm, and who has them. A file is complete
// before it gets its name, so nobody ever finds half of one. Who uses it says so
// by a lock that the kernel takes back when the last descriptor and the last
// mapping of that open file are gone, however their processes ended.
//
//   absl::StatusOr<os::Descriptor> file = os::CreateNamelessMemory(size);
//   os::TryClaim(*file, os::Claim::kOwner);
//   absl::Status named = os::NameMemory(*file, "board");
//
//   absl::StatusOr<os::NamedMemory> found = os::OpenNamedMemory("board");
//   if (os::WhoHas(found->file) == os::Holder::kNobody) ...   // all died
//
// Here are single steps; shm/internal/region_name.h puts them in an order that
// holds against rivals and deaths.

#ifndef COHORT_OS_NAMED_MEMORY_H_
#define COHORT_OS_NAMED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"

namespace cohort::os {

// Which file it is, whatever its name. No two living files have the same one.
struct FileId {
  uint64_t device = 0;
  uint64_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};

struct NamedMemory {
  Descriptor file;
  FileId id;
  size_t size = 0;
};

// A memory file of `size` bytes without a name, its pages taken: gone when its
// last descriptor and mapping are. Mode 01600 whatever the umask: the sticky
// bit, which has no meaning for a file, is the mark of those made here.
// ResourceExhausted where /dev/shm is too small.
absl::StatusOr<Descriptor> CreateNamelessMemory(size_t size);

// Gives it the name, for all to see. AlreadyExists where that is taken.
absl::Status NameMemory(const Descriptor& file, const std::string& name);

// Opens what has the name, after a check that it is a regular file of the
// caller's user, that nobody else may read, write or run, and that has no
// second name. NotFound: nothing has it. FailedPrecondition: it is something
// else, such as a symbolic link, which is never followed.
absl::StatusOr<NamedMemory> OpenNamedMemory(const std::string& name);

// The same check for a descriptor that was received, and that it lies in
// /dev/shm. A name it may have lost.
absl::StatusOr<NamedMemory> CheckNamedMemory(Descriptor file);

// The id of an open file.
absl::StatusOr<FileId> IdOf(const Descriptor& file);

// Whether the name means that file now.
bool IsNameOf(const std::string& name, const FileId& id);

// Takes the name away, whatever has it. NotFound where nothing does.
absl::Status RemoveName(const std::string& name);

// The names in /dev/shm of the caller's files with the mark. None is opened: by
// closing a file of another part of this program, such as a database, one would
// take away the locks that it has (fcntl(F_SETLK), which belong to the process).
absl::StatusOr<std::vector<std::string>> NamesOfMemory();

// What may be locked in a file. The locks belong to the open file: to all
// copies of a descriptor, in whichever process, and to its mappings.
enum class Claim {
  kOwner,    // "I use it." Beside other owners and one remover.
  kRemover,  // "I take its name away." Beside owners.
  kCleaner,  // "I take its name away, as nobody uses it." Alone.
};

// Locks it if that needs no wait. Returns true iff it is locked so now.
[[nodiscard]] bool TryClaim(const Descriptor& file, Claim claim);

enum class Holder { kNobody, kOwner, kCleaner };

// Who, other than this open file, owns it or cleans it away.
[[nodiscard]] Holder WhoHas(const Descriptor& file);

// Lets others run for a moment, as between two looks at a name.
void Nap();

}  // namespace cohort::os

#endif  // COHORT_OS_NAMED_MEMORY_H_
