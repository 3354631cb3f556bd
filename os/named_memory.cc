// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/named_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cohort/os/file.h"
#include "cohort/os/status.h"

namespace cohort::os {
namespace {

constexpr char kFolder[] = "/dev/shm";

constexpr mode_t kMarkedMode = S_ISVTX | S_IRUSR | S_IWUSR;

// Two bytes far behind the end of any file, where nobody else locks.
constexpr off_t kOwnersByte = off_t{1} << 62;

std::string PathOf(const std::string& name) {
  return absl::StrCat(kFolder, "/", name);
}

FileId IdFrom(const struct stat& facts) {
  return {.device = facts.st_dev, .inode = facts.st_ino};
}

absl::Status Refused(std::string_view what, std::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat(absl::string_view(what.data(), what.size()), " ",
                   absl::string_view(why.data(), why.size())));
}

absl::Status Check(const struct stat& facts, const std::string& what) {
  if (!S_ISREG(facts.st_mode)) {
    return Refused(what, "is no regular file; take another name");
  }
  if (facts.st_uid != geteuid()) {
    return Refused(
        what, absl::StrCat("belongs to user ", facts.st_uid, ", not to ",
                           geteuid(), "; only one's own memory is trusted"));
  }
  if ((facts.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Refused(what,
                   "is open to other users; chmod it to 0600 if you "
                   "know who made it so, or take another name");
  }
  if (facts.st_nlink > 1) {
    return Refused(what,
                   "has a second name, which might be somebody's trap; "
                   "take another name");
  }
  return absl::OkStatus();
}

struct flock RangeOf(Claim claim) {
  struct flock range = {};
  range.l_type = claim == Claim::kOwner ? F_RDLCK : F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = claim == Claim::kRemover ? kOwnersByte + 1 : kOwnersByte;
  range.l_len = claim == Claim::kCleaner ? 2 : 1;
  return range;
}

}  // namespace

absl::StatusOr<Descriptor> CreateNamelessMemory(size_t size) {
  Descriptor file(open(kFolder, O_TMPFILE | O_RDWR | O_CLOEXEC, kMarkedMode));
  if (!file.valid()) return ErrnoStatus(errno, "open(O_TMPFILE)", kFolder);
  if (fchmod(file.get(), kMarkedMode) != 0) {
    return ErrnoStatus(errno, "fchmod", kFolder);
  }
  if (absl::Status s = Allocate(file, size); !s.ok()) {
    return absl::Status(s.code(), absl::StrCat(kFolder, ": ", s.message()));
  }
  return file;
}

absl::Status NameMemory(const Descriptor& file, const std::string& name) {
  const std::string from = absl::StrCat("/proc/self/fd/", file.get());
  const std::string to = PathOf(name);
  if (linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), AT_SYMLINK_FOLLOW) !=
      0) {
    return ErrnoStatus(errno, "linkat", to);
  }
  return absl::OkStatus();
}

absl::StatusOr<NamedMemory> OpenNamedMemory(const std::string& name) {
  const std::string path = PathOf(name);
  // Neither waits for the other end of a pipe nor becomes a terminal's owner.
  Descriptor file(open(
      path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file.valid()) {
    switch (errno) {
      case ELOOP:
        return Refused(path,
                       "is a symbolic link, which is not followed; take "
                       "another name");
      case EISDIR:
      case ENXIO:
      case ENODEV:
        return Refused(path, "is no regular file; take another name");
      default:
        return ErrnoStatus(errno, "open", path);
    }
  }
  struct stat facts;
  if (fstat(file.get(), &facts) != 0) return ErrnoStatus(errno, "fstat", path);
  if (absl::Status s = Check(facts, path); !s.ok()) return s;
  return NamedMemory{.file = std::move(file),
                     .id = IdFrom(facts),
                     .size = static_cast<size_t>(facts.st_size)};
}

absl::StatusOr<NamedMemory> CheckNamedMemory(Descriptor file) {
  struct stat facts;
  if (fstat(file.get(), &facts) != 0) {
    return ErrnoStatus(errno, "fstat", "memory received");
  }
  if (absl::Status s = Check(facts, "the memory received"); !s.ok()) return s;
  struct stat folder;
  if (stat(kFolder, &folder) != 0) return ErrnoStatus(errno, "stat", kFolder);
  if (facts.st_dev != folder.st_dev) {
    return Refused("the memory received",
                   "does not lie in /dev/shm; send a region");
  }
  return NamedMemory{.file = std::move(file),
                     .id = IdFrom(facts),
                     .size = static_cast<size_t>(facts.st_size)};
}

absl::StatusOr<FileId> IdOf(const Descriptor& file) {
  struct stat facts;
  if (fstat(file.get(), &facts) != 0) {
    return ErrnoStatus(errno, "fstat", "memory file");
  }
  return IdFrom(facts);
}

bool IsNameOf(const std::string& name, const FileId& id) {
  struct stat facts;
  return lstat(PathOf(name).c_str(), &facts) == 0 && IdFrom(facts) == id;
}

absl::Status RemoveName(const std::string& name) {
  const std::string path = PathOf(name);
  if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, "unlink", path);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> NamesOfMemory() {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(kFolder), closedir);
  if (folder == nullptr) return ErrnoStatus(errno, "opendir", kFolder);
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder.get())) {
    struct stat facts;
    if (fstatat(dirfd(folder.get()), entry->d_name, &facts,
                AT_SYMLINK_NOFOLLOW) == 0 &&
        facts.st_mode == (S_IFREG | kMarkedMode) && facts.st_uid == geteuid()) {
      names.emplace_back(entry->d_name);
    }
  }
  return names;
}

bool TryClaim(const Descriptor& file, Claim claim) {
  struct flock range = RangeOf(claim);
  return fcntl(file.get(), F_OFD_SETLK, &range) == 0;
}

Holder WhoHas(const Descriptor& file) {
  struct flock range = RangeOf(Claim::kOwner);
  range.l_type = F_WRLCK;  // What would be in the way of the strongest lock?
  // What cannot be asked counts as alive.
  if (fcntl(file.get(), F_OFD_GETLK, &range) != 0) return Holder::kOwner;
  switch (range.l_type) {
    case F_UNLCK:
      return Holder::kNobody;
    case F_RDLCK:
      return Holder::kOwner;
    default:
      return Holder::kCleaner;
  }
}

void Nap() {
  const timespec moment = {.tv_sec = 0, .tv_nsec = 50'000};
  nanosleep(&moment, nullptr);
}

}  // namespace cohort::os
