// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Future<T>` is the result of a call that runs in another process, or
// will be: one waits for it with `Get()`.
//
//   cohort::Future<int> f = pool.Submit(Square, 7);
//   absl::StatusOr<int> r = f.Get(absl::Seconds(1));  // may be called again
//   absl::StatusOr<int> s = std::move(f).Get();       // moves the result out
//
//   std::vector<cohort::Future<int>> futures;
//   for (int x : {1, 2, 3}) futures.push_back(pool.Submit(Square, x));
//   for (auto [index, result] : cohort::AsCompleted(futures)) {
//     Use(index, result);                             // as they end
//   }
//   absl::StatusOr<std::vector<int>> all = cohort::GetAll(std::move(futures));
//
// A future may be dropped: the call runs all the same.

#ifndef COHORT_POOL_FUTURE_H_
#define COHORT_POOL_FUTURE_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/os/deadline.h"
#include "cohort/pool/internal/engine.h"
#include "cohort/pool/internal/task.h"
#include "cohort/serialize/callable.h"

namespace cohort {

class ProcessPool;
template <typename T>
class CompletedRange;

// Future<T>, of a call that returns T, `absl::StatusOr<T>`, or, for
// Future<void>, nothing or an `absl::Status`.
//
// |         | Get()                   | Done() | Cancel()              |
// |---------+-------------------------+--------+-----------------------|
// | Waiting | blocks                  | false  | Done, with Cancelled  |
// | Running | blocks                  | false  | refused               |
// | Done    | the result, every time  | true   | refused               |
// | Empty   | FailedPrecondition      | true   | refused               |
//
// Contract
//   Placement:      anywhere but shared memory; movable, not copyable.
//   Thread-safety:  every const member from any thread.
//   Process-safety: belongs to the process that submitted the call.
//   Fork-safety:    inert in a forked copy: a result that is not there yet
//                   never comes (Get() says FailedPrecondition).
//   Crash-safety:   a worker that dies makes it Done at once, or the call is
//                   tried again, as the pool's options say; it never hangs.
//   Signal-safety:  none.
//   Errors:         from Get(): DeadlineExceeded (not in time, or the call's
//                   own limit), Aborted (its worker died; the text names task,
//                   process and signal), Cancelled, Unavailable (the pool lost
//                   its processes), whatever the function returned, Unknown
//                   for an exception that it threw.
//   Ordering:       what the function wrote before it returned is visible after
//                   Get().
//   Cost:           a look at a Done one takes no lock. One thread in Get()
//                   reads the results itself; the others sleep.
//   Reference:      Python's concurrent.futures.Future; docs/design/pool.md.
template <typename T>
class [[nodiscard]] Future final {
 public:
  // What Get() returns: `absl::Status` or `absl::StatusOr<T>`.
  using Result = typename ResultOf<T>::type;

  // Empty.
  Future() = default;
  Future(Future&&) noexcept = default;
  Future& operator=(Future&&) noexcept = default;

  // Waits for the result; zero or less looks once. The second form moves the
  // result out and leaves the future empty if it came in time.
  Result Get(absl::Duration timeout = absl::InfiniteDuration()) const& {
    if (absl::Status ready = Await(timeout); !ready.ok()) return ready;
    std::vector<os::Descriptor> copies;
    for (const os::Descriptor& one : task_->result.descriptors()) {
      absl::StatusOr<os::Descriptor> copy = one.Duplicate();
      if (!copy.ok()) return copy.status();
      copies.push_back(*std::move(copy));
    }
    return DecodeResult<T>(task_->result.bytes(), std::move(copies));
  }
  Result Get(absl::Duration timeout = absl::InfiniteDuration()) && {
    if (absl::Status ready = Await(timeout); !ready.ok()) return ready;
    Result result = DecodeResult<T>(task_->result.bytes(),
                                    std::move(task_->result.descriptors()));
    task_.reset();
    return result;
  }

  // True iff Get() would not block. Reads what has arrived.
  [[nodiscard]] bool Done() const {
    return task_ == nullptr || task_->done() ||
           engine_->Await(*task_, Deadline::Now());
  }

  // Takes the call back if no worker has it yet. Returns true iff it will not
  // run; the result is Cancelled then.
  bool Cancel() { return task_ != nullptr && engine_->Cancel(*task_); }

 private:
  friend class ProcessPool;
  friend class CompletedRange<T>;

  Future(std::shared_ptr<pool_internal::Engine> engine,
         std::shared_ptr<pool_internal::Task> task)
      : engine_(std::move(engine)), task_(std::move(task)) {}

  // OK iff there is a result to decode.
  absl::Status Await(absl::Duration timeout) const {
    if (task_ == nullptr) {
      return absl::FailedPreconditionError(
          "this future is empty: its result was moved out, or it never had a "
          "call");
    }
    if (!task_->done() && !engine_->Await(*task_, Deadline::After(timeout))) {
      return engine_->WhyNotDone(*task_);
    }
    return task_->status;
  }

  std::shared_ptr<pool_internal::Engine> engine_;
  std::shared_ptr<pool_internal::Task> task_;
};

// One finished call of several: where it stands among them, and its result.
template <typename T>
struct Completed {
  size_t index;
  typename Future<T>::Result result;
};

// The range that AsCompleted() returns: goes once over all results in the order
// in which they end. With a time-out, those that have not ended by then come
// last, each with DeadlineExceeded.
template <typename T>
class CompletedRange final {
 public:
  struct Sentinel {};
  class Iterator final {
   public:
    explicit Iterator(CompletedRange* range) : range_(range) {}
    // May be moved from: `for (auto [index, result] : ...)` copies nothing.
    Completed<T>&& operator*() const { return *std::move(range_->current_); }
    Iterator& operator++() {
      range_->Advance();
      return *this;
    }
    friend bool operator==(const Iterator& it, Sentinel) { return it.AtEnd(); }

   private:
    [[nodiscard]] bool AtEnd() const { return !range_->current_.has_value(); }

    CompletedRange* range_;
  };

  Iterator begin() {
    Advance();
    return Iterator(this);
  }
  Sentinel end() const { return {}; }

 private:
  template <typename U>
  friend CompletedRange<U> AsCompleted(std::vector<Future<U>>&, absl::Duration);
  template <typename U>
  friend CompletedRange<U> AsCompleted(std::vector<Future<U>>&&,
                                       absl::Duration);

  CompletedRange(std::vector<Future<T>> owned, std::vector<Future<T>>* futures,
                 absl::Duration timeout)
      : owned_(std::move(owned)),
        futures_(futures),
        deadline_(Deadline::After(timeout)),
        finished_(std::make_shared<pool_internal::Finished>()),
        told_(All().size(), false) {
    // The empty ones first: from the first Join() on, the list is the engine's.
    for (size_t i = 0; i < All().size(); ++i) {
      if (All()[i].task_ == nullptr) finished_->indices.push_back(i);
    }
    for (size_t i = 0; i < All().size(); ++i) {
      if (All()[i].task_ != nullptr) {
        All()[i].engine_->Join(finished_, *All()[i].task_, i);
      }
    }
  }

  std::vector<Future<T>>& All() {
    return futures_ != nullptr ? *futures_ : owned_;
  }

  void Advance() {
    current_.reset();
    std::vector<Future<T>>& all = All();
    if (count_ == all.size()) return;
    const std::shared_ptr<pool_internal::Engine>* engine = nullptr;
    for (size_t i = 0; i < all.size() && engine == nullptr; ++i) {
      if (all[i].task_ != nullptr) engine = &all[i].engine_;
    }
    size_t index = all.size();
    // What was told because time was over may finish later: not again.
    while (index == all.size()) {
      std::optional<size_t> next;
      if (engine != nullptr) {
        next = (*engine)->AwaitNext(*finished_, read_, deadline_);
      } else if (read_ < finished_->indices.size()) {
        next = finished_->indices[read_];
      }
      if (!next.has_value()) break;
      ++read_;
      if (!told_[*next]) index = *next;
    }
    if (index == all.size()) {  // Time is over: the rest in the order given.
      index = 0;
      while (told_[index]) ++index;
    }
    ++count_;
    told_[index] = true;
    Future<T>& future = all[index];
    current_.emplace(
        Completed<T>{index, futures_ != nullptr
                                ? future.Get(absl::ZeroDuration())
                                : std::move(future).Get(absl::ZeroDuration())});
  }

  std::vector<Future<T>> owned_;
  std::vector<Future<T>>* futures_;
  Deadline deadline_;
  std::shared_ptr<pool_internal::Finished> finished_;
  std::vector<bool> told_;
  size_t count_ = 0;  // How many have been told.
  size_t read_ = 0;   // How many of `finished_` have been looked at.
  std::optional<Completed<T>> current_;
};

// The results of `futures`, which all come from one pool, in the order of their
// ends. A future is in one such range at a time. The first form refers to them:
// results stay readable through them, and in memory until a future is dropped,
// which the loop may do (`futures[index] =
// {}`). The second keeps them and frees each as it goes.
template <typename T>
CompletedRange<T> AsCompleted(
    std::vector<Future<T>>& futures,
    absl::Duration timeout = absl::InfiniteDuration()) {
  return CompletedRange<T>({}, &futures, timeout);
}
template <typename T>
CompletedRange<T> AsCompleted(
    std::vector<Future<T>>&& futures,
    absl::Duration timeout = absl::InfiniteDuration()) {
  return CompletedRange<T>(std::move(futures), nullptr, timeout);
}

// All results in the order of `futures`, or the first error among them in that
// order. Waits for `timeout` in all.
template <typename T>
auto GetAll(std::vector<Future<T>>&& futures,
            absl::Duration timeout = absl::InfiniteDuration()) {
  const Deadline deadline = Deadline::After(timeout);
  auto left = [&] {
    return deadline.infinite() ? absl::InfiniteDuration()
                               : absl::Nanoseconds(deadline.nanoseconds() -
                                                   os::NowNanoseconds());
  };
  if constexpr (std::is_void_v<T>) {
    absl::Status first;
    for (Future<T>& future : futures)
      first.Update(std::move(future).Get(left()));
    return first;
  } else {
    std::vector<T> all;
    all.reserve(futures.size());
    absl::Status first;
    for (Future<T>& future : futures) {
      absl::StatusOr<T> one = std::move(future).Get(left());
      first.Update(one.status());
      if (first.ok()) all.push_back(*std::move(one));
    }
    return first.ok() ? absl::StatusOr<std::vector<T>>(std::move(all))
                      : absl::StatusOr<std::vector<T>>(first);
  }
}

}  // namespace cohort

#endif  // COHORT_POOL_FUTURE_H_
