// SPDX-License-Identifier: Apache-2.0

#include "cohort/testing/symbol.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace cohort_testing {
namespace {

// The loaded file that covers an address.
struct Object {
  uintptr_t address;
  uintptr_t base = 0;
  std::string file = {};
  bool found = false;
};

int Visit(dl_phdr_info* info, size_t, void* argument) {
  auto& object = *static_cast<Object*>(argument);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && object.address >= begin &&
        object.address - begin < segment.p_memsz) {
      object.base = info->dlpi_addr;
      object.file =
          *info->dlpi_name == '\0' ? "/proc/self/exe" : info->dlpi_name;
      object.found = true;
      return 1;
    }
  }
  return 0;
}

std::string Hex(uintptr_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "+0x%zx", static_cast<size_t>(value));
  return text;
}

std::string Demangle(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : name;
}

// The symbol in a mapped ELF file that covers `offset`; empty if there is none.
std::string FindIn(const std::byte* file, size_t size, uintptr_t offset) {
  const auto* const header = reinterpret_cast<const ElfW(Ehdr)*>(file);
  if (size < sizeof(*header) ||
      std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_shoff + header->e_shnum * sizeof(ElfW(Shdr)) > size) {
    return "";
  }
  const auto* const sections =
      reinterpret_cast<const ElfW(Shdr)*>(file + header->e_shoff);
  for (const unsigned kind : {SHT_SYMTAB, SHT_DYNSYM}) {
    for (int i = 0; i < header->e_shnum; ++i) {
      if (sections[i].sh_type != kind) continue;
      const auto* const symbols =
          reinterpret_cast<const ElfW(Sym)*>(file + sections[i].sh_offset);
      const auto* const names = reinterpret_cast<const char*>(
          file + sections[sections[i].sh_link].sh_offset);
      for (size_t k = 0; k < sections[i].sh_size / sizeof(*symbols); ++k) {
        const int type = symbols[k].st_info & 0xf;
        if ((type == STT_FUNC || type == STT_GNU_IFUNC) &&
            offset >= symbols[k].st_value &&
            offset - symbols[k].st_value < symbols[k].st_size) {
          return Demangle(names + symbols[k].st_name) +
                 Hex(offset - symbols[k].st_value);
        }
      }
    }
  }
  return "";
}

}  // namespace

std::string SymbolAt(uintptr_t address) {
  Object object = {.address = address};
  dl_iterate_phdr(&Visit, &object);
  if (!object.found) return "?" + Hex(address);
  const uintptr_t offset = address - object.base;
  std::string name;
  const int fd = open(object.file.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat stat;
  if (fd >= 0 && fstat(fd, &stat) == 0) {
    const auto size = static_cast<size_t>(stat.st_size);
    void* const file = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file != MAP_FAILED) {
      name = FindIn(static_cast<const std::byte*>(file), size, offset);
      munmap(file, size);
    }
  }
  if (fd >= 0) close(fd);
  if (!name.empty()) return name;
  return object.file.substr(object.file.rfind('/') + 1) + Hex(offset);
}

}  // namespace cohort_testing
