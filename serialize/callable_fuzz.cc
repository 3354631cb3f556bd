// SPDX-License-Identifier: Apache-2.0
//
// Calls, functions and code references, made up. The second byte chooses how
// much of a good call stands before the rest, since no fuzzer guesses a build.
// What is decoded is only run where that covers the code references: who can
// name code can run it.

#include "cohort/serialize/callable.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cohort/os/check.h"
#include "cohort/serialize/codec.h"
#include "cohort/serialize/frame.h"

namespace {

using cohort::Frame;

struct Job {
  int32_t id = 0;
  std::string path;
  template <class Archive>
  void serialize(Archive& a) {
    a(id, path);
  }
};

class Adder {
 public:
  [[nodiscard]] size_t Add(const std::vector<Job>& jobs) const {
    return jobs.size() + static_cast<size_t>(base_);
  }
  template <class Archive>
  void serialize(Archive& a) {
    a(base_);
  }

 private:
  int32_t base_ = 0;
};

size_t Count(const std::map<std::string, Job>& jobs, std::optional<int> more) {
  return jobs.size() + (more.has_value() ? 1 : 0);
}

Frame GoodCall(int which) {
  Frame frame;
  const std::map<std::string, Job> jobs = {{"a", {1, "x"}}, {"b", {2, "y"}}};
  switch (which) {
    case 0:
      (void)cohort::EncodeCall(frame, Count, jobs, 7);
      break;
    case 1:
      (void)cohort::EncodeCall(frame, &Adder::Add, Adder(),
                               std::vector<Job>(3));
      break;
    default:
      (void)cohort::EncodeCall(
          frame, [](const std::string& text, double) { return text; }, "text",
          0.5);
      break;
  }
  return frame;
}

// The entry and the callable of each of them.
constexpr size_t kCode[] = {48, 24 + 40, 24};

void Call(std::string_view input) {
  if (input.size() < 2) return;
  const int which = static_cast<unsigned char>(input[0]) % 3;
  const Frame good = GoodCall(which);
  const size_t keep = static_cast<unsigned char>(input[1]) % (good.size() + 1);
  std::string bytes(good.bytes().substr(0, keep));
  bytes += input.substr(2);
  if (absl::StatusOr<cohort::BoundCall> call = cohort::DecodeCall(bytes);
      call.ok() && keep >= kCode[which]) {
    Frame result;
    (void)std::move(*call).Run(result);
    cohort::os::Check(!result.empty(), "a call without a result");
  }
  cohort::Decoder decoder(bytes);
  (void)cohort::DecodeFunction(decoder);
  (void)cohort::DecodeResult<std::vector<Job>>(input);
  (void)cohort::DecodeResult<void>(input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Call({reinterpret_cast<const char*>(data), size});
  return 0;
}
