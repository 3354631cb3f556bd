// SPDX-License-Identifier: Apache-2.0

#include "cohort/os/robust.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cohort/os/check.h"
#include "cohort/os/cpu.h"
#include "cohort/os/membarrier.h"
#include "cohort/os/wiped_on_fork.h"

namespace cohort::os {
namespace {

// The kernel stops at this many entries; a longer walk means a loop.
constexpr int kKernelLimit = 2048;

// Ends a thread's binding after all its thread_local destructors, and again if
// a later destructor took a lock. Without a key (libc has 1024) the pages of a
// thread stay mapped when it ends.
struct ExitKey {
  pthread_key_t key;
  bool valid;
};

bool BarriersReachUs() {
  static const bool joined = JoinBarriers();
  return joined;
}

// While there is most likely one thread, which makes it cheap.
[[maybe_unused]] const bool joined_early = BarriersReachUs();

}  // namespace

void RobustList::NotIdle() {
  Fatal(
      "a signal handler uses a lock, and has interrupted the use of another "
      "one");
}

RobustThread RobustThread::unbound_;
constinit thread_local RobustThread* RobustThread::self_ = &unbound_;

RobustThread& RobustThread::Bind() {
  const int saved_errno = errno;
  RobustList* list = nullptr;
  size_t size = 0;
  static_assert(sizeof(RobustList) == sizeof(robust_list_head) &&
                offsetof(RobustList, pending_) ==
                    offsetof(robust_list_head, list_op_pending));
  if (syscall(SYS_get_robust_list, 0, &list, &size) != 0 || list == nullptr) {
    Fatal(
        "this thread has no robust list, so a lock would outlive it: it was "
        "made by a raw clone() or in a sandbox; use fork(), posix_spawn() or "
        "pthread_create()");
  }
  if (size != sizeof(RobustList) || list->futex_offset_ != -kRobustDistance) {
    Fatal(
        "libc's robust list has another layout than this library was built "
        "for (futex_offset is not -32)");
  }

  RobustThread* self = self_;
  if (self == &unbound_) {
    // Zero bytes are its state.
    self = static_cast<RobustThread*>(MapWipedOnFork(sizeof(RobustThread)));
    static const ExitKey exit_key = [] {
      ExitKey made;
      made.valid = pthread_key_create(&made.key, &AtThreadExit) == 0;
      return made;
    }();
    if (exit_key.valid) pthread_setspecific(exit_key.key, self);
  }
  self->list_ = list;
  self->held_[0].link = &list->first_;
  self->top_ = self->held_;
  self->may_spin_ = RivalsCanRun();
  const auto tid = static_cast<uint32_t>(syscall(SYS_gettid));
  self->fenced_tid_ = BarriersReachUs() ? tid : UINT32_MAX;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  self->tid_ = tid;
  self_ = self;
  errno = saved_errno;
  return *self;
}

void RobustThread::AtThreadExit(void* thread) {
  auto* const self = static_cast<RobustThread*>(thread);
  // The kernel will still walk the fences of what is held.
  if (self->tid_ != 0 && self->held() != 0) return;
  self_ = &unbound_;
  munmap(thread, sizeof(RobustThread));
}

void RobustThread::RefreshCpus() { may_spin_ = RivalsCanRun(); }

bool RobustThread::Holds(const RobustNode& node) const {
  for (const Held* at = top_; at >= held_; --at) {
    if (at->link == &node.next) return true;
  }
  return false;
}

// Bit 0 of a link marks libc's priority-inheriting mutexes.
RobustLink* RobustThread::Strip(RobustLink* link) {
  return reinterpret_cast<RobustLink*>(reinterpret_cast<uintptr_t>(link) &
                                       ~uintptr_t{1});
}

// libc unlinks by its `prev`, so it has to learn of a new neighbour.
void RobustThread::SetForeignPrev(RobustLink* entry, RobustLink* prev) {
  entry = Strip(entry);
  if (IsSentinel(entry)) return;
  auto* const node = reinterpret_cast<RobustNode*>(
      reinterpret_cast<char*>(entry) - offsetof(RobustNode, next));
  node->prev = prev;
}

void RobustThread::PushAbove(RobustLink* link) {
  if (held() == kMaxHeld) {
    Fatal("one thread holds 1024 mutexes and locks another");
  }
  RobustLink* const first = list_->first_.next;
  if (first == top_->link) {
    Store(link->next, first);
    *++top_ = {link, nullptr};
    Store(list_->first_.next, link);
    return;
  }
  Fence* fence = free_fence_;
  if (fence != nullptr) {
    free_fence_ = fence->free;
  } else {
    fence = &fences_[fences_used_++];  // One per held node at most.
  }
  RobustLink* const below = &fence->node.next;
  Store(below->next, first);
  Store(link->next, below);
  *++top_ = {link, fence};
  Store(list_->first_.next, link);
  SetForeignPrev(first, below);
}

bool RobustThread::UnlinkAnywhere(RobustLink* link) {
  Held* at = top_;
  while (at > held_ && at->link != link) --at;
  if (at->link != link) return false;
  if (at > held_ && at->fence == nullptr && list_->first_.next == link) {
    Store(list_->first_.next, at[-1].link);
    --top_;
    return true;
  }

  // The entry above: known, or found behind the last private entry before it by
  // a walk over libc's own.
  const bool at_top = at == top_;
  const bool above_is_ours = !at_top && at[1].fence == nullptr;
  RobustLink* above = at_top          ? &list_->first_
                      : above_is_ours ? at[1].link
                                      : &at[1].fence->node.next;
  if (!above_is_ours) {
    for (int hops = 0; Load(above->next) != link; ++hops) {
      above = Strip(Load(above->next));
      if (above == nullptr || IsSentinel(above) || hops == kKernelLimit) {
        Fatal("the robust list of this thread is damaged");
      }
    }
  }

  if (at == held_) {
    Store(above->next, &list_->first_);
    at->link = &list_->first_;
    return true;
  }
  Fence* const fence = at->fence;
  if (fence == nullptr) {
    Store(above->next, at[-1].link);
  } else {
    RobustLink* const below = Load(fence->node.next.next);
    const bool below_is_foreign = below != at[-1].link;
    if (above_is_ours && below_is_foreign) {
      Store(above->next, &fence->node.next);
      at[1].fence = fence;
    } else {
      Store(above->next, below);
      if (below_is_foreign) SetForeignPrev(below, above);
      fence->free = free_fence_;
      free_fence_ = fence;
    }
  }
  std::memmove(at, at + 1, static_cast<size_t>(top_ - at) * sizeof(Held));
  top_->fence = nullptr;
  --top_;
  return true;
}

}  // namespace cohort::os
