// SPDX-License-Identifier: Apache-2.0
//
// Boost.Interprocess in the workloads of our rows. Needs libboost-dev.

#include <unistd.h>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <boost/interprocess/sync/interprocess_condition.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_recursive_mutex.hpp>
#include <boost/interprocess/sync/interprocess_semaphore.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cohort/benchmarks/internal/guest_program.h"
#include "cohort/benchmarks/internal/plays.h"
#include "cohort/benchmarks/internal/stage.h"

namespace cohort_benchmarks {
namespace {

namespace interprocess = boost::interprocess;

// The queue has a name for as long as it takes to make it; the second process
// inherits the mapping.
class BoostQueue final {
 public:
  BoostQueue() {
    static int made = 0;
    const std::string name =
        absl::StrCat("cohort-benchmark-", getpid(), "-", ++made);
    queue_ = std::make_unique<interprocess::message_queue>(
        interprocess::create_only, name.c_str(), 4096, sizeof(Message));
    interprocess::message_queue::remove(name.c_str());
  }

  bool Put(const Message& message) {
    queue_->send(&message, sizeof(message), 0);
    return true;
  }

  bool Get(Message& message) {
    interprocess::message_queue::size_type size = 0;
    unsigned int priority = 0;
    queue_->receive(&message, sizeof(message), size, priority);
    return size == sizeof(message);
  }

 private:
  std::unique_ptr<interprocess::message_queue> queue_;
};

constexpr int64_t kSections = 3'000'000;

template <typename Mutex>
absl::StatusOr<double> Uncontended() {
  HaveSecondThread();
  return NanosecondsEach<Mutex>(kSections, [](Mutex& mutex) {
    mutex.lock();
    mutex.unlock();
  });
}

absl::StatusOr<double> ValueIncrement() {
  struct Value {
    interprocess::interprocess_mutex mutex;
    int hits = 0;
  };
  HaveSecondThread();
  return NanosecondsEach<Value>(kSections, [](Value& value) {
    value.mutex.lock();
    volatile int& hits = value.hits;
    hits = hits + 1;
    value.mutex.unlock();
  });
}

absl::StatusOr<double> MutexContended() {
  HaveSecondThread();
  SharedObject<interprocess::interprocess_mutex> mutex;
  return RivalsPerSecond([&](uint64_t& counter) {
    mutex->lock();
    ++counter;
    mutex->unlock();
  });
}

absl::StatusOr<double> SharedMutexRead() {
  HaveSecondThread();
  using Mutex = interprocess::interprocess_sharable_mutex;
  return NanosecondsEach<Mutex>(kSections, [](Mutex& mutex) {
    mutex.lock_sharable();
    mutex.unlock_sharable();
  });
}

template <unsigned kPermits>
struct Permits {
  interprocess::interprocess_semaphore semaphore{kPermits};
};

absl::StatusOr<double> SemaphoreUncontended() {
  HaveSecondThread();
  return NanosecondsEach<Permits<1>>(kSections, [](Permits<1>& one) {
    one.semaphore.wait();
    one.semaphore.post();
  });
}

absl::StatusOr<double> SemaphorePingPong() {
  SharedObject<Permits<0>> there;
  SharedObject<Permits<0>> back;
  return OneWayNanoseconds(
      [&](int64_t) {
        there->semaphore.post();
        back->semaphore.wait();
        return true;
      },
      [&](int64_t) {
        there->semaphore.wait();
        back->semaphore.post();
        return true;
      });
}

using Turns =
    LockedTurns<interprocess::interprocess_mutex,
                interprocess::interprocess_condition,
                interprocess::scoped_lock<interprocess::interprocess_mutex>>;

absl::StatusOr<double> QueueStream() {
  BoostQueue queue;
  return StreamPerSecond(
      300'000, [&](const Message& message) { return queue.Put(message); },
      [&](Message& message) { return queue.Get(message); });
}

absl::StatusOr<double> QueuePingPong() {
  BoostQueue there;
  BoostQueue back;
  Message message;
  return OneWayNanoseconds(
      [&](int64_t) { return there.Put(message) && back.Get(message); },
      [&](int64_t) { return there.Get(message) && back.Put(message); });
}

// A block of 64 bytes taken and given back, of memory with a name for as long as
// it takes to make it.
absl::StatusOr<double> ArenaBlock() {
  HaveSecondThread();
  const std::string name = absl::StrCat("cohort-benchmark-arena-", getpid());
  interprocess::managed_shared_memory memory(interprocess::create_only,
                                             name.c_str(), 1 << 20);
  interprocess::shared_memory_object::remove(name.c_str());
  struct Nothing {};
  return NanosecondsEach<Nothing>(
      kSections, [&](Nothing&) { memory.deallocate(memory.allocate(64)); });
}

// A page with a name, made, mapped, touched and removed.
absl::StatusOr<double> SharedMemory() {
  const std::string name = absl::StrCat("cohort-benchmark-memory-", getpid());
  return NanosecondsPerCall(100'000'000, [&] {
    {
      interprocess::shared_memory_object memory(
          interprocess::create_only, name.c_str(), interprocess::read_write);
      memory.truncate(4096);
      const interprocess::mapped_region region(memory,
                                               interprocess::read_write);
      *static_cast<volatile char*>(region.get_address()) = 1;
    }
    return interprocess::shared_memory_object::remove(name.c_str())
               ? absl::OkStatus()
               : absl::UnknownError("it could not be removed");
  });
}

}  // namespace
}  // namespace cohort_benchmarks

int main(int argc, char** argv) {
  using namespace cohort_benchmarks;  // NOLINT: a table of its functions.
  return ServeFigures(
      argc, argv,
      {{"mutex_uncontended", Uncontended<interprocess::interprocess_mutex>},
       {"mutex_contended", MutexContended},
       {"value_increment", ValueIncrement},
       {"recursive_mutex_uncontended",
        Uncontended<interprocess::interprocess_recursive_mutex>},
       {"shared_mutex_read", SharedMutexRead},
       {"shared_mutex_write",
        Uncontended<interprocess::interprocess_sharable_mutex>},
       {"semaphore_uncontended", SemaphoreUncontended},
       {"semaphore_pingpong", SemaphorePingPong},
       {"condition_variable_handoff", HandOffAsleepNanoseconds<Turns>},
       {"condition_variable_handoff_hot", HandOffHotNanoseconds<Turns>},
       {"arena_block", ArenaBlock},
       {"shared_memory", SharedMemory},
       {"queue_stream", QueueStream},
       {"queue_pingpong", QueuePingPong}});
}
