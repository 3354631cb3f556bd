// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/internal/arena_audit.h"

#include <cstdint>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"

namespace cohort::shm_internal {

std::string ArenaTestPeer::Audit(const ArenaHeap& heap) {
  constexpr uint32_t kInside = 0x80000000;
  // Whoever gets the lock after a death rebuilds.
  (void)heap.Free({});
  const auto& hot = heap.head_->hot;
  if (heap.damaged()) return "damaged";

  // The lists, each page once.
  std::set<uint32_t> in_runs;
  std::set<uint32_t> in_slabs;
  const auto walk = [&](uint32_t first, std::set<uint32_t>& in) {
    uint32_t before = 0;
    for (uint32_t at = first; at != 0; at = heap.PageAt(at - 1).next) {
      if (at > heap.page_count_ || !in.insert(at - 1).second) return false;
      if (heap.pages_[at - 1].before != before) return false;
      before = at;
    }
    return true;
  };
  for (const auto& list : hot.runs) {
    if (!walk(list, in_runs)) return "a list of runs is torn";
  }
  for (const auto& list : hot.slabs) {
    if (!walk(list, in_slabs)) return "a list of slabs is torn";
  }

  bool free_before = false;
  uint64_t runs = 0;
  uint64_t slabs = 0;
  for (uint32_t page = 0; page < heap.page_count_;) {
    const auto& head = heap.pages_[page];
    const uint32_t span = head.span;
    const uint64_t word = head.block;
    if (span == 0 || span > heap.page_count_ - page) {
      return absl::StrCat("page ", page, ": a run of ", span);
    }
    if (span > 1 &&
        heap.pages_[page + span - 1].span != (kInside | (span - 1))) {
      return absl::StrCat("page ", page, ": its last page does not know");
    }
    for (uint32_t i = 1; i < span; ++i) {
      if (StateOf(heap.pages_[page + i].block) != BlockState::kFree) {
        return absl::StrCat("page ", page + i, ": a block inside another");
      }
    }
    const bool free = StateOf(word) == BlockState::kFree;
    if (free && free_before) return absl::StrCat("page ", page, ": not joined");
    free_before = free;
    if (free) {
      ++runs;
      if (in_runs.count(page) == 0) {
        return absl::StrCat("page ", page, ": free and on no list");
      }
    }
    if (StateOf(word) == BlockState::kSlab) {
      uint32_t held = 0;
      uint32_t blocks = 0;
      std::set<uint32_t> free_blocks;
      heap.VisitPage(page, [&](const auto& place, uint64_t block) {
        ++blocks;
        if (StateOf(block) == BlockState::kFree) {
          free_blocks.insert(place.block);
        } else {
          ++held;
        }
      });
      if (head.used != held) {
        return absl::StrCat("page ", page, ": ", held, " held, ",
                            head.used.load(), " counted");
      }
      uint32_t listed = 0;
      for (uint32_t at = head.first_free; at != 0xffff; ++listed) {
        if (free_blocks.erase(at) == 0) {
          return absl::StrCat("page ", page, ": block ", at, " on its list");
        }
        const uint64_t next = UpperOf(heap.WordAt(page, at));
        at = next == 0 ? 0xffff : static_cast<uint32_t>(next - 1);
      }
      if (!free_blocks.empty()) {
        return absl::StrCat("page ", page, ": a free block on no list");
      }
      if ((held < blocks) != (in_slabs.count(page) == 1)) {
        return absl::StrCat("page ", page, ": a slab on the wrong list");
      }
      if (held < blocks) ++slabs;
    }
    page += span;
  }
  if (runs != in_runs.size() || slabs != in_slabs.size()) {
    return "a list has what is none";
  }

  // Who owns blocks is there.
  std::string wrong;
  for (uint32_t page = 0; page < heap.page_count_; ++page) {
    heap.VisitPage(page, [&](const auto&, uint64_t word) {
      const uint32_t owner = OwnerOf(word);
      if (StateOf(word) == BlockState::kProcess &&
          (owner >= ArenaHeap::kProcesses ||
           heap.head_->processes[owner] == 0)) {
        wrong = "a block of no process";
      }
      if (StateOf(word) == BlockState::kObject &&
          (owner >= heap.object_slots_ ||
           (heap.entries_[owner].word & 0xf) == 0)) {
        wrong = "a block of no object";
      }
    });
  }
  return wrong;
}

}  // namespace cohort::shm_internal
