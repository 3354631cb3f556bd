// SPDX-License-Identifier: Apache-2.0
//
// The books of an arena, for its tests: each page is in one run, each block in
// one state, and every cache says what the words of the blocks say.
//
//   EXPECT_EQ(Audit(arena), "");
//   EXPECT_EQ(arena.Count().process_blocks, 0u);

#ifndef COHORT_SHM_INTERNAL_ARENA_AUDIT_H_
#define COHORT_SHM_INTERNAL_ARENA_AUDIT_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "cohort/shm/arena.h"
#include "cohort/shm/internal/arena_heap.h"

namespace cohort {

struct ArenaTestPeer {
  static const shm_internal::ArenaHeap& HeapOf(const Arena& arena) {
    return *arena.heap_;
  }
};

namespace shm_internal {

struct ArenaTestPeer {
  // What is wrong; empty where nothing is. Takes the lock, and thus rebuilds the
  // caches if its last holder died.
  static std::string Audit(const ArenaHeap& heap);

  // What whoever gets the lock after a death does.
  static void Rebuild(const ArenaHeap& heap) { heap.Rebuild(); }

  // Fills the vacant slots with processes that never were: of the id of a dead
  // one, but started at other times.
  static void FillSlots(const ArenaHeap& heap, uint64_t dead) {
    for (std::atomic<uint64_t>& who : heap.head_->processes) {
      if (who == 0) who = dead += uint64_t{1} << 22;
    }
  }
};

}  // namespace shm_internal

inline std::string Audit(const Arena& arena) {
  return shm_internal::ArenaTestPeer::Audit(ArenaTestPeer::HeapOf(arena));
}

}  // namespace cohort

#endif  // COHORT_SHM_INTERNAL_ARENA_AUDIT_H_
