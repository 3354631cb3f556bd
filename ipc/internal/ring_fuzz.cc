// SPDX-License-Identifier: Apache-2.0
//
// A ring in whose memory somebody wrote. It is refused, or found damaged, or
// hands over nonsense; but it never touches other memory, and never waits.

#include "cohort/ipc/internal/ring.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/status/statusor.h"
#include "cohort/os/deadline.h"
#include "cohort/os/or_die.h"
#include "cohort/shm/region.h"

namespace {

using cohort::Deadline;
using cohort::Region;
using cohort::ipc_internal::Larger;
using cohort::ipc_internal::Ring;

constexpr uint64_t kTag = 7;
// The two words of robust locks are the kernel's: who writes the number of a
// living thread there stops the others for as long as it lives.
constexpr size_t kLocks[] = {128, 256};

void Use(const uint8_t* data, size_t size) {
  Ring ring = cohort::OrDie(
      Ring::Create({.capacity = 512, .max_items = 0, .type_tag = kTag}));
  std::array<char, 600> message = {};
  size_t got = 0;
  // Some records, so that there is something to damage.
  for (size_t length : {10, 100, 3}) {
    (void)ring.Put(message.data(), length, Deadline::Now());
  }
  (void)ring.Get(message.data(), message.size(), Larger::kCut, &got,
                 Deadline::Now());
  // Pairs of an offset and a byte.
  auto* const bytes = reinterpret_cast<uint8_t*>(ring.region().bytes().data());
  const size_t room = ring.region().size();
  for (size_t i = 0; i + 2 < size; i += 3) {
    const size_t at = (data[i] | data[i + 1] << 8) % room;
    const bool lock =
        std::any_of(std::begin(kLocks), std::end(kLocks),
                    [at](size_t word) { return word <= at && at < word + 4; });
    if (!lock) bytes[at] = data[i + 2];
  }
  absl::StatusOr<Ring> other = Ring::Attach(ring.region(), kTag);
  if (!other.ok()) return;
  for (int round = 0; round < 20; ++round) {
    const size_t length = round * 37 % 200;
    (void)other->Put(message.data(), length, Deadline::Now());
    got = 0;
    (void)other->Get(message.data(), round % 3 == 0 ? 8 : message.size(),
                     round % 2 == 0 ? Larger::kCut : Larger::kKeep, &got,
                     Deadline::Now());
    (void)other->ApproxSize();
  }
  other->Close();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Use(data, size);
  return 0;
}
