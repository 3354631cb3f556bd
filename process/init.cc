// SPDX-License-Identifier: Apache-2.0

#include "cohort/process/init.h"

#include "cohort/process/internal/child.h"

namespace cohort {

void Init(int& argc, char**& argv) {
  if (argc > 1 && argv[1] == process_internal::kChildMarker) {
    process_internal::NoteInit(argv[0]);
    process_internal::RunSpawned();
  }
  process_internal::NoteInit(argc > 0 ? argv[0] : "");
}

}  // namespace cohort
