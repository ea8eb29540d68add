"""Tensors are worked on by one thread each, and torch has its threads back afterwards."""

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


def test_one_thread_is_undone_after_errors_too() -> None:
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3


def test_in_parallel_works_one_thread_a_piece_in_the_given_order() -> None:
    assert in_parallel(lambda name: (name, torch.get_num_threads()), "abcdef") == [(name, 1) for name in "abcdef"]
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3
