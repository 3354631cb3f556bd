// SPDX-License-Identifier: Apache-2.0
//
// What Process::Start refuses while the program is compiled. All that calls may
// not hold is in serialize/callable_compile_test.cc; here it is seen to apply.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "cohort/os/descriptor.h"
#include "cohort/process/process.h"
#include "cohort/process/process_group.h"

namespace cohort {
namespace {

int Return(int code) { return code; }
absl::Status Greet(std::string who) { return absl::NotFoundError(who); }
void Own(os::Descriptor) {}

void Use(os::Descriptor descriptor, int local) {
  (void)Process::Start(Return, 7);
  (void)Process::Start({.name = "greeter"}, Greet, "w");
  (void)Process::Start(Own, std::move(descriptor));
  ProcessGroup group;
  group.Start({.name = "greeter"}, Greet, "w");
  group.Start([] {});
#ifdef CAPTURES
  (void)Process::Start([local] { return local; });
#endif
#ifdef POINTER
  (void)Process::Start([](int* p) { *p = 1; }, &local);
#endif
#ifdef COPIED_OWNER
  (void)Process::Start(Own, descriptor);
#endif
#ifdef RESULT
  (void)Process::Start([] { return std::string("text"); });
#endif
#ifdef COPIED_PROCESS
  Process process = *Process::Start([] {});
  Process copy = process;
#endif
  (void)local;
}

[[maybe_unused]] constexpr auto kUse = &Use;

}  // namespace
}  // namespace cohort
