// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Arena` is many objects in one shared memory: blocks of any size that
// several processes take, hand to each other and free, and objects that are
// found by name. What a dead process held comes back.
//
//   absl::StatusOr<cohort::Arena> arena =
//       cohort::Arena::Create({.size = 64 << 20});
//   if (!arena.ok()) return arena.status();
//   absl::StatusOr<cohort::Block> block = arena->Allocate(4096);
//   if (!block.ok()) return block.status();
//   Fill(block->bytes);
//   OrDie(jobs.Put(block->ref));            // 16 bytes; the 4096 stay where
//   ...                                     // they are
//   OrDie(arena->Adopt(ref));               // in the process that got `ref`:
//   auto bytes = arena->Resolve(ref);       // now the block is its own
//   Use(*bytes);
//   OrDie(arena->Free(ref));
//
// A block belongs
//   - to the process that allocated or adopted it, and comes back when that one
//     dies or ends, though its ref may be on the way: Keep() it first, if what
//     is sent shall outlive the sender;
//   - to nobody, after Keep(): it was handed to a structure of yours, and stays
//     until somebody frees or adopts it;
//   - to a named object, all of whose blocks come back by Destroy().
//
// Objects by name are made once, by whoever comes first; containers in them
// allocate from the arena (shm/arena_allocator.h):
//
//   struct Totals { cohort::Mutex mu; int64_t sum ABSL_GUARDED_BY(mu) = 0; };
//   absl::StatusOr<Totals*> totals = arena->FindOrConstruct<Totals>("totals");
//
// For one object alone take Shared<T> (shm/shared.h), for a stream of values a
// queue (ipc/queue.h).

#ifndef COHORT_SHM_ARENA_H_
#define COHORT_SHM_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/shm/arena_allocator.h"
#include "cohort/shm/block_ref.h"
#include "cohort/shm/internal/arena_heap.h"
#include "cohort/shm/region.h"
#include "cohort/shm/sharable.h"
#include "cohort/shm/type_tag.h"

namespace cohort {

struct ArenaOptions {
  // Bytes in all. 3 KiB of them, 1 in 128 and the entries of objects are the
  // arena's own; at least one page of 4096 must be left.
  size_t size = 0;
  // What /proc/PID/maps shows of one without a name. No other purpose.
  std::string label = "arena";
  // How many named objects there can be at a time; 128 bytes each, up to 65535.
  uint32_t objects = 64;
};

// A block, as Allocate() gives it.
struct Block {
  BlockRef ref;
  std::span<std::byte> bytes;
};

// Likewise, with an object in it.
template <typename T>
struct BlockOf {
  BlockRef ref;
  T* object = nullptr;
};

// How an arena is used; see Arena::Count().
using ArenaCount = shm_internal::ArenaCount;

// Arena
//
// |           | Allocate  | Free     | Keep, Adopt  | its process   | Destroy(  |
// |           |           |          |              | dies          | its name) |
// |-----------+-----------+----------+--------------+---------------+-----------|
// | free      | a         | refused  | refused      | --            | --        |
// |           | process's |          |              |               |           |
// | a process | --        | free     | kept; the    | free, when    | --        |
// |           |           |          | caller's     | looked for    |           |
// | kept      | --        | free     | kept; the    | --            | --        |
// |           |           |          | caller's     |               |           |
// | an object | --        | refused  | refused      | stays         | free      |
//
// |         | FindOrConstruct    | Destroy      | the maker, or the destroyer,  |
// | named   |                    |              | dies                          |
// |---------+--------------------+--------------+-------------------------------|
// | absent  | making             | NotFound     | --                            |
// | making  | waits for it       | waits for it | absent, all its blocks free,  |
// |         |                    |              | when looked for               |
// | there   | found              | absent       | stays                         |
//
// Dead processes are looked for by Reap(), by each Attach, and by an Allocate()
// that finds no room.
//
// Contract
//   Placement:      a handle in private memory on a region of its own
//                   (docs/formats/arena.md).
//   Thread-safety:  the handle as a std::shared_ptr; its const members, from any
//                   thread.
//   Process-safety: likewise, in one PID and time namespace. Up to 256 processes
//                   own blocks at a time.
//   Fork-safety:    a handle works in the child, which owns no block: those of
//                   the parent stay the parent's.
//   Crash-safety:   whatever instruction a process dies at, each block is free
//                   or has one owner, and no memory is lost. What stands in a
//                   block is as the dead one left it.
//   Signal-safety:  none.
//   Errors:         InvalidArgument: a size, alignment or name that cannot be.
//                   ResourceExhausted: no room, no entry, too many processes.
//                   FailedPrecondition: a BlockRef that is stale, forged or
//                   another's; an object of another type; what is no arena.
//                   NotFound: no object of that name. DataLoss: the arena holds
//                   what no arena wrote. Whatever stands in it, its locks apart,
//                   no call reads or writes elsewhere, nor goes on for ever.
//   Ordering:       what was written to a block is visible to whoever is given
//                   its ref, and to whoever gets its memory later; what an
//                   object's constructor wrote, to whoever finds it.
//   Cost:           Allocate() + Free() with no rival: four read-modify-writes,
//                   30 ns. A small block takes 8 bytes on top of its size class
//                   (a fifth apart); one of more than 2048 bytes, whole pages of
//                   4096. Objects: a look at each entry. Reap() and Destroy()
//                   read a word for each block.
//   Reference:      Bonwick's slab allocator; Boost.Interprocess's managed
//                   memory; docs/design/arena.md.
class Arena final {
 public:
  // Refers to nothing, until assigned to; its members then refuse.
  Arena() = default;

  static absl::StatusOr<Arena> Create(const ArenaOptions& options);

  // By name, as of a Region (shm/region.h): the arena goes when its last owner
  // has gone, and a name is absent or means an arena that can be used.
  // OpenOrCreate() is FailedPrecondition for an arena of another size.
  static absl::StatusOr<Arena> OpenOrCreate(std::string_view name,
                                            const ArenaOptions& options);
  static absl::StatusOr<Arena> Open(std::string_view name);
  static absl::Status Unlink(std::string_view name);

  // The arena in a region that came from elsewhere. Nothing in it is believed
  // unchecked.
  static absl::StatusOr<Arena> Attach(Region region);

  // A block of at least `size` bytes, of indeterminate content, that belongs to
  // the calling process. `alignment` is a power of two up to 4096.
  [[nodiscard]] absl::StatusOr<Block> Allocate(size_t size,
                                               size_t alignment = 16) const;

  // Gives a block back, whoever owns it.
  absl::Status Free(BlockRef ref) const;

  // The block's bytes in this process, as many as there are. They stay valid
  // while nobody frees it, and this handle or a copy lives.
  [[nodiscard]] absl::StatusOr<std::span<std::byte>> Resolve(
      BlockRef ref) const;

  // From now on it belongs to nobody: no death frees it.
  absl::Status Keep(BlockRef ref) const;

  // From now on it belongs to the calling process, whosever it was.
  absl::Status Adopt(BlockRef ref) const;

  // A block with a T made of `args`. It is never destroyed. What T's constructor
  // throws passes through, and there is no block.
  template <typename T, typename... Args>
  [[nodiscard]] absl::StatusOr<BlockOf<T>> New(Args&&... args) const {
    static_assert(std::is_trivially_destructible_v<T>,
                  "cohort: an object in an arena is never destroyed, so New<T> "
                  "takes only types without a destructor of their own");
    CheckType<T>();
    absl::StatusOr<Block> block = Allocate(sizeof(T), alignof(T));
    if (!block.ok()) return block.status();
    try {
      return BlockOf<T>{block->ref, Construct<T>(block->bytes.data(),
                                                 std::forward<Args>(args)...)};
    } catch (...) {
      (void)Free(block->ref);
      throw;
    }
  }

  // The T that New() made. That it is a T, and not something else, is not
  // checked, but for its size.
  template <typename T>
  [[nodiscard]] absl::StatusOr<T*> Get(BlockRef ref) const {
    CheckType<T>();
    absl::StatusOr<std::span<std::byte>> bytes = Resolve(ref);
    if (!bytes.ok()) return bytes.status();
    if (bytes->size() < sizeof(T) || ref.position % alignof(T) != 0) {
      return WrongType();
    }
    return std::launder(reinterpret_cast<T*>(bytes->data()));
  }

  // Returns all blocks of dead processes, and of objects whose making or ending
  // a death has cut. Returns how many that were.
  int64_t Reap() const;

  // The object of that name, 1 to 48 bytes; where there is none, one made of
  // `args`. If T's constructor takes an ArenaAllocator behind them, it is given
  // the object's. Waits while another process makes it. If a maker dies, the
  // next one begins anew; if the constructor throws, nothing was made: that is
  // ResourceExhausted for std::bad_alloc, and thrown on for all else.
  template <typename T, typename... Args>
  [[nodiscard]] absl::StatusOr<T*> FindOrConstruct(std::string_view name,
                                                   Args&&... args) const {
    CheckType<T>();
    const auto make = [&](void* place, const ArenaAllocator<void>& in) {
      if constexpr (std::is_constructible_v<T, Args...,
                                            const ArenaAllocator<void>&>) {
        Construct<T>(place, std::forward<Args>(args)..., in);
      } else {
        Construct<T>(place, std::forward<Args>(args)...);
      }
    };
    return Typed<T>(
        FindOrMake(name, kObjectTag<T>, sizeof(T), alignof(T), make));
  }

  // The object of that name, if it is there.
  template <typename T>
  [[nodiscard]] absl::StatusOr<T*> Find(std::string_view name) const {
    CheckType<T>();
    return Typed<T>(FindMade(name, kObjectTag<T>, sizeof(T), alignof(T)));
  }

  // Ends the object of that name: all its blocks are free, whatever is or is not
  // linked to them; no destructor runs. Requires that nobody uses it any more.
  absl::Status Destroy(std::string_view name) const;

  // Likewise for all its blocks but the one that it lies in. Returns the
  // allocator of what shall be made anew in there. For an object whose Mutex
  // says that a change was cut by a death; requires that the caller holds it.
  absl::StatusOr<ArenaAllocator<void>> Clear(std::string_view name) const;

  // What is there, by owner. Of several moments, where others are at work.
  [[nodiscard]] ArenaCount Count() const;

  [[nodiscard]] bool empty() const { return !heap_.has_value(); }

  // The memory that it lies in.
  [[nodiscard]] const Region& region() const { return region_; }

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    archive(region_);
  }
  template <typename Archive>
  void load(Archive& archive) {
    Region region;
    archive(region);
    *this = Arena();
    if (region.empty()) return;
    absl::StatusOr<Arena> attached = Attach(std::move(region));
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  friend struct ArenaTestPeer;
  using ArenaHeap = shm_internal::ArenaHeap;

  template <typename T>
  static constexpr uint64_t kObjectTag = TypeTag<T>("object in an arena");

  // What is sharable (shm/sharable.h), and containers by their destructor.
  template <typename T>
  static constexpr void CheckType() {
    using shm_internal::Bar;
    constexpr Bar bar = shm_internal::FindBar<T>();
    shm_internal::CheckBar<bar == Bar::kDestructor ? Bar::kNone : bar>();
    shm_internal::CheckKeepsNothingOnHeap<T>();
  }

  template <typename T, typename... Args>
  static T* Construct(void* place, Args&&... args) {
    if constexpr (std::is_aggregate_v<T>) {
      return ::new (place) T{std::forward<Args>(args)...};
    } else {
      return ::new (place) T(std::forward<Args>(args)...);
    }
  }

  template <typename T>
  static absl::StatusOr<T*> Typed(absl::StatusOr<void*> object) {
    if (!object.ok()) return object.status();
    return std::launder(static_cast<T*>(*object));
  }

  static absl::Status WrongType();

  using Maker = absl::FunctionRef<void(void*, const ArenaAllocator<void>&)>;
  absl::StatusOr<void*> FindOrMake(std::string_view name, uint64_t tag,
                                   size_t size, size_t alignment,
                                   Maker make) const;
  absl::StatusOr<void*> FindMade(std::string_view name, uint64_t tag,
                                 size_t size, size_t alignment) const;
  absl::StatusOr<void*> Make(const ArenaHeap::Object& object, size_t alignment,
                             Maker make) const;
  absl::StatusOr<void*> Check(const ArenaHeap::Object& object, uint64_t tag,
                              size_t size, size_t alignment) const;
  absl::Status CheckName(std::string_view name) const;
  absl::Status Refusal(shm_internal::HeapEnd end, size_t size = 0) const;

  Region region_;
  std::optional<ArenaHeap> heap_;
};

}  // namespace cohort

#endif  // COHORT_SHM_ARENA_H_
