"""The time of patterns and templates is bounded on every thread, and nothing strikes once they have ended."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from safecomm.storage.time_limit import time_limit


def endless() -> None:
    with time_limit(0.05, "counting"):
        for _ in itertools.count():
            pass


def nested() -> None:
    with time_limit(60, "all of it"):
        endless()


@pytest.mark.parametrize("work", [endless, nested])
@pytest.mark.parametrize("on_main_thread", [True, False])
def test_what_never_ends_is_ended(work: Callable[[], None], on_main_thread: bool) -> None:
    with pytest.raises(ValueError, match=r"counting takes more than 0\.05 s"):
        if on_main_thread:
            work()
        else:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(work).result()


def test_each_thread_has_its_own_time() -> None:
    started = threading.Barrier(4)

    def one(number: int) -> int:
        started.wait()
        if number % 2:
            with pytest.raises(ValueError, match="counting"):
                endless()
            return number
        with time_limit(60, "little"):
            return number + sum([0] * 100_000)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [0, 1, 2, 3]


def test_nothing_strikes_after_the_end() -> None:
    """Most of these end as their time is up, before, while or after the error is raised."""

    def many() -> int:
        ended = 0
        for _ in range(300):
            try:
                with time_limit(0.001, "it"):
                    sum(range(15_000))
            except ValueError:
                ended += 1
            sum(range(2_000))
        return ended

    with ThreadPoolExecutor(2) as pool:
        assert all(0 <= done.result() <= 300 for done in [pool.submit(many) for _ in range(2)])
