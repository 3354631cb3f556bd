// SPDX-License-Identifier: Apache-2.0
//
// Messages of any size with any number of descriptors, and what the kernel adds
// beside them, received under any limits. No descriptor is lost or closed
// twice.

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cohort/os/check.h"
#include "cohort/os/deadline.h"
#include "cohort/os/descriptor.h"
#include "cohort/os/or_die.h"
#include "cohort/os/socket.h"

namespace cohort::os {
namespace {

std::ptrdiff_t OpenDescriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

void Exchange(std::string_view input) {
  auto byte = [&input] {
    if (input.empty()) return 0;
    const int first = static_cast<unsigned char>(input.front());
    input.remove_prefix(1);
    return first;
  };
  auto [here, there] = OrDie(SocketPair());
  // The other end may ask for credentials to come with each message.
  const int credentials = byte() & 1;
  Check(setsockopt(there.get(), SOL_SOCKET, SO_PASSCRED, &credentials,
                   sizeof(credentials)) == 0,
        "SO_PASSCRED is refused");
  while (!input.empty()) {
    const std::vector<int> sent(static_cast<size_t>(byte()), here.get());
    const auto most_descriptors = static_cast<size_t>(byte());
    const auto most_bytes = static_cast<size_t>(byte());
    const std::string_view bytes = input.substr(0, static_cast<size_t>(byte()));
    if (!SendMessage(here, bytes, sent, Deadline::Now()).ok()) continue;
    absl::StatusOr<Message> got =
        ReceiveMessage(there, most_bytes, most_descriptors, Deadline::Now());
    if (bytes.size() > most_bytes || sent.size() > most_descriptors) {
      Check(!got.ok(), "a message beyond the limits was received");
    } else if (got.ok()) {
      Check(got->bytes == bytes && got->descriptors.size() == sent.size(),
            "a message was not received whole");
    } else {
      // Credentials take the room of some of the most descriptors.
      Check(credentials != 0, "a message within the limits was refused");
    }
  }
}

}  // namespace
}  // namespace cohort::os

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::ptrdiff_t before = cohort::os::OpenDescriptors();
  cohort::os::Exchange({reinterpret_cast<const char*>(data), size});
  cohort::os::Check(cohort::os::OpenDescriptors() == before,
                    "descriptors were lost");
  return 0;
}
