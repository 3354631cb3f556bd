// SPDX-License-Identifier: Apache-2.0

#include "cohort/serialize/code_ref.h"

#include <elf.h>
#include <link.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace cohort {
namespace {

using serialize_internal::AnyFunction;
using serialize_internal::Fingerprint;

struct Segment {
  uint64_t begin;  // From the load address.
  uint64_t end;
};

struct Module {
  uint64_t fingerprint;
  uint64_t base;  // The load address.
  const void* headers;
  std::vector<Segment> code;

  bool Holds(uint64_t offset) const {
    for (const Segment& segment : code) {
      if (offset >= segment.begin && offset < segment.end) return true;
    }
    return false;
  }
};

// What is loaded now, or was when a lookup last failed to find something. The
// first module is the program. Published whole and never freed, so that a
// lookup takes no lock: a child forked while another thread is in here goes on.
struct Table {
  std::vector<Module> modules;
  uint64_t unloads = 0;  // Since the program began; without one, nothing moved.
  std::unique_ptr<const Table> older;
};
std::atomic<const Table*> g_table = nullptr;

constexpr size_t RoundUp(size_t size, size_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

// The build id in the notes of `info`, or an empty view.
std::string_view BuildId(const dl_phdr_info& info) {
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const size_t alignment = header.p_align == 8 ? 8 : 4;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): what the loader reports.
    const char* notes =
        reinterpret_cast<const char*>(info.dlpi_addr + header.p_vaddr);
    size_t at = 0;
    while (at + sizeof(ElfW(Nhdr)) <= header.p_memsz) {
      ElfW(Nhdr) note;
      std::memcpy(&note, notes + at, sizeof(note));
      const size_t name = at + sizeof(note);
      const size_t content = name + RoundUp(note.n_namesz, alignment);
      if (content + note.n_descsz > header.p_memsz) break;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
          std::memcmp(notes + name, ELF_NOTE_GNU, 4) == 0) {
        return {notes + content, note.n_descsz};
      }
      at = content + RoundUp(note.n_descsz, alignment);
    }
  }
  return {};
}

// Eight bytes at a time: it may have to read all the code of a program.
uint64_t Mix(uint64_t hash, const char* data, size_t size) {
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    hash = std::rotl((hash ^ word) * 0x9e3779b97f4a7c15, 29);
  }
  uint64_t rest = size;
  std::memcpy(reinterpret_cast<char*>(&rest) + 1, data, size);
  return std::rotl((hash ^ rest) * 0x9e3779b97f4a7c15, 29);
}

Module Describe(const dl_phdr_info& info) {
  Module module;
  module.base = info.dlpi_addr;
  module.headers = info.dlpi_phdr;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type == PT_LOAD && (header.p_flags & PF_X) != 0) {
      module.code.push_back({header.p_vaddr, header.p_vaddr + header.p_memsz});
    }
  }
  const std::string_view id = BuildId(info);
  if (!id.empty()) {
    module.fingerprint = Fingerprint(id);
    return module;
  }
  // Linked without a build id: what it would have told, the code tells too.
  uint64_t hash = Mix(0, reinterpret_cast<const char*>(info.dlpi_phdr),
                      info.dlpi_phnum * sizeof(ElfW(Phdr)));
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type == PT_LOAD && (header.p_flags & PF_X) != 0 &&
        (header.p_flags & PF_R) != 0) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      hash = Mix(hash,
                 reinterpret_cast<const char*>(info.dlpi_addr + header.p_vaddr),
                 header.p_filesz);
    }
  }
  module.fingerprint = hash;
  return module;
}

// Reads what is loaded and, where that is news, publishes it.
const Table& Refresh() {
  const Table* before = g_table.load(std::memory_order_acquire);
  for (;;) {
    auto table = std::make_unique<Table>();
    struct Walk {
      const Table* before;
      Table* table;
    } walk = {before, table.get()};
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* raw) {
          const auto& [before, table] = *static_cast<Walk*>(raw);
          table->unloads = info->dlpi_subs;
          if (before != nullptr && before->unloads == info->dlpi_subs) {
            for (const Module& known : before->modules) {
              if (known.headers == info->dlpi_phdr) {
                table->modules.push_back(known);
                return 0;
              }
            }
          }
          table->modules.push_back(Describe(*info));
          return 0;
        },
        &walk);
    if (before != nullptr && before->unloads == table->unloads &&
        before->modules.size() == table->modules.size()) {
      return *before;
    }
    table->older.reset(before);
    if (g_table.compare_exchange_strong(before, table.get(),
                                        std::memory_order_acq_rel)) {
      return *table.release();
    }
    (void)table->older.release();  // Another thread's, and still in use.
  }
}

const Table& Current() {
  const Table* table = g_table.load(std::memory_order_acquire);
  return table != nullptr ? *table : Refresh();
}

const Module* ModuleOfAddress(const Table& table, uint64_t address) {
  for (const Module& module : table.modules) {
    if (module.Holds(address - module.base)) return &module;
  }
  return nullptr;
}

const Module* ModuleOfBuild(const Table& table, uint64_t fingerprint) {
  for (const Module& module : table.modules) {
    if (module.fingerprint == fingerprint) return &module;
  }
  return nullptr;
}

std::string Hex(uint64_t number) {
  return absl::StrCat("0x", absl::Hex(number));
}

absl::Status WrongBuild(uint64_t module) {
  return absl::FailedPreconditionError(absl::StrCat(
      "the other process runs a different build: its code is of build ",
      Hex(module), ", and this program, of build ", Hex(BuildFingerprint()),
      ", has no such module; start both from the same file"));
}

absl::Status WrongType() {
  return absl::InvalidArgumentError(
      "a code reference to a function of another type than is called here");
}

}  // namespace

uint64_t BuildFingerprint() { return Current().modules.front().fingerprint; }

namespace serialize_internal {

absl::StatusOr<CodeRef> MakeCodeRef(AnyFunction function, uint64_t signature) {
  if (function == nullptr) {
    return absl::InvalidArgumentError("a null function cannot be sent");
  }
  struct Entry {
    AnyFunction function;
    CodeRef ref;
  };
  thread_local Entry cache[16] = {};
  const auto address = std::bit_cast<uint64_t>(function);
  Entry& entry = cache[(address >> 4) % 16];
  if (entry.function == function) [[likely]] {
    return CodeRef{entry.ref.module, entry.ref.offset, signature};
  }
  const Module* module = ModuleOfAddress(Current(), address);
  if (module == nullptr) module = ModuleOfAddress(Refresh(), address);
  if (module == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the function at ", Hex(address),
                     " is in no loaded module, so no other process has it"));
  }
  entry = {function, {module->fingerprint, address - module->base, 0}};
  return CodeRef{entry.ref.module, entry.ref.offset, signature};
}

absl::StatusOr<AnyFunction> ResolveCodeRef(const CodeRef& ref,
                                           uint64_t signature) {
  if (ref.signature != signature) {
    return WrongType();
  }
  struct Entry {
    CodeRef ref;
    AnyFunction function;
  };
  thread_local Entry cache[16] = {};
  Entry& entry = cache[(ref.offset >> 4) % 16];
  if (entry.function != nullptr && entry.ref == ref) [[likely]] {
    return entry.function;
  }
  const Module* module = ModuleOfBuild(Current(), ref.module);
  if (module == nullptr) module = ModuleOfBuild(Refresh(), ref.module);
  if (module == nullptr) {
    return WrongBuild(ref.module);
  }
  if (!module->Holds(ref.offset)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a code reference to offset ", Hex(ref.offset),
                     ", where its module has no code"));
  }
  entry = {ref, std::bit_cast<AnyFunction>(module->base + ref.offset)};
  return entry.function;
}

namespace {

// How the Itanium C++ ABI spells a pointer to a member function: the code's
// address, or where in the table of virtual functions that address stands; and
// what to add to the object's address. One bit tells which: of the first word,
// or, where code may stand at odd addresses (Arm), of the second.
struct Probe {
  virtual ~Probe() = default;
  virtual void Virtual() {}
};
bool BitIsInAdjustment() {
  return (std::bit_cast<MemberWords>(&Probe::Virtual).adjustment & 1) != 0;
}

constexpr uint64_t kSlots = 4096;  // Virtual functions in a class, at most.

}  // namespace

absl::StatusOr<MemberCodeRef> MakeMemberCodeRef(MemberWords words,
                                                uint64_t signature) {
  const bool in_adjustment = BitIsInAdjustment();
  const bool is_virtual =
      ((in_adjustment ? static_cast<uint64_t>(words.adjustment) : words.code) &
       1) != 0;
  MemberCodeRef ref;
  ref.adjustment = in_adjustment ? words.adjustment >> 1 : words.adjustment;
  if (is_virtual) {
    ref.code = {BuildFingerprint(), 0, signature};
    ref.slot = 1 + (in_adjustment ? words.code : words.code - 1) / 8;
    return ref;
  }
  absl::StatusOr<CodeRef> code =
      MakeCodeRef(std::bit_cast<AnyFunction>(words.code), signature);
  if (!code.ok()) return code.status();
  ref.code = *code;
  return ref;
}

absl::StatusOr<MemberWords> ResolveMemberCodeRef(const MemberCodeRef& ref,
                                                 uint64_t signature) {
  const bool in_adjustment = BitIsInAdjustment();
  if (ref.slot > kSlots ||
      ref.adjustment != static_cast<int32_t>(ref.adjustment)) {
    return absl::InvalidArgumentError(
        "a code reference to a member function that no class has");
  }
  MemberWords words;
  words.adjustment = in_adjustment ? ref.adjustment * 2 : ref.adjustment;
  if (ref.slot == 0) {
    absl::StatusOr<AnyFunction> code = ResolveCodeRef(ref.code, signature);
    if (!code.ok()) return code.status();
    words.code = std::bit_cast<uint64_t>(*code);
    return words;
  }
  if (ref.code.signature != signature) return WrongType();
  if (ref.code.module != BuildFingerprint()) return WrongBuild(ref.code.module);
  words.code = (ref.slot - 1) * 8;
  (in_adjustment ? words.adjustment : reinterpret_cast<int64_t&>(words.code)) |=
      1;
  return words;
}

}  // namespace serialize_internal
}  // namespace cohort
