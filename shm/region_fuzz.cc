// SPDX-License-Identifier: Apache-2.0
//
// Memory files of any size with any bytes where a region's header stands.
// Attaching refuses them or yields bytes that can be read and written.

#include "cohort/shm/region.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/status/statusor.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/mapping.h"
#include "cohort/os/memfd.h"
#include "cohort/os/or_die.h"

namespace {

// A good header is taken from a region made here, since it names this machine's
// PID namespace; the input is laid over the whole of it, or xored into it.
void Attach(const uint8_t* data, size_t size) {
  using cohort::Region;
  namespace os = cohort::os;
  using cohort::OrDie;
  if (size < 2) return;
  const bool replace = (data[0] & 1) != 0;
  const size_t file_size =
      os::PageSize() * (1 + (data[0] >> 1) % 4) + data[1] % 2 * 100;
  data += 2;
  size = std::min(size - 2, os::PageSize());
  Region good = OrDie(Region::Create(os::PageSize()));
  os::Descriptor memory = OrDie(os::CreateSealedMemfd("fuzz", file_size));
  {
    const os::Mapping from =
        OrDie(os::Mapping::Map(good.descriptor(), 2 * os::PageSize()));
    const os::Mapping to = OrDie(os::Mapping::Map(memory, file_size));
    std::memcpy(to.data(), from.data(),
                std::min(file_size, 2 * os::PageSize()));
    // Each page in turn: the header's is one of them.
    for (size_t page = 0; page + os::PageSize() <= file_size;
         page += os::PageSize()) {
      auto* at = reinterpret_cast<uint8_t*>(to.data()) + page;
      for (size_t i = 0; i < size; ++i) {
        at[i] = replace ? data[i] : static_cast<uint8_t>(at[i] ^ data[i]);
      }
    }
  }
  absl::StatusOr<Region> region = Region::Attach(std::move(memory));
  if (!region.ok()) return;
  for (std::byte& byte : region->bytes()) byte ^= std::byte{1};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Attach(data, size);
  return 0;
}
