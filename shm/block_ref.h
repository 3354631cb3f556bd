// SPDX-License-Identifier: Apache-2.0
//
// `cohort::BlockRef` names a block of an arena (shm/arena.h) in all processes
// that have the arena: 16 bytes that go into a message, a queue or shared memory.
// One that is stale, or was made up, is refused where it is used.
//
//   absl::StatusOr<cohort::Block> block = arena.Allocate(4096);
//   jobs.Put(block->ref);                           // here
//   arena.Resolve(ref);                             // there

#ifndef COHORT_SHM_BLOCK_REF_H_
#define COHORT_SHM_BLOCK_REF_H_

#include <cstdint>
#include <type_traits>

namespace cohort {

// Contract
//   Placement:      anywhere; 16 bytes. All zero names no block.
//   Thread-safety:  as a number.
//   Process-safety: the same block in every process.
//   Fork-safety:    as a number.
//   Crash-safety:   holds nothing. When the owner of the block has died, it is
//                   stale.
//   Signal-safety:  all of it.
//   Errors:         the arena's.
//   Ordering:       none.
//   Cost:           none.
//   Reference:      docs/design/arena.md.
struct BlockRef {
  uint64_t position = 0;    // Of its first byte in the arena.
  uint64_t generation = 0;  // Which block there: no two of an arena share one.

  explicit operator bool() const { return generation != 0; }
  friend bool operator==(const BlockRef&, const BlockRef&) = default;
};
static_assert(sizeof(BlockRef) == 16 && std::is_trivially_copyable_v<BlockRef>,
              "shared ABI");

}  // namespace cohort

#endif  // COHORT_SHM_BLOCK_REF_H_
