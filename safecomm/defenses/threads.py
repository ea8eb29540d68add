"""Work on many small tensors without torch's own threads.

Torch splits each operation over its threads, which meet again after it. Where other processes want the processors too,
the threads wait for each other far longer than they work: the alignment profile took twenty times as long. So a tensor
is worked on by one thread here, and several tensors at a time where there are several processors.
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
    """Keeps torch's operations in this thread; afterwards torch has as many threads as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Report = Callable[[int, int], None]
"""Is called with how many modules are done, and of how many."""


def silent(done: int, total: int) -> None:
    """Reports nothing."""


def in_parallel(work: Callable[[str], Result], names: Collection[str], report: Report = silent) -> list[Result]:
    """Returns what `work` makes of each name, in `thread_count()` threads, each doing its operations alone."""
    threads, results = thread_count(), []
    # Torch keeps the number of threads per thread, and gives the last one that was set to new threads.
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for result in pool.map(work, names):
            results.append(result)
            report(len(results), len(names))
    return results
