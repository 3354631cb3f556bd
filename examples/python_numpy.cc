// SPDX-License-Identifier: Apache-2.0
//
// A thousand numbers in shared memory, which Python's NumPy scales in place: no
// copy, nothing to install for Python. What is to be done, and what came out,
// stands in a list that both sides read and write.

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <variant>

#include "cohort/os/or_die.h"
#include "cohort/shm/region.h"
#include "cohort/shm/shareable_list.h"

using cohort::OrDie;

int main() {
  constexpr int kCount = 1000;
  const std::string name =
      "cohort-example-" + std::to_string(std::random_device()());
  const auto memory = OrDie(
      cohort::Region::CreateNamed(name, {.size = kCount * sizeof(double)}));
  const std::span<double> numbers(
      reinterpret_cast<double*>(memory.bytes().data()), kCount);
  std::iota(numbers.begin(), numbers.end(), 1.0);

  const auto settings = OrDie(cohort::ShareableList::CreateNamed(
      name + "-settings",
      {kCount, 2.5, cohort::ShareableList::None(), "room for some words"}));
  const std::string python = "/usr/bin/python3 examples/python_numpy.py ";
  if (std::system((python + name).c_str()) != 0) return EXIT_FAILURE;

  std::cout << std::get<std::string>(OrDie(settings.Get(3))) << '\n'
            << "the mean is " << std::get<double>(OrDie(settings.Get(2)))
            << '\n'
            << "the last is " << numbers.back() << '\n';
}
