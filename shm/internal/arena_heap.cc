// SPDX-License-Identifier: Apache-2.0

#include "cohort/shm/internal/arena_heap.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "absl/base/thread_annotations.h"
#include "cohort/os/process_identity.h"

namespace cohort::shm_internal {
namespace {

constexpr uint64_t kMagic = 0x314e455241484f43;  // "COHAREN1"
constexpr uint32_t kVersion = 1;

// Of Page::span, as told there.
constexpr uint32_t kInside = 0x80000000;
// Of Page::first_free.
constexpr uint16_t kNoBlock = 0xffff;

// Pages for which the lock is held at once where all are looked through.
constexpr uint32_t kBatch = 64;

constexpr uint64_t kPage = ArenaHeap::kPageSize;

// A slab has one word for each block at its beginning and its blocks at its end,
// so that a block is aligned to whatever its size is a multiple of.
struct SizeClass {
  uint16_t size;
  uint16_t pages;
  uint16_t blocks;
  uint32_t inverse;  // 2^32 / size, rounded up: bytes of a slab to blocks.
};
constexpr SizeClass Cut(uint16_t size) {
  // Larger blocks need more than a page, or too much of it would be left over.
  const uint16_t pages = size <= 256 ? 1 : 4;
  return {size, pages,
          static_cast<uint16_t>(pages * kPage / (size + sizeof(uint64_t))),
          static_cast<uint32_t>(((uint64_t{1} << 32) + size - 1) / size)};
}
constexpr std::array<SizeClass, ArenaHeap::kClasses> kSizes = {
    Cut(16),  Cut(32),   Cut(48),   Cut(64),   Cut(80),   Cut(96),
    Cut(112), Cut(128),  Cut(160),  Cut(192),  Cut(224),  Cut(256),
    Cut(320), Cut(384),  Cut(448),  Cut(512),  Cut(640),  Cut(768),
    Cut(896), Cut(1024), Cut(1280), Cut(1536), Cut(1792), Cut(2048)};
constexpr uint32_t kMostSlabPages = 4;
constexpr size_t kGrain = 16;
constexpr size_t kLargestSmall = kSizes.back().size;

// The smallest class for each number of grains.
constexpr auto kClassOf = [] {
  std::array<uint8_t, kLargestSmall / kGrain + 1> table = {};
  uint8_t size_class = 0;
  for (size_t grains = 0; grains < table.size(); ++grains) {
    if (grains * kGrain > kSizes[size_class].size) ++size_class;
    table[grains] = size_class;
  }
  return table;
}();

uint32_t ClassFor(size_t size, size_t alignment) {
  if (size > kLargestSmall) return ArenaHeap::kClasses;
  uint32_t size_class = kClassOf[(size + kGrain - 1) / kGrain];
  if (alignment > kGrain) [[unlikely]] {
    while (size_class < ArenaHeap::kClasses &&
           kSizes[size_class].size % alignment != 0) {
      ++size_class;
    }
  }
  return size_class;
}

bool IsHeld(uint64_t word) {
  const BlockState state = StateOf(word);
  return state == BlockState::kProcess || state == BlockState::kKept ||
         state == BlockState::kObject;
}

// The words of free blocks name the next one plus 1; 0 is none.
uint64_t FreeWord(uint16_t next) {
  return MakeWord(BlockState::kFree, 0, next == kNoBlock ? 0 : next + 1);
}
uint16_t NextOf(uint64_t free_word) {
  const uint64_t next = UpperOf(free_word);
  return next == 0 || next > kNoBlock ? kNoBlock
                                      : static_cast<uint16_t>(next - 1);
}

uint64_t RoundUp(uint64_t number, uint64_t to) {
  return (number + to - 1) / to * to;
}

}  // namespace

// The lock, and the caches as they should be.
class ArenaHeap::Section final {
 public:
  explicit Section(const ArenaHeap& heap) : lock_(heap.head_->hot.lock) {
    if (lock_.Lock() == sync_internal::Acquired::kOwnerDied) [[unlikely]] {
      heap.Rebuild();
    }
  }
  ~Section() { lock_.Unlock(); }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

 private:
  sync_internal::ShortLock& lock_;
};

ArenaHeap::Name::Name(std::string_view text) {
  if (text.size() > kMaxName) return;
  size = text.size();
  std::memcpy(words.data(), text.data(), text.size());
}

ArenaHeap::ArenaHeap(std::byte* base, uint32_t object_slots,
                     uint32_t page_count, uint32_t pages_at)
    : base_(base),
      head_(reinterpret_cast<Head*>(base)),
      entries_(reinterpret_cast<Entry*>(base + sizeof(Head))),
      pages_(reinterpret_cast<Page*>(base + sizeof(Head) +
                                     sizeof(Entry) * object_slots)),
      object_slots_(object_slots),
      page_count_(page_count),
      pages_at_(pages_at) {}

uint32_t ArenaHeap::PagesIn(uint64_t size, uint32_t object_slots) {
  const uint64_t fixed = PagesAt(object_slots, 0);
  if (size <= fixed) return 0;
  uint64_t count = (size - sizeof(Head) - sizeof(Entry) * object_slots) /
                   (kPage + sizeof(Page));
  const auto pages_at = [&] { return PagesAt(object_slots, count); };
  // Blocks begin at a page, which may cost one.
  while (count > 0 && pages_at() + count * kPage > size) --count;
  if (count >= kInside || object_slots > kMaxObjects ||
      pages_at() > std::numeric_limits<uint32_t>::max()) {
    return 0;
  }
  return static_cast<uint32_t>(count);
}

uint64_t ArenaHeap::PagesAt(uint64_t object_slots, uint64_t page_count) {
  return RoundUp(
      sizeof(Head) + sizeof(Entry) * object_slots + sizeof(Page) * page_count,
      kPage);
}

void ArenaHeap::Format(std::span<std::byte> bytes, uint32_t object_slots) {
  const uint32_t count = PagesIn(bytes.size(), object_slots);
  const ArenaHeap heap(bytes.data(), object_slots, count,
                       static_cast<uint32_t>(PagesAt(object_slots, count)));
  heap.head_->magic = kMagic;
  heap.head_->version = kVersion;
  heap.head_->object_slots = object_slots;
  heap.head_->size = bytes.size();
  heap.head_->page_count = count;
  heap.head_->pages_at = static_cast<uint32_t>(heap.pages_at_);
  heap.pages_[0].span.store(count, std::memory_order_relaxed);
  heap.SetLast(0, count);
  heap.Link(heap.RunsOf(count), 0);
}

std::optional<ArenaHeap> ArenaHeap::Attach(std::span<std::byte> bytes) {
  if (bytes.size() < sizeof(Head)) return std::nullopt;
  // Read once: a peer may write at any time.
  const volatile Head* const head = reinterpret_cast<Head*>(bytes.data());
  const uint64_t magic = head->magic;
  const uint32_t version = head->version;
  const uint64_t object_slots = head->object_slots;
  const uint64_t size = head->size;
  const uint64_t page_count = head->page_count;
  const uint64_t pages_at = head->pages_at;
  if (magic != kMagic || version != kVersion || object_slots > kMaxObjects ||
      size != bytes.size() || page_count == 0 || page_count >= kInside ||
      pages_at != PagesAt(object_slots, page_count) || pages_at > size ||
      page_count > (size - pages_at) / kPage) {
    return std::nullopt;
  }
  return ArenaHeap(bytes.data(), static_cast<uint32_t>(object_slots),
                   static_cast<uint32_t>(page_count),
                   static_cast<uint32_t>(pages_at));
}

ArenaHeap ArenaHeap::At(void* bytes) {
  const Head* const head = static_cast<Head*>(bytes);
  return ArenaHeap(static_cast<std::byte*>(bytes), head->object_slots,
                   head->page_count, head->pages_at);
}

bool ArenaHeap::damaged() const {
  return head_->damaged.load(std::memory_order_relaxed) != 0;
}

void ArenaHeap::Damage() const {
  head_->damaged.store(1, std::memory_order_relaxed);
}

// An index that came from shared memory may be any number.
ArenaHeap::Page& ArenaHeap::PageAt(uint32_t index) const {
  if (index >= page_count_) [[unlikely]] {
    Damage();
    index = 0;
  }
  return pages_[index];
}

std::byte* ArenaHeap::BytesAt(uint32_t page) const {
  return base_ + pages_at_ + page * kPage;
}

std::atomic<uint64_t>& ArenaHeap::WordAt(uint32_t page, uint32_t block) const {
  return reinterpret_cast<std::atomic<uint64_t>*>(BytesAt(page))[block];
}

uint64_t ArenaHeap::NextGeneration() const {
  std::atomic<uint64_t>& last = head_->hot.generation;
  const uint64_t next = last.load(std::memory_order_relaxed) + 1;
  last.store(next, std::memory_order_relaxed);
  return next & (~uint64_t{0} >> 20);
}

// Lists. They are caches, so it does not matter where a death tears one.

void ArenaHeap::Link(List& list, uint32_t page) const {
  const uint32_t first = list.load(std::memory_order_relaxed);
  pages_[page].next.store(first, std::memory_order_relaxed);
  pages_[page].before.store(0, std::memory_order_relaxed);
  if (first != 0) {
    PageAt(first - 1).before.store(page + 1, std::memory_order_relaxed);
  }
  list.store(page + 1, std::memory_order_relaxed);
}

void ArenaHeap::Unlink(List& list, uint32_t page) const {
  const uint32_t next = pages_[page].next.load(std::memory_order_relaxed);
  const uint32_t before = pages_[page].before.load(std::memory_order_relaxed);
  List& from = before == 0 ? list : PageAt(before - 1).next;
  from.store(next, std::memory_order_relaxed);
  if (next != 0) {
    PageAt(next - 1).before.store(before, std::memory_order_relaxed);
  }
}

ArenaHeap::List& ArenaHeap::RunsOf(uint32_t pages) const {
  return head_->hot.runs[std::bit_width(pages | 1) - 1];
}

void ArenaHeap::SetLast(uint32_t page, uint32_t pages) const {
  if (pages > 1) {
    pages_[page + pages - 1].span.store(kInside | (pages - 1),
                                        std::memory_order_relaxed);
  }
}

// Runs of pages.

std::optional<uint32_t> ArenaHeap::TakeRun(uint32_t pages) const {
  constexpr int kLooks = 8;
  std::array<List, 32>& runs = head_->hot.runs;
  const uint32_t own = static_cast<uint32_t>(std::bit_width(pages)) - 1;
  const auto fits = [&](uint32_t page) {
    const uint32_t span = PageAt(page).span.load(std::memory_order_relaxed);
    if (page >= page_count_ || span == 0 || span > page_count_ - page ||
        StateOf(pages_[page].block.load(std::memory_order_relaxed)) !=
            BlockState::kFree) {
      Damage();
      return false;
    }
    return span >= pages;
  };
  // Runs of the same power of two may be too short: a few of them are looked
  // at, then any longer one, and at last all.
  const auto look_at = [&](uint32_t looks) -> uint32_t {
    uint32_t at = runs[own].load(std::memory_order_relaxed);
    for (; at != 0 && looks > 0 && !damaged(); --looks) {
      if (fits(at - 1)) return at;
      at = PageAt(at - 1).next.load(std::memory_order_relaxed);
    }
    return 0;
  };
  uint32_t found = look_at(kLooks);
  for (uint32_t i = own + 1; found == 0 && i < runs.size(); ++i) {
    found = runs[i].load(std::memory_order_relaxed);
  }
  if (found == 0) found = look_at(page_count_);
  if (found == 0 || !fits(found - 1)) return std::nullopt;
  const uint32_t page = found - 1;
  const uint32_t span = pages_[page].span.load(std::memory_order_relaxed);
  if (span < pages || span > page_count_ - page) return std::nullopt;
  Unlink(RunsOf(span), page);
  if (span > pages) {
    // The rest first: it is nothing but the inside of a free run until the run
    // ends before it.
    const uint32_t rest = page + pages;
    pages_[rest].block.store(0, std::memory_order_relaxed);
    pages_[rest].span.store(span - pages, std::memory_order_relaxed);
    SetLast(rest, span - pages);
    SetLast(page, pages);
    pages_[page].span.store(pages, std::memory_order_release);  // Two runs.
    Link(RunsOf(span - pages), rest);
  }
  return page;
}

// Joins a free run that is on no list with the free ones beside it.
void ArenaHeap::FreeRun(uint32_t page) const {
  const auto free_span = [&](uint32_t at) -> uint32_t {
    const uint32_t span = pages_[at].span.load(std::memory_order_relaxed);
    return StateOf(pages_[at].block.load(std::memory_order_relaxed)) ==
                       BlockState::kFree &&
                   span <= page_count_ - at
               ? span
               : 0;
  };
  uint32_t first = page;
  uint32_t span = free_span(page);
  if (span == 0) return Damage();
  if (page + span < page_count_) {
    if (const uint32_t behind = free_span(page + span); behind != 0) {
      Unlink(RunsOf(behind), page + span);
      span += behind;
    }
  }
  if (page > 0) {
    const uint32_t last = pages_[page - 1].span.load(std::memory_order_relaxed);
    const uint32_t back = (last & kInside) != 0 ? last & ~kInside : 0;
    if (back < page) {
      const uint32_t before = page - 1 - back;
      if (free_span(before) == back + 1) {
        Unlink(RunsOf(back + 1), before);
        first = before;
        span += back + 1;
      }
    }
  }
  // First this: the last page may have been a run of its own until now.
  pages_[first].span.store(span, std::memory_order_release);  // One run.
  SetLast(first, span);
  Link(RunsOf(span), first);
}

// Slabs.

bool ArenaHeap::MakeSlab(uint32_t size_class) const {
  const SizeClass& sizes = kSizes[size_class];
  const std::optional<uint32_t> page = TakeRun(sizes.pages);
  if (!page.has_value()) return false;
  for (uint32_t i = 1; i < sizes.pages; ++i) {
    pages_[*page + i].span.store(kInside | i, std::memory_order_relaxed);
  }
  for (uint16_t block = 0; block < sizes.blocks; ++block) {
    const bool last = block + 1 == sizes.blocks;
    WordAt(*page, block)
        .store(FreeWord(last ? kNoBlock : static_cast<uint16_t>(block + 1)),
               std::memory_order_relaxed);
  }
  pages_[*page].first_free.store(0, std::memory_order_relaxed);
  pages_[*page].used.store(0, std::memory_order_relaxed);
  pages_[*page].block.store(
      MakeWord(BlockState::kSlab, size_class, NextGeneration()),
      std::memory_order_release);  // A slab.
  Link(head_->hot.slabs[size_class], *page);
  return true;
}

// Requires that none of its blocks is held.
void ArenaHeap::DropSlab(uint32_t page, uint32_t size_class) const {
  Unlink(head_->hot.slabs[size_class], page);
  pages_[page].block.store(0, std::memory_order_release);  // A free run.
  FreeRun(page);
}

bool ArenaHeap::DropEmptySlabs() const {
  bool dropped = false;
  for (uint32_t page = 0; page < page_count_; ++page) {
    const uint64_t word = pages_[page].block.load(std::memory_order_relaxed);
    if (StateOf(word) != BlockState::kSlab || OwnerOf(word) >= kClasses ||
        pages_[page].used.load(std::memory_order_relaxed) != 0) {
      continue;
    }
    DropSlab(page, OwnerOf(word));
    dropped = true;
  }
  return dropped;
}

// Blocks.

ArenaHeap::Taken ArenaHeap::TakeLocked(uint32_t size_class, uint32_t pages,
                                       BlockState state, uint32_t owner) const {
  Taken taken;
  if (size_class < kClasses) {
    const SizeClass& sizes = kSizes[size_class];
    List& slabs = head_->hot.slabs[size_class];
    if (slabs.load(std::memory_order_relaxed) == 0 && !MakeSlab(size_class)) {
      // A page alone may be left.
      return TakeLocked(kClasses, 1, state, owner);
    }
    const uint32_t page = slabs.load(std::memory_order_relaxed) - 1;
    Page& slab = PageAt(page);
    const uint64_t slab_word = slab.block.load(std::memory_order_relaxed);
    const uint16_t block = slab.first_free.load(std::memory_order_relaxed);
    if (page >= page_count_ || sizes.pages > page_count_ - page ||
        StateOf(slab_word) != BlockState::kSlab ||
        OwnerOf(slab_word) != size_class || block >= sizes.blocks)
        [[unlikely]] {
      Damage();
      taken.end = HeapEnd::kDamaged;
      return taken;
    }
    std::atomic<uint64_t>& word = WordAt(page, block);
    const uint64_t free = word.load(std::memory_order_relaxed);
    if (StateOf(free) != BlockState::kFree) [[unlikely]] {
      Damage();
      taken.end = HeapEnd::kDamaged;
      return taken;
    }
    taken.ref.generation = NextGeneration();
    word.store(MakeWord(state, owner, taken.ref.generation),
               std::memory_order_release);  // Taken.
    const uint16_t next = NextOf(free);
    slab.first_free.store(next, std::memory_order_relaxed);
    slab.used.store(slab.used.load(std::memory_order_relaxed) + 1,
                    std::memory_order_relaxed);
    if (next == kNoBlock) Unlink(slabs, page);
    taken.size = sizes.size;
    taken.ref.position = pages_at_ + (uint64_t{page} + sizes.pages) * kPage -
                         (uint64_t{block} + 1) * sizes.size;
  } else {
    const std::optional<uint32_t> page = TakeRun(pages);
    if (!page.has_value()) {
      taken.end = damaged() ? HeapEnd::kDamaged : HeapEnd::kFull;
      return taken;
    }
    taken.ref.generation = NextGeneration();
    pages_[*page].block.store(MakeWord(state, owner, taken.ref.generation),
                              std::memory_order_release);  // Taken.
    taken.size = pages * kPage;
    taken.ref.position = pages_at_ + *page * kPage;
  }
  taken.bytes = base_ + taken.ref.position;
  taken.end = HeapEnd::kDone;
  return taken;
}

void ArenaHeap::FreeLocked(const Place& place) const {
  if (place.size_class == kClasses) {
    place.word->store(0, std::memory_order_release);  // Free.
    FreeRun(place.page);
    return;
  }
  Page& slab = pages_[place.page];
  const uint16_t first = slab.first_free.load(std::memory_order_relaxed);
  place.word->store(FreeWord(first), std::memory_order_release);  // Free.
  slab.first_free.store(static_cast<uint16_t>(place.block),
                        std::memory_order_relaxed);
  const auto used =
      static_cast<uint16_t>(slab.used.load(std::memory_order_relaxed) - 1);
  slab.used.store(used, std::memory_order_relaxed);
  List& slabs = head_->hot.slabs[place.size_class];
  if (first == kNoBlock) Link(slabs, place.page);
  // An empty slab stays while it is the only one that has a free block, or the
  // next to take and free a block would cut it anew each time.
  if (used == 0 && (slab.next.load(std::memory_order_relaxed) != 0 ||
                    slab.before.load(std::memory_order_relaxed) != 0)) {
    DropSlab(place.page, place.size_class);
  }
}

// Where a block begins at `position`, what it is.
bool ArenaHeap::Locate(uint64_t position, Place& place) const {
  if (position < pages_at_ || position - pages_at_ >= page_count_ * kPage) {
    return false;
  }
  const uint64_t offset = position - pages_at_;
  auto page = static_cast<uint32_t>(offset / kPage);
  uint32_t span = pages_[page].span.load(std::memory_order_relaxed);
  if ((span & kInside) != 0) {
    const uint32_t back = span & ~kInside;
    if (back >= kMostSlabPages || back > page) return false;
    page -= back;
    span = pages_[page].span.load(std::memory_order_relaxed);
  }
  const uint64_t word = pages_[page].block.load(std::memory_order_acquire);
  place.page = page;
  place.position = position;
  if (StateOf(word) != BlockState::kSlab) {
    if (offset != page * kPage || span == 0 || span > page_count_ - page) {
      return false;
    }
    place.word = &pages_[page].block;
    place.size_class = kClasses;
    place.size = span * kPage;
    return true;
  }
  if (OwnerOf(word) >= kClasses) return false;
  const SizeClass& sizes = kSizes[OwnerOf(word)];
  const uint64_t end = (uint64_t{page} + sizes.pages) * kPage;
  if (sizes.pages > page_count_ - page || offset >= end) return false;
  const uint64_t from_end = end - offset;
  const auto blocks = static_cast<uint32_t>(from_end * sizes.inverse >> 32);
  if (blocks == 0 || blocks > sizes.blocks || blocks * sizes.size != from_end) {
    return false;
  }
  place.block = blocks - 1;
  place.size_class = OwnerOf(word);
  place.slab = word;
  place.word = &WordAt(page, place.block);
  place.size = sizes.size;
  return true;
}

// Likewise, where it is still that of the handle and not an object's.
HeapEnd ArenaHeap::LocateHeld(BlockRef ref, Place& place,
                              uint64_t& word) const {
  if (damaged()) return HeapEnd::kDamaged;
  if (!Locate(ref.position, place)) return HeapEnd::kStale;
  word = place.word->load(std::memory_order_acquire);
  if (!IsHeld(word) || UpperOf(word) != ref.generation) {
    return HeapEnd::kStale;
  }
  return StateOf(word) == BlockState::kObject ? HeapEnd::kForeign
                                              : HeapEnd::kDone;
}

ArenaHeap::Taken ArenaHeap::Take(size_t size, size_t alignment,
                                 BlockState state, uint64_t object) const {
  Taken taken;
  if (size > max_block()) return taken;
  if (size == 0) size = 1;  // Allocators may be asked for nothing.
  const uint32_t size_class = ClassFor(size, alignment);
  const auto pages = static_cast<uint32_t>((size + kPage - 1) / kPage);
  for (bool reaped = false;; reaped = true) {
    {
      Section section(*this);
      uint32_t owner = 0;
      taken.end = damaged() ? HeapEnd::kDamaged : HeapEnd::kDone;
      if (state == BlockState::kProcess) {
        const std::optional<uint32_t> slot = FindProcess();
        if (!slot.has_value()) taken.end = HeapEnd::kCrowded;
        owner = slot.value_or(0);
      } else if (state == BlockState::kObject) {
        if (!ObjectTakes(object)) taken.end = HeapEnd::kStale;
        owner = static_cast<uint32_t>(object & 0xffff);
      }
      if (taken.end == HeapEnd::kDone) {
        taken = TakeLocked(size_class, pages, state, owner);
        if (taken.end == HeapEnd::kFull && DropEmptySlabs()) {
          taken = TakeLocked(size_class, pages, state, owner);
        }
      }
    }
    const bool short_of =
        taken.end == HeapEnd::kFull || taken.end == HeapEnd::kCrowded;
    if (!short_of || reaped) return taken;
    Reap();
  }
}

ArenaHeap::Taken ArenaHeap::Look(BlockRef ref) const {
  Taken taken;
  Place place;
  uint64_t word = 0;
  taken.end = LocateHeld(ref, place, word);
  // Without the lock a slab may become something else meanwhile, and its words
  // somebody's data.
  if (taken.end == HeapEnd::kDone && place.size_class != kClasses &&
      pages_[place.page].block.load(std::memory_order_acquire) != place.slab) {
    taken.end = HeapEnd::kStale;
  }
  if (taken.end != HeapEnd::kDone) return taken;
  taken.ref = ref;
  taken.bytes = base_ + place.position;
  taken.size = place.size;
  return taken;
}

HeapEnd ArenaHeap::Free(BlockRef ref) const {
  Section section(*this);
  Place place;
  uint64_t word = 0;
  const HeapEnd end = LocateHeld(ref, place, word);
  if (end == HeapEnd::kDone) FreeLocked(place);
  return end;
}

HeapEnd ArenaHeap::Keep(BlockRef ref) const {
  Section section(*this);
  Place place;
  uint64_t word = 0;
  const HeapEnd end = LocateHeld(ref, place, word);
  if (end != HeapEnd::kDone) return end;
  place.word->store(MakeWord(BlockState::kKept, 0, ref.generation),
                    std::memory_order_release);
  return HeapEnd::kDone;
}

HeapEnd ArenaHeap::Adopt(BlockRef ref) const {
  for (bool reaped = false;; reaped = true) {
    {
      Section section(*this);
      Place place;
      uint64_t word = 0;
      const HeapEnd end = LocateHeld(ref, place, word);
      if (end != HeapEnd::kDone) return end;
      if (const std::optional<uint32_t> slot = FindProcess()) {
        place.word->store(MakeWord(BlockState::kProcess, *slot, ref.generation),
                          std::memory_order_release);
        return HeapEnd::kDone;
      }
    }
    if (reaped) return HeapEnd::kCrowded;
    Reap();
  }
}

HeapEnd ArenaHeap::FreeOf(uint64_t object, const void* block) const {
  Section section(*this);
  if (damaged()) return HeapEnd::kDamaged;
  const auto position =
      static_cast<uint64_t>(static_cast<const std::byte*>(block) - base_);
  Place place;
  if (!Locate(position, place)) return HeapEnd::kStale;
  const uint64_t word = place.word->load(std::memory_order_relaxed);
  if (StateOf(word) != BlockState::kObject ||
      OwnerOf(word) != (object & 0xffff)) {
    return HeapEnd::kForeign;
  }
  FreeLocked(place);
  return HeapEnd::kDone;
}

// The slot of the calling process, else one that it has now. From its id on: the
// ids of processes that were started together differ in their low bits.
std::optional<uint32_t> ArenaHeap::FindProcess() const {
  const os::ProcessIdentity me = os::ProcessIdentity::Self();
  const uint32_t home = static_cast<uint32_t>(me.pid()) % kProcesses;
  if (head_->processes[home].load(std::memory_order_relaxed) == me.bits())
      [[likely]] {
    return home;
  }
  std::optional<uint32_t> vacant;
  for (uint32_t i = 0; i < kProcesses; ++i) {
    const uint32_t slot = (home + i) % kProcesses;
    const uint64_t who = head_->processes[slot].load(std::memory_order_relaxed);
    if (who == me.bits()) return slot;
    if (who == 0 && !vacant.has_value()) vacant = slot;
  }
  if (vacant.has_value()) {
    head_->processes[*vacant].store(me.bits(), std::memory_order_relaxed);
  }
  return vacant;
}

// Looking through all blocks. The page words alone are asked, not where runs
// begin: that changes while the lock is not held, but wherever a page's word
// says that a block or a slab begins there, it does.

void ArenaHeap::VisitPage(
    uint32_t page,
    absl::FunctionRef<void(const Place&, uint64_t)> visit) const {
  const uint64_t word = pages_[page].block.load(std::memory_order_relaxed);
  Place place;
  place.page = page;
  place.position = pages_at_ + page * kPage;
  if (IsHeld(word)) {
    place.word = &pages_[page].block;
    visit(place, word);
    return;
  }
  if (StateOf(word) != BlockState::kSlab || OwnerOf(word) >= kClasses) return;
  const SizeClass& sizes = kSizes[OwnerOf(word)];
  if (sizes.pages > page_count_ - page) return;
  place.size_class = OwnerOf(word);
  const uint64_t end = place.position + sizes.pages * kPage;
  // With its last block a slab may go, and with it the words.
  for (uint32_t block = 0;
       block < sizes.blocks &&
       pages_[page].block.load(std::memory_order_relaxed) == word;
       ++block) {
    place.block = block;
    place.word = &WordAt(page, block);
    place.position = end - (uint64_t{block} + 1) * sizes.size;
    visit(place, place.word->load(std::memory_order_relaxed));
  }
}

// Frees those that match, for as long as it still is to be done.
template <typename Matches, typename Still>
uint64_t ArenaHeap::FreeAll(Still still, Matches matches) const {
  uint64_t freed = 0;
  for (uint32_t first = 0; first < page_count_; first += kBatch) {
    Section section(*this);
    if (!still() || damaged()) break;
    const uint32_t end = first + std::min(kBatch, page_count_ - first);
    for (uint32_t page = first; page < end; ++page) {
      VisitPage(page, [&](const Place& place, uint64_t word) {
        if (!IsHeld(word) || !matches(place, word)) return;
        FreeLocked(place);
        ++freed;
      });
    }
  }
  return freed;
}

uint64_t ArenaHeap::Reap() const {
  uint64_t freed = ReapObjects();
  // The kernel is asked without the lock. A dead process stays dead, and its
  // slot is its own until all its blocks are free: nobody can add to them.
  std::array<uint64_t, kProcesses> dead = {};
  bool any = false;
  const uint64_t me = os::ProcessIdentity::Self().bits();
  for (uint32_t slot = 0; slot < kProcesses; ++slot) {
    const uint64_t who = head_->processes[slot].load(std::memory_order_relaxed);
    if (who == 0 || who == me ||
        os::ProcessIdentity::FromBits(who).CheckLiveness() !=
            os::Liveness::kDead) {
      continue;
    }
    dead[slot] = who;
    any = true;
  }
  if (!any) return freed;
  const auto still_his = [&](uint32_t slot) {
    return slot < kProcesses && dead[slot] != 0 &&
           head_->processes[slot].load(std::memory_order_relaxed) == dead[slot];
  };
  freed += FreeAll([] { return true; },
                   [&](const Place&, uint64_t word) {
                     return StateOf(word) == BlockState::kProcess &&
                            still_his(OwnerOf(word));
                   });
  Section section(*this);
  if (damaged()) return freed;
  for (uint32_t slot = 0; slot < kProcesses; ++slot) {
    if (still_his(slot)) {
      head_->processes[slot].store(0, std::memory_order_relaxed);
    }
  }
  return freed;
}

ArenaCount ArenaHeap::Count() const {
  ArenaCount count;
  count.pages = page_count_;
  count.free_pages = page_count_;
  for (uint32_t first = 0; first < page_count_; first += kBatch) {
    Section section(*this);
    const uint32_t end = first + std::min(kBatch, page_count_ - first);
    for (uint32_t page = first; page < end; ++page) {
      const uint64_t head = pages_[page].block.load(std::memory_order_relaxed);
      if (StateOf(head) == BlockState::kFree) continue;
      count.free_pages -= std::min<uint64_t>(
          count.free_pages, pages_[page].span.load(std::memory_order_relaxed));
      VisitPage(page, [&](const Place&, uint64_t word) {
        switch (StateOf(word)) {
          case BlockState::kProcess:
            ++count.process_blocks;
            break;
          case BlockState::kKept:
            ++count.kept_blocks;
            break;
          case BlockState::kObject:
            ++count.object_blocks;
            break;
          default:
            ++count.free_blocks;
            break;
        }
      });
    }
  }
  for (uint32_t slot = 0; slot < object_slots_; ++slot) {
    const uint64_t word = entries_[slot].word.load(std::memory_order_relaxed);
    if (static_cast<ObjectState>(word & 0xf) != ObjectState::kVacant) {
      ++count.objects;
    }
  }
  for (const std::atomic<uint64_t>& who : head_->processes) {
    if (who.load(std::memory_order_relaxed) != 0) ++count.processes;
  }
  return count;
}

// After a death under the lock: the caches from the words.

void ArenaHeap::Rebuild() const {
  for (List& list : head_->hot.slabs) list.store(0, std::memory_order_relaxed);
  for (List& list : head_->hot.runs) list.store(0, std::memory_order_relaxed);
  uint32_t run = 0;    // Where the present stretch of free pages begins,
  uint32_t pages = 0;  // and how long it is.
  const auto end_run = [&] {
    if (pages == 0) return;
    pages_[run].span.store(pages, std::memory_order_release);  // One run.
    SetLast(run, pages);
    Link(RunsOf(pages), run);
    pages = 0;
  };
  for (uint32_t page = 0; page < page_count_;) {
    const uint32_t span = pages_[page].span.load(std::memory_order_relaxed);
    const uint64_t word = pages_[page].block.load(std::memory_order_relaxed);
    const bool slab = StateOf(word) == BlockState::kSlab;
    if (span == 0 || span > page_count_ - page ||
        (slab &&
         (OwnerOf(word) >= kClasses || kSizes[OwnerOf(word)].pages != span))) {
      Damage();
      return;
    }
    if (slab && RebuildSlab(page, OwnerOf(word)) == 0) {
      pages_[page].block.store(0, std::memory_order_release);  // A free run.
    }
    if (StateOf(pages_[page].block.load(std::memory_order_relaxed)) ==
        BlockState::kFree) {
      if (pages == 0) run = page;
      pages += span;
    } else {
      end_run();
      if (!slab) SetLast(page, span);
    }
    page += span;
  }
  end_run();
}

// Returns how many of its blocks are held; links it if that is some, not all.
uint32_t ArenaHeap::RebuildSlab(uint32_t page, uint32_t size_class) const {
  const SizeClass& sizes = kSizes[size_class];
  for (uint32_t i = 1; i < sizes.pages; ++i) {
    pages_[page + i].span.store(kInside | i, std::memory_order_relaxed);
  }
  uint16_t first = kNoBlock;
  uint16_t held = 0;
  for (uint16_t block = sizes.blocks; block-- > 0;) {
    std::atomic<uint64_t>& word = WordAt(page, block);
    if (StateOf(word.load(std::memory_order_relaxed)) != BlockState::kFree) {
      ++held;
      continue;
    }
    word.store(FreeWord(first), std::memory_order_relaxed);
    first = block;
  }
  pages_[page].first_free.store(first, std::memory_order_relaxed);
  pages_[page].used.store(held, std::memory_order_relaxed);
  if (held != 0 && first != kNoBlock) {
    Link(head_->hot.slabs[size_class], page);
  }
  return held;
}

// Objects.

std::optional<ArenaHeap::Object> ArenaHeap::FindLocked(const Name& name) const {
  std::optional<Object> vacant;
  for (uint32_t slot = 0; slot < object_slots_; ++slot) {
    const Entry& entry = entries_[slot];
    Object object;
    object.slot = slot;
    object.word = entry.word.load(std::memory_order_acquire);
    object.state = static_cast<ObjectState>(object.word & 0xf);
    if (object.state == ObjectState::kVacant) {
      if (!vacant.has_value()) vacant = object;
      continue;
    }
    if (entry.name_size.load(std::memory_order_relaxed) != name.size) continue;
    bool same = true;
    for (size_t i = 0; i < name.words.size(); ++i) {
      same = same &&
             entry.name[i].load(std::memory_order_relaxed) == name.words[i];
    }
    if (!same) continue;
    object.tag = entry.tag.load(std::memory_order_relaxed);
    object.size = entry.size.load(std::memory_order_relaxed);
    object.position = entry.position.load(std::memory_order_relaxed);
    return object;
  }
  return vacant;
}

std::optional<ArenaHeap::Object> ArenaHeap::FindObject(
    std::string_view name) const {
  const Name wanted(name);
  Section section(*this);
  return FindLocked(wanted);
}

Mutex& ArenaHeap::making(uint32_t slot) const { return entries_[slot].making; }

std::optional<ArenaHeap::Object> ArenaHeap::BeginObject(const Object& vacant,
                                                        std::string_view name,
                                                        uint64_t tag,
                                                        uint64_t size) const {
  const Name wanted(name);
  Section section(*this);
  const std::optional<Object> found = FindLocked(wanted);
  Entry& entry = entries_[vacant.slot];
  if (!found.has_value() || found->state != ObjectState::kVacant ||
      static_cast<ObjectState>(entry.word.load(std::memory_order_relaxed) &
                               0xf) != ObjectState::kVacant) {
    return std::nullopt;
  }
  Object object;
  object.state = ObjectState::kMaking;
  object.slot = vacant.slot;
  object.tag = tag;
  object.size = size;
  entry.tag.store(tag, std::memory_order_relaxed);
  entry.size.store(size, std::memory_order_relaxed);
  entry.position.store(0, std::memory_order_relaxed);
  entry.name_size.store(wanted.size, std::memory_order_relaxed);
  for (size_t i = 0; i < wanted.words.size(); ++i) {
    entry.name[i].store(wanted.words[i], std::memory_order_relaxed);
  }
  object.word = NextGeneration() << 20 | uint64_t{object.slot} << 4 |
                static_cast<uint64_t>(ObjectState::kMaking);
  entry.word.store(object.word, std::memory_order_release);  // Begun.
  return object;
}

void ArenaHeap::PublishObject(const Object& object, uint64_t position) const {
  Entry& entry = entries_[object.slot];
  entry.position.store(position, std::memory_order_relaxed);
  entry.word.store((object.word & ~uint64_t{0xf}) |
                       static_cast<uint64_t>(ObjectState::kLive),
                   std::memory_order_release);  // Made.
}

bool ArenaHeap::ObjectTakes(uint64_t object) const {
  const auto slot = static_cast<uint32_t>(object & 0xffff);
  if (slot >= object_slots_) return false;
  const uint64_t word = entries_[slot].word.load(std::memory_order_relaxed);
  const auto state = static_cast<ObjectState>(word & 0xf);
  return word >> 4 == object &&
         (state == ObjectState::kMaking || state == ObjectState::kLive);
}

// While the entry has `word`, frees the object's blocks, but for one.
uint64_t ArenaHeap::FreeAllOf(uint32_t slot, uint64_t word,
                              uint64_t but) const {
  return FreeAll(
      [&] {
        return entries_[slot].word.load(std::memory_order_relaxed) == word;
      },
      [&](const Place& place, uint64_t block) {
        return StateOf(block) == BlockState::kObject &&
               OwnerOf(block) == slot && place.position != but;
      });
}

uint64_t ArenaHeap::EndObject(const Object& object) const {
  Entry& entry = entries_[object.slot];
  const uint64_t ending = (object.word & ~uint64_t{0xf}) |
                          static_cast<uint64_t>(ObjectState::kEnding);
  {
    Section section(*this);
    if (entry.word.load(std::memory_order_relaxed) != object.word) return 0;
    entry.word.store(ending, std::memory_order_release);  // Nobody's any more.
  }
  const uint64_t freed = FreeAllOf(object.slot, ending, 0);
  Section section(*this);
  if (entry.word.load(std::memory_order_relaxed) == ending && !damaged()) {
    entry.word.store(0, std::memory_order_release);  // Vacant.
  }
  return freed;
}

void ArenaHeap::ClearObject(const Object& object) const {
  FreeAllOf(object.slot, object.word, object.position);
}

std::byte* ArenaHeap::BytesOf(const Object& object, size_t alignment) const {
  Place place;
  if (!Locate(object.position, place)) return nullptr;
  const uint64_t word = place.word->load(std::memory_order_acquire);
  if (StateOf(word) != BlockState::kObject || OwnerOf(word) != object.slot ||
      place.size < object.size || place.position % alignment != 0) {
    return nullptr;
  }
  return base_ + place.position;
}

// Entries whose maker, or ender, has died: nobody holds their lock.
uint64_t ArenaHeap::ReapObjects() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  uint64_t freed = 0;
  for (uint32_t slot = 0; slot < object_slots_; ++slot) {
    const auto unfinished = [&](uint64_t word) {
      const auto state = static_cast<ObjectState>(word & 0xf);
      return state == ObjectState::kMaking || state == ObjectState::kEnding;
    };
    Entry& entry = entries_[slot];
    if (!unfinished(entry.word.load(std::memory_order_relaxed)) ||
        !entry.making.try_lock()) {
      continue;
    }
    Object object;
    object.slot = slot;
    object.word = entry.word.load(std::memory_order_acquire);
    if (unfinished(object.word)) freed += EndObject(object);
    entry.making.unlock();
  }
  return freed;
}

}  // namespace cohort::shm_internal
