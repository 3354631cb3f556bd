#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Python's multiprocessing and concurrent.futures in the workloads of our rows.

Usage: python_peer.py FIGURE. Prints `ready`, then plays the workload once per
line that it reads and prints the figure. Needs nothing but Python 3.
"""

import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory

MESSAGE = bytes(64)


def increment(x):
    return x + 1


def nothing():
    pass


def put_many(queue, times):
    for _ in range(times):
        queue.put(MESSAGE)


def echo(there, back, times):
    for _ in range(times):
        back.put(there.get())


def timed_each(act, times, warm):
    for _ in range(warm):
        act()
    begin = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - begin) / times * 1e9


def rate(act, count):
    begin = time.perf_counter()
    act()
    return count / (time.perf_counter() - begin)


class Uncontended:
    def __init__(self, lock):
        self.lock = lock

    def play(self):
        def section():
            with self.lock:
                pass

        return timed_each(section, 100_000, 1_000)


class Value:
    def __init__(self):
        self.value = multiprocessing.Value("i", 0)

    def increment(self):
        def add():
            with self.value.get_lock():
                self.value.value += 1

        return timed_each(add, 100_000, 1_000)


class Event:
    def __init__(self):
        self.event = multiprocessing.Event()

    def set_clear(self):
        def both():
            self.event.set()
            self.event.clear()

        return timed_each(both, 30_000, 300)

    def is_set(self):
        return timed_each(self.event.is_set, 100_000, 1_000)


def with_partner(partner, arguments, play):
    """Plays beside a process that runs `partner`; each has its processor."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise RuntimeError("needs two processors")
    process = multiprocessing.Process(
        target=run_on, args=(cpus[1], partner, *arguments)
    )
    process.start()
    os.sched_setaffinity(0, {cpus[0]})
    try:
        figure = play()
    finally:
        os.sched_setaffinity(0, cpus)
    process.join()
    return figure


def run_on(cpu, act, *arguments):
    os.sched_setaffinity(0, {cpu})
    act(*arguments)


class SemaphorePingPong:
    def play(self, times=3_000, warm=100):
        there, back = multiprocessing.Semaphore(0), multiprocessing.Semaphore(0)

        def round_trip():
            there.release()
            back.acquire()

        return (
            with_partner(
                self.answer,
                (there, back, times + warm),
                lambda: timed_each(round_trip, times, warm),
            )
            / 2
        )

    @staticmethod
    def answer(there, back, times):
        for _ in range(times):
            there.acquire()
            back.release()


class Turns:
    """Two processes that hand each other the turn, as plays.h has it."""

    KEPT = 200e-6

    def __init__(self):
        lock = multiprocessing.Lock()
        self.conditions = [multiprocessing.Condition(lock) for _ in range(2)]
        self.turn = multiprocessing.RawValue("i", -1)
        self.given = multiprocessing.RawValue("d", 0)

    def give(self, to):
        with self.conditions[to]:
            self.turn.value = to
            self.conditions[to].notify()

    def take(self, me):
        with self.conditions[me]:
            while self.turn.value != me:
                self.conditions[me].wait()

    def keep_and_give(self, to):
        begin = time.perf_counter()
        while time.perf_counter() - begin < self.KEPT:
            pass
        self.given.value = time.perf_counter()
        self.give(to)

    def take_and_give(self, give, times):
        for _ in range(times):
            self.take(1)
            give(0)

    def hot(self, times=1_500, warm=50):
        def round_trip():
            self.give(1)
            self.take(0)

        return (
            with_partner(
                self.take_and_give,
                (self.give, times + warm),
                lambda: timed_each(round_trip, times, warm),
            )
            / 2
        )

    def asleep(self, times=301):
        def took():
            self.keep_and_give(1)
            self.take(0)
            return time.perf_counter() - self.given.value

        return with_partner(
            self.take_and_give,
            (self.keep_and_give, times),
            lambda: statistics.median(took() for _ in range(times)) * 1e9,
        )


class BarrierRound:
    def play(self, times=2_000, warm=50):
        barrier = multiprocessing.Barrier(2)
        return with_partner(
            self.arrive,
            (barrier, times + warm),
            lambda: timed_each(barrier.wait, times, warm),
        )

    @staticmethod
    def arrive(barrier, times):
        for _ in range(times):
            barrier.wait()


class QueueStream:
    def play(self, times=30_000):
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=put_many, args=(queue, times))
        process.start()
        queue.get()
        figure = rate(lambda: [queue.get() for _ in range(times - 1)], times - 1)
        process.join()
        return figure


class QueuePingPong:
    def play(self, times=1_500, warm=50):
        there, back = multiprocessing.Queue(), multiprocessing.Queue()
        process = multiprocessing.Process(
            target=echo, args=(there, back, times + warm)
        )
        process.start()

        def round_trip():
            there.put(MESSAGE)
            back.get()

        figure = timed_each(round_trip, times, warm) / 2
        process.join()
        return figure


class Start:
    def __init__(self, method, times):
        self.context = multiprocessing.get_context(method)
        self.times = times

    def play(self):
        def start_and_join():
            process = self.context.Process(target=nothing)
            process.start()
            process.join()

        return timed_each(start_and_join, self.times, 0)


class Executor:
    def __init__(self, workers):
        self.executor = ProcessPoolExecutor(workers)
        self.executor.submit(increment, 0).result()

    def apply(self):
        return timed_each(
            lambda: self.executor.submit(increment, 1).result(), 1_000, 20
        )

    def submit(self, tasks=5_000):
        def all_of_them():
            futures = [self.executor.submit(increment, i) for i in range(tasks)]
            for future in futures:
                future.result()

        return rate(all_of_them, tasks)


class Pool:
    def __init__(self, workers):
        self.pool = multiprocessing.Pool(workers)
        self.pool.map(increment, range(10))

    def apply(self):
        return timed_each(lambda: self.pool.apply(increment, (1,)), 1_000, 20)

    def map(self, elements=1_000_000):
        return rate(lambda: self.pool.map(increment, range(elements)), elements)

    def map_by_one(self, elements=30_000):
        return rate(
            lambda: self.pool.map(increment, range(elements), chunksize=1),
            elements,
        )


def shared_memory():
    def once():
        memory = SharedMemory(create=True, size=4096)
        memory.buf[0] = 1
        memory.close()
        memory.unlink()

    return timed_each(once, 2_000, 100)


FIGURES = {
    "mutex_uncontended": lambda: Uncontended(multiprocessing.Lock()).play,
    "value_increment": lambda: Value().increment,
    "recursive_mutex_uncontended": lambda: Uncontended(multiprocessing.RLock()).play,
    "semaphore_uncontended": lambda: Uncontended(multiprocessing.Semaphore(1)).play,
    "semaphore_pingpong": lambda: SemaphorePingPong().play,
    "event_set_clear": lambda: Event().set_clear,
    "event_is_set": lambda: Event().is_set,
    "condition_variable_handoff": lambda: Turns().asleep,
    "condition_variable_handoff_hot": lambda: Turns().hot,
    "barrier_round": lambda: BarrierRound().play,
    "queue_stream": lambda: QueueStream().play,
    "queue_pingpong": lambda: QueuePingPong().play,
    "shared_memory": lambda: shared_memory,
    "process_fork": lambda: Start("fork", 20).play,
    "process_spawn": lambda: Start("spawn", 4).play,
    "executor_apply": lambda: Executor(1).apply,
    "executor_submit": lambda: Executor(2).submit,
    "pool_apply": lambda: Pool(1).apply,
    "pool_map": lambda: Pool(2).map,
    "pool_map_by_one": lambda: Pool(2).map_by_one,
}

# What plays must outlive main(): an executor is shut down by Python's own exit.
ALIVE = []


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    if wanted not in FIGURES:
        print(f"error: no figure {wanted!r} here")
        return 2
    play = FIGURES[wanted]()
    ALIVE.append(play)
    print("ready", flush=True)
    for _ in sys.stdin:
        try:
            print(f"{play():.9g}", flush=True)
        except Exception as error:  # pylint: disable=broad-except
            print(f"error: {type(error).__name__}: {error}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
