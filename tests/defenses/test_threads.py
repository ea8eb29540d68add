"""Each tensor is processed by one thread, and torch's number of threads is restored."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from safecomm.defenses.threads import in_parallel, one_thread


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_one_thread_restores_the_setting_after_errors() -> None:
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3


def test_in_parallel_uses_one_thread_per_item_and_keeps_the_order() -> None:
    assert in_parallel(lambda name: (name, torch.get_num_threads()), "abcdef") == [(name, 1) for name in "abcdef"]
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3
