# SPDX-License-Identifier: Apache-2.0
"""The other half of python_numpy.cc: scales its numbers in place by NumPy."""

import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList, SharedMemory

import numpy as np


def kept(memory):
    """Python removes what it merely attached to when it exits, unless told."""
    resource_tracker.unregister(memory._name, "shared_memory")


name = sys.argv[1]
memory = SharedMemory(name)
settings = ShareableList(name=name + "-settings")
kept(memory)
kept(settings.shm)

count, factor = settings[0], settings[1]
numbers = np.ndarray(count, np.float64, buffer=memory.buf)
numbers *= factor
settings[2] = float(numbers.mean())
settings[3] = "scaled by NumPy"

del numbers  # Lets go of the memory, which can be closed only then.
memory.close()
settings.shm.close()
