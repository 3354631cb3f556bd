// SPDX-License-Identifier: Apache-2.0
//
// main() of tests that start processes: a spawned child is the test program
// once more and leaves in Init, before GoogleTest sees it.

#include "cohort/process/init.h"
#include "gtest/gtest.h"

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
