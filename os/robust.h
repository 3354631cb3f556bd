// SPDX-License-Identifier: Apache-2.0
//
// The calling thread's robust list: the kernel's record of which lock words the
// thread owns or is about to own, by which it frees them when the thread ends,
// for whatever reason. What sync/ builds its locks from; take those.
//
//   os::RobustThread& thread = os::RobustThread::Self();
//   thread.Pend(word);                       // Before the word becomes ours...
//   word.compare_exchange_strong(free, thread.tid());
//   thread.Push(node);                       // ...and then for as long as
//   held,
//   ...
//   thread.Pend(word);
//   thread.Unlink(node);                     // or, where nothing but our own
//   word.store(0);                           // code runs meanwhile, only pend.
//   thread.Unpend();
//
// The list belongs to libc, which keeps its own robust mutexes on it; both may
// come and go in any order. The kernel alone follows links that stand in shared
// memory: here each neighbour is known from a private table.

#ifndef COHORT_OS_ROBUST_H_
#define COHORT_OS_ROBUST_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace cohort::os {

// An entry of the kernel's list; mirrors `struct robust_list`.
struct RobustLink {
  RobustLink* next = nullptr;
};

// The links of a lock that is held across user code. `next.next` stands exactly
// 32 bytes above the lock word, as in libc's own mutexes: the kernel knows one
// distance for the whole list. Written for the kernel, never followed here.
struct RobustNode {
  void* prev = nullptr;  // libc writes it when its own entry is the neighbour.
  RobustLink next;
};
inline constexpr ptrdiff_t kRobustDistance = 32;

// The head of a thread's list, where the kernel finds it; mirrors `struct
// robust_list_head`. Belongs to a RobustThread, and has those of its members
// that need nothing else: on the path of a lock without a rival each load
// counts, and this pointer is then loaded once.
class RobustList final {
 public:
  // Covers `word` until the next Pend() or Unpend(): if the thread ends and the
  // word holds its id, the kernel replaces the id by the owner-died mark; if
  // the word holds no id, it wakes one sleeper. Only one word at a time.
  void Pend(const std::atomic<uint32_t>& word) {
    Store(pending_, reinterpret_cast<RobustLink*>(
                        reinterpret_cast<uintptr_t>(&word) + kRobustDistance));
  }
  void Unpend() { Store(pending_, static_cast<RobustLink*>(nullptr)); }

  // Requires that nothing is pending: else a signal handler uses a lock, and has
  // interrupted the use of another one. Asked for in builds without NDEBUG.
  void CheckIdle() const {
#ifndef NDEBUG
    if (Load(pending_) != nullptr) NotIdle();
#endif
  }

  // Returns true iff nothing is on the list, neither ours nor libc's.
  [[nodiscard]] bool empty() const { return Load(first_.next) == &first_; }

 private:
  friend class RobustThread;

  // Keeps the compiler's order; the kernel that reads the list of a dead thread
  // sees its stores in program order without help from the processor.
  template <typename T>
  static void Store(T*& where, T* value) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    *const_cast<T* volatile*>(&where) = value;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  template <typename T>
  static T* Load(T* const& where) {
    return *const_cast<T* const volatile*>(&where);
  }

  [[noreturn]] static void NotIdle();

  RobustLink first_;
  long futex_offset_;  // NOLINT(runtime/int): the kernel's type.
  RobustLink* pending_;
};

// RobustThread
//
// Contract
//   Placement:      one private page range per thread, made at first use.
//   Thread-safety:  each thread has its own; none may be passed on.
//   Process-safety: a lock word may lie in shared memory, in one PID namespace.
//   Fork-safety:    the pages are wiped in a child of fork(), _Fork() or a raw
//                   clone(); Self() then binds anew and holds nothing. A child
//                   for which the kernel has no list is ended by Fatal().
//   Crash-safety:   each step leaves the list whole for the kernel.
//   Signal-safety:  none: a handler may have interrupted a step.
//   Errors:         none; Fatal() where libc's list has another layout, at the
//                   1025th lock held, and where no memory is left.
//   Ordering:       each step is done before the next in program order.
//   Cost:           Self(): two loads. Others: a few private stores. The first
//                   Self() of a thread: four system calls; at the start of the
//                   program one more.
//   Reference:      get_robust_list(2); Documentation/locking/robust-futex-ABI.
class RobustThread final {
 public:
  static constexpr int kMaxHeld = 1024;

  // Of the calling thread.
  [[nodiscard]] static RobustThread& Self();

  // The kernel's id of this thread, which makes it a word's holder.
  [[nodiscard]] uint32_t tid() const { return tid_; }

  // Likewise where os::BarrierForAll() of any process reaches this thread, and
  // else UINT32_MAX, which no word holds: who may free it by a plain store.
  [[nodiscard]] uint32_t fenced_tid() const { return fenced_tid_; }

  // As of its list.
  void Pend(const std::atomic<uint32_t>& word) { list_->Pend(word); }
  void Unpend() { list_->Unpend(); }

  // Covers the word of `node` until Unlink(). Requires that this thread holds
  // the word and has it pending.
  void Push(RobustNode& node) { Push(node, *list_, list_->empty()); }

  // Ends that. Requires that the word is pending. Returns false, changing
  // nothing, if this thread did not push `node`.
  [[nodiscard]] bool Unlink(RobustNode& node) { return Unlink(node, *list_); }

  // Both for a caller in a hurry, which has asked for the list, and whether it
  // is empty, *before* it took the word: whatever comes after an atomic step
  // waits for it.
  [[nodiscard]] RobustList& list() const { return *list_; }
  void Push(RobustNode& node, RobustList& list, bool empty);
  [[nodiscard]] bool Unlink(RobustNode& node, RobustList& list);

  // Returns true iff this thread pushed `node` and did not unlink it.
  [[nodiscard]] bool Holds(const RobustNode& node) const;

  // How many nodes are pushed.
  [[nodiscard]] int held() const {
    return static_cast<int>(top_ - held_) + (IsSentinel(held_[0].link) ? 0 : 1);
  }

  // True where a holder can be running while this thread spins (os/cpu.h). As
  // of the last RefreshCpus().
  [[nodiscard]] bool may_spin() const { return may_spin_; }
  void RefreshCpus();

  RobustThread(const RobustThread&) = delete;
  RobustThread& operator=(const RobustThread&) = delete;

 private:
  // A private entry that stands below one of ours whose neighbour would else be
  // libc's: libc changes the link of the entry above its own, and a link that
  // others may change must not stand in shared memory. Its word is never owned.
  struct Fence {
    uint64_t word[3];
    RobustNode node;
    Fence* free;
  };

  struct Held {
    RobustLink* link;
    Fence* fence;  // Null above `top_`.
  };

  constexpr RobustThread() = default;

  static RobustThread& Bind();
  static void AtThreadExit(void* thread);

  template <typename T>
  static void Store(T*& where, T* value) {
    RobustList::Store(where, value);
  }
  template <typename T>
  static T* Load(T* const& where) {
    return RobustList::Load(where);
  }

  void PushAbove(RobustLink* link);
  bool UnlinkAnywhere(RobustLink* link);
  bool IsSentinel(const RobustLink* link) const {
    return link == &list_->first_;
  }
  static RobustLink* Strip(RobustLink* link);
  void SetForeignPrev(RobustLink* entry, RobustLink* prev);

  static RobustThread unbound_;
  static constinit thread_local RobustThread* self_;

  uint32_t tid_ = 0;  // 0 before Bind() and after a fork.
  uint32_t fenced_tid_ = 0;
  RobustList* list_ = nullptr;
  Held* top_ = nullptr;  // Within `held_`: our entry nearest to the head.
  bool may_spin_ = false;
  Fence* free_fence_ = nullptr;
  uint32_t fences_used_ = 0;
  // In list order. [0] is our entry that has nothing below it, which is most
  // often the only one; without such an entry it stands for the head. The entry
  // below any other is its fence, or else the one before.
  Held held_[kMaxHeld + 1] = {};
  Fence fences_[kMaxHeld] = {};
};

inline RobustThread& RobustThread::Self() {
  RobustThread* self = self_;
  if (self->tid_ == 0) [[unlikely]] {
    return Bind();
  }
  return *self;
}

inline void RobustThread::Push(RobustNode& node, RobustList& list, bool empty) {
  RobustLink* const link = &node.next;
  if (!empty) [[unlikely]] {
    return PushAbove(link);
  }
  Store(link->next, &list.first_);
  held_[0].link = link;
  Store(list.first_.next, link);
}

inline bool RobustThread::Unlink(RobustNode& node, RobustList& list) {
  RobustLink* const link = &node.next;
  if (list.first_.next != link || held_[0].link != link) [[unlikely]] {
    return UnlinkAnywhere(link);
  }
  Store(list.first_.next, &list.first_);
  held_[0].link = &list.first_;
  return true;
}

}  // namespace cohort::os

#endif  // COHORT_OS_ROBUST_H_
