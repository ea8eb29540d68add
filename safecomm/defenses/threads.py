"""Parallelism over tensors instead of within them.

Torch splits each operation over its threads and synchronizes them afterwards. If other processes compete for the cores,
the threads mostly wait for each other: the alignment profile took twenty times as long. So one thread works on each
tensor here, and several tensors are processed at a time on several cores.
"""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from safecomm.defenses.hardware import thread_count

Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch's operations in this thread only; restores the number of threads on exit."""
    with _threads(1):
        yield


@contextmanager
def all_threads() -> Iterator[None]:
    """Splits torch's operations over all cores, also in a Ray actor, for a model that runs as a whole."""
    with _threads(thread_count()):
        yield


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Report = Callable[[int, int], None]
"""A progress callback, called with the number of modules done and the total."""


def silent(done: int, total: int) -> None:
    """Reports nothing."""


def in_parallel(work: Callable[[str], Result], names: Collection[str], report: Report = silent) -> list[Result]:
    """Maps `work` over names in `thread_count()` threads; each thread runs its operations alone."""
    threads, results = thread_count(), []
    # The number of threads is local to a thread in torch; a new thread starts with the one set last.
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for result in pool.map(work, names):
            results.append(result)
            report(len(results), len(names))
    return results
