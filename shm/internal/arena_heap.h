// SPDX-License-Identifier: Apache-2.0
//
// `ArenaHeap` is the memory of an arena (shm/arena.h): which block is whose,
// from which process, and what was called by a name. It works on a run of bytes
// that several processes map and knows neither handles nor statuses.
//
//   if (ArenaHeap::PagesIn(bytes.size(), 64) == 0) ...    // too small
//   ArenaHeap::Format(bytes, 64);
//   std::optional<ArenaHeap> heap = ArenaHeap::Attach(bytes);
//   ArenaHeap::Taken block = heap->Take(100, 16, BlockState::kProcess);
//   heap->Free({block.position, block.generation});
//
// One word for each block is the truth, and one store to it makes an operation
// true. Lists, counts and what helps to find a neighbour are caches, made anew
// by the first to get the lock after a death. docs/design/arena.md has the
// argument, docs/formats/arena.md the layout.

#ifndef COHORT_SHM_INTERNAL_ARENA_HEAP_H_
#define COHORT_SHM_INTERNAL_ARENA_HEAP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "cohort/shm/block_ref.h"
#include "cohort/sync/internal/short_lock.h"
#include "cohort/sync/mutex.h"

namespace cohort::shm_internal {

// Whose a block is; bits 0-3 of its word.
enum class BlockState : uint32_t {
  kFree = 0,     // Nobody's. Bits 20-63: the next free one of its slab plus 1.
  kProcess = 1,  // Of the process in the slot that bits 4-19 name.
  kKept = 2,     // Of nobody in particular.
  kObject = 3,   // Of the object in the slot that bits 4-19 name.
  kSlab = 4,  // A run of pages cut into blocks of the size class in bits 4-19.
};

// All but a free block's word have a generation in bits 20-63, which no other
// word ever had.
constexpr uint64_t MakeWord(BlockState state, uint32_t owner, uint64_t upper) {
  return upper << 20 | uint64_t{owner} << 4 | static_cast<uint64_t>(state);
}
constexpr BlockState StateOf(uint64_t word) {
  return static_cast<BlockState>(word & 0xf);
}
constexpr uint32_t OwnerOf(uint64_t word) {
  return static_cast<uint32_t>(word >> 4) & 0xffff;
}
constexpr uint64_t UpperOf(uint64_t word) { return word >> 20; }

// What becomes of an object's entry; bits 0-3 of its word, which names its slot
// in bits 4-19 and has a generation as well. All zero is a vacant one.
enum class ObjectState : uint32_t {
  kVacant = 0,
  kMaking = 1,  // The holder of `making` constructs it.
  kLive = 2,
  kEnding = 3,  // The holder of `making` takes its blocks back.
};

enum class HeapEnd {
  kDone,
  kFull,     // No run of free memory is long enough.
  kCrowded,  // All slots for processes, or objects, are taken by living ones.
  kStale,    // The handle, or the object, means nothing any more.
  kForeign,  // The block is not the caller's to do that with.
  kDamaged,  // The shared memory holds what no ArenaHeap wrote.
};

// How many blocks and pages there are, by whom they are held.
struct ArenaCount {
  uint64_t pages = 0;        // Of 4096 bytes.
  uint64_t free_pages = 0;   // In no block and no slab.
  uint64_t free_blocks = 0;  // In slabs.
  uint64_t process_blocks = 0;
  uint64_t kept_blocks = 0;
  uint64_t object_blocks = 0;
  uint64_t objects = 0;
  uint64_t processes = 0;  // Seen and not known to be dead.
};

// ArenaHeap
//
// |      | Take()     | Free()     | Keep() | Adopt()  | its owner dies       |
// |------+------------+------------+--------+----------+----------------------|
// | free | the owner's| kStale     | kStale | kStale   | --                   |
// | held | --         | free       | kept   | caller's | held; free at Reap() |
// | kept | --         | free       | kept   | caller's | --                   |
//
// Contract
//   Placement:      a view in private memory on bytes that begin at a page.
//   Thread-safety:  every member.
//   Process-safety: every member, in one PID and time namespace.
//   Fork-safety:    a view works in the child, which owns nothing.
//   Crash-safety:   any step may be the last one of its process.
//   Signal-safety:  none.
//   Errors:         HeapEnd. Whatever the bytes hold, no access is outside of
//                   them and each call ends.
//   Ordering:       what was written to a block before it was freed or its
//                   owner died is visible to whoever takes it.
//   Cost:           Take() and Free(): one ShortLock section each, and a cache
//                   line or two. After a death under the lock: all of the
//                   memory's words are read once.
//   Reference:      docs/design/arena.md.
class ArenaHeap final {
 public:
  static constexpr uint64_t kPageSize = 4096;
  static constexpr uint32_t kProcesses = 256;
  static constexpr uint32_t kMaxObjects = 0xffff;
  static constexpr size_t kMaxName = 48;
  static constexpr size_t kMaxAlignment = kPageSize;
  static constexpr uint32_t kClasses = 24;

  // How many pages of blocks there are in `size` bytes; 0 where none fits.
  static uint32_t PagesIn(uint64_t size, uint32_t object_slots);

  // Makes zero-filled bytes an arena. Requires that PagesIn() finds some.
  static void Format(std::span<std::byte> bytes, uint32_t object_slots);

  // A view on what Format() made; nothing where the bytes say otherwise.
  static std::optional<ArenaHeap> Attach(std::span<std::byte> bytes);

  // Likewise, but believes what stands there. For pointers that stand in shared
  // memory themselves.
  static ArenaHeap At(void* bytes);

  struct Taken {
    HeapEnd end = HeapEnd::kFull;
    BlockRef ref;
    std::byte* bytes = nullptr;
    size_t size = 0;
  };

  // A block of `size` bytes or more. `object` matters to kObject alone. Takes
  // home what dead processes hold, if else there is not enough. Requires a power
  // of two up to kMaxAlignment.
  [[nodiscard]] Taken Take(size_t size, size_t alignment, BlockState state,
                           uint64_t object = 0) const;

  // What the handle means, without the lock.
  [[nodiscard]] Taken Look(BlockRef ref) const;

  [[nodiscard]] HeapEnd Free(BlockRef ref) const;
  [[nodiscard]] HeapEnd Keep(BlockRef ref) const;
  [[nodiscard]] HeapEnd Adopt(BlockRef ref) const;

  // Frees the block that begins there and belongs to this object.
  [[nodiscard]] HeapEnd FreeOf(uint64_t object, const void* block) const;

  // Frees what dead processes held, and what belongs to objects that were being
  // made or ended by them. Returns how many blocks that was.
  uint64_t Reap() const;

  // Objects. An object's id is its slot and a generation.

  struct Object {
    ObjectState state = ObjectState::kVacant;
    uint32_t slot = 0;
    uint64_t word = 0;
    uint64_t tag = 0;
    uint64_t size = 0;
    uint64_t position = 0;

    [[nodiscard]] uint64_t id() const { return word >> 4; }
  };

  // The entry of that name, or a vacant one; nothing where neither is there.
  [[nodiscard]] std::optional<Object> FindObject(std::string_view name) const;

  // The lock that is held while an object is made and ended. Whoever gets it and
  // finds that word in the entry, in one of these two states, succeeds to a dead
  // process.
  [[nodiscard]] Mutex& making(uint32_t slot) const;

  // The next steps require that the caller holds making(slot).

  // Begins an object in a vacant entry; nothing if by now it is not vacant, or
  // another entry has that name.
  [[nodiscard]] std::optional<Object> BeginObject(const Object& vacant,
                                                  std::string_view name,
                                                  uint64_t tag,
                                                  uint64_t size) const;
  // Lets all see it, the object itself being the block at `position`.
  void PublishObject(const Object& object, uint64_t position) const;
  // Takes all its blocks back and vacates its entry. Does nothing if the entry
  // has changed since `object` was found. Returns how many blocks that was.
  uint64_t EndObject(const Object& object) const;
  // Takes all its blocks back but the one that it lies in.
  void ClearObject(const Object& object) const;

  // The object's bytes; null where the shared memory holds nonsense.
  [[nodiscard]] std::byte* BytesOf(const Object& object,
                                   size_t alignment) const;

  // From the words of all blocks.
  [[nodiscard]] ArenaCount Count() const;

  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] bool damaged() const;

  // The largest block that a fresh arena can have.
  [[nodiscard]] uint64_t max_block() const { return page_count_ * kPageSize; }

 private:
  friend struct ArenaTestPeer;

  // One for each page of blocks. `block` is the truth, and `span` is where the
  // page is the first of its run; the others are caches.
  struct Page {
    // Of the run that begins here, or kFree.
    std::atomic<uint64_t> block;
    // How many pages the run has that begins here; or kInside and how many pages
    // before this one it begins, which is right in the last page of each run and
    // in all pages of slabs.
    std::atomic<uint32_t> span;
    // In the list of its size, each plus 1; 0 ends it.
    std::atomic<uint32_t> next;
    std::atomic<uint32_t> before;
    // Of a slab: its first free block, or kNoBlock; how many are not free.
    std::atomic<uint16_t> first_free;
    std::atomic<uint16_t> used;
    std::atomic<uint64_t> reserved;  // Zero.
  };
  static_assert(sizeof(Page) == 32, "shared ABI");

  struct Entry {
    Mutex making;
    std::atomic<uint64_t> word;  // The truth.
    std::atomic<uint64_t> tag;
    std::atomic<uint64_t> size;
    std::atomic<uint64_t> position;  // Of its block.
    std::atomic<uint64_t> name_size;
    std::array<std::atomic<uint64_t>, kMaxName / 8>
        name;  // Zero behind its end.
  };
  static_assert(sizeof(Entry) == 128, "shared ABI");

  using List = std::atomic<uint32_t>;

  // A name as it stands in an entry; `size` 0 is none.
  struct Name {
    explicit Name(std::string_view text);
    uint64_t size = 0;
    std::array<uint64_t, kMaxName / 8> words = {};
  };

  struct Head {
    // Written once, by Format().
    uint64_t magic;
    uint32_t version;
    uint32_t object_slots;
    uint64_t size;
    uint32_t page_count;
    uint32_t pages_at;  // Where the first page of blocks begins.
    std::atomic<uint32_t> damaged;

    struct alignas(128) Hot {
      sync_internal::ShortLock lock;
      uint32_t reserved;
      std::atomic<uint64_t> generation;  // The last one given away.
      std::array<List, kClasses> slabs;  // With a free block, by size class.
      std::array<List, 32> runs;         // Free, by the power of two of pages.
    } hot;

    // os::ProcessIdentity bits; 0 is vacant. Each is vacated when all blocks of
    // a dead process are free.
    alignas(128) std::array<std::atomic<uint64_t>, kProcesses> processes;
  };
  static_assert(sizeof(Head) == 2432, "shared ABI");

  // Where a block is: its word, and what the caches of its page need.
  struct Place {
    std::atomic<uint64_t>* word = nullptr;
    uint32_t page = 0;               // The first of its run.
    uint32_t block = 0;              // In its slab.
    uint32_t size_class = kClasses;  // Or that, for a run of its own.
    uint64_t slab = 0;               // The slab's word.
    uint64_t position = 0;
    uint64_t size = 0;
  };

  class Section;

  ArenaHeap(std::byte* base, uint32_t object_slots, uint32_t page_count,
            uint32_t pages_at);

  // Where the blocks begin: behind the head and all entries, at a page.
  static uint64_t PagesAt(uint64_t object_slots, uint64_t page_count);

  Page& PageAt(uint32_t index) const;
  std::byte* BytesAt(uint32_t page) const;
  std::atomic<uint64_t>& WordAt(uint32_t page, uint32_t block) const;
  uint64_t NextGeneration() const;
  void Damage() const;

  void Link(List& list, uint32_t page) const;
  void Unlink(List& list, uint32_t page) const;
  List& RunsOf(uint32_t pages) const;
  void SetLast(uint32_t page, uint32_t pages) const;

  bool Locate(uint64_t position, Place& place) const;
  HeapEnd LocateHeld(BlockRef ref, Place& place, uint64_t& word) const;
  std::optional<uint32_t> TakeRun(uint32_t pages) const;
  void FreeRun(uint32_t page) const;
  bool MakeSlab(uint32_t size_class) const;
  void DropSlab(uint32_t page, uint32_t size_class) const;
  Taken TakeLocked(uint32_t size_class, uint32_t pages, BlockState state,
                   uint32_t owner) const;
  void FreeLocked(const Place& place) const;
  bool DropEmptySlabs() const;
  std::optional<uint32_t> FindProcess() const;
  bool ObjectTakes(uint64_t object) const;

  void Rebuild() const;
  uint32_t RebuildSlab(uint32_t page, uint32_t size_class) const;

  template <typename Matches, typename Still>
  uint64_t FreeAll(Still still, Matches matches) const;
  void VisitPage(uint32_t page,
                 absl::FunctionRef<void(const Place&, uint64_t)> visit) const;
  uint64_t FreeAllOf(uint32_t slot, uint64_t word, uint64_t but) const;
  uint64_t ReapObjects() const;
  std::optional<Object> FindLocked(const Name& name) const;

  std::byte* base_;
  Head* head_;
  Entry* entries_;
  Page* pages_;
  // Copies of what stands in shared memory, taken and checked once.
  uint32_t object_slots_;
  uint32_t page_count_;
  uint64_t pages_at_;
};

}  // namespace cohort::shm_internal

#endif  // COHORT_SHM_INTERNAL_ARENA_HEAP_H_
