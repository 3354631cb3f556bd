// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/this_process.h"

#include <string>

namespace cohort {
namespace {

// Never destroyed: static destructors of the program may ask for the name.
std::string& MutableName() {
  static std::string& name = *new std::string("main");
  return name;
}

bool is_child = false;

}  // namespace

namespace this_process {

const std::string& Name() { return MutableName(); }

bool IsChild() { return is_child; }

}  // namespace this_process

namespace process_internal {

void BecomeChild(const std::string& name) {
  MutableName() = name;
  is_child = true;
}

}  // namespace process_internal
}  // namespace cohort
