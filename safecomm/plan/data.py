"""Loads and checks a sweep's training sets and benchmarks."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from safecomm.data.catalog.registry import load_examples, load_prompts
from safecomm.data.rows import Example, Kind, Prompt
from safecomm.errors import DataError
from safecomm.judging.verdicts import check_gradable
from safecomm.spec import DatasetRef, Sweep


def all_prompts(sweep: Sweep) -> list[Prompt]:
    """Returns the prompts of all benchmarks of a sweep."""
    return [
        prompt for kind in get_args(Kind) for ref in getattr(sweep.evaluate, kind) for prompt in _prompts(ref, kind)
    ]


def split_prompts(sweep: Sweep, split: str) -> list[Prompt]:
    """Returns the prompts for the trials of a split (`search` or `report`)."""
    side = sweep.search.split if split == "search" else split
    return [prompt for prompt in all_prompts(sweep) if prompt.side == side]


def check_data(sweep: Sweep) -> None:
    """Loads all datasets of a sweep, and its file of labels.

    Raises:
        DataError: if one can't be read or is empty; the message starts with its key in the sweep.
    """
    section, evaluate = sweep.finetune, sweep.evaluate
    trained_on = {f"finetune.data.{place}": ref for place, ref in enumerate(section.data)}
    if section.safety_data:
        trained_on["finetune.safety_data"] = section.safety_data
    if section.safe_adapter:
        trained_on["finetune.safe_adapter.data"] = section.safe_adapter.data
    for key, ref in trained_on.items():
        _load(key, examples, ref)
    for kind in get_args(Kind):
        for place, ref in enumerate(getattr(evaluate, kind)):
            _load(f"evaluate.{kind}.{place}", functools.partial(_prompts, kind=kind), ref)
    check_gradable(all_prompts(sweep), evaluate.grader is not None)
    if evaluate.labels:
        from safecomm.judging.labels import Labelled  # imports scipy, which slows down planning

        with _placed("evaluate.labels"):
            Labelled.read(Path(evaluate.labels))


def datasets_to_download(sweep: Sweep) -> list[str]:
    """Returns the names of the benchmarks that are not available locally."""
    refs = [ref for kind in get_args(Kind) for ref in getattr(sweep.evaluate, kind)]
    sources = {ref.name: ref.entry.source for ref in refs if not ref.path}
    return [name for name, source in sources.items() if source and not source.is_local]


def _load(key: str, loader: Callable[[DatasetRef], Sequence[Any]], ref: DatasetRef) -> None:
    with _placed(key):
        if not loader(ref):
            raise DataError(f"{ref.name} has no usable rows; `safecomm data show {ref.name}` says why")


@contextmanager
def _placed(key: str) -> Iterator[None]:
    """Prefixes error messages with a key of the sweep."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


@functools.cache
def examples(ref: DatasetRef) -> tuple[Example, ...]:
    """Returns the examples of a training set."""
    return tuple(load_examples(ref.name, ref.path, ref.limit, ref.own).rows)


@functools.cache
def _prompts(ref: DatasetRef, kind: Kind) -> tuple[Prompt, ...]:
    return tuple(load_prompts(ref.name, ref.path, ref.limit, ref.columns, kind, ref.shuffle_options, ref.own).rows)
