"""The data that a sweep names: what it trains on and what it measures with."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from safecomm.data.catalog.registry import load_examples, load_prompts
from safecomm.data.rows import Example, Kind, Prompt
from safecomm.errors import DataError
from safecomm.judging.verdicts import check_gradable
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import SAFE_ADAPTER
from safecomm.spec import DatasetRef, Sweep

CHARACTERS_PER_TOKEN = 4
"""Of English text; the tokenizer may not be on this machine."""


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
    """Loads every dataset, and the file of labels, that the sweep names.

    Raises:
        DataError: for the first that can't be read, with its place in the sweep.
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
    return list(dict.fromkeys(ref.name for ref in refs if not _is_local(ref)))


def training_tokens(sweep: Sweep, trials: Sequence[Trial]) -> int | None:
    """Returns about how many tokens some fine-tunes train on, in all epochs; None if a dataset is not available."""
    section = sweep.finetune
    safe = section.safe_adapter
    total = 0.0
    for trial in trials:
        if trial.arm == SAFE_ADAPTER and safe:
            tokens, epochs = _tokens([safe.data], section.max_length), safe.epochs
        else:
            tokens, epochs = _tokens(section.data, section.max_length), trial.point.get("epochs", section.epochs)
        if tokens is None:
            return None
        total += tokens * epochs * (1 + trial.point.get("ratio", 0.0))
    return int(total)


def written_tokens(sweep: Sweep, split: str) -> int | None:
    """Returns how many tokens a model writes at most for the prompts of a split; None if one is not available."""
    evaluate = sweep.evaluate
    if datasets_to_download(sweep):
        return None
    try:
        prompts = split_prompts(sweep, split)
    except DataError:
        return None
    by_likelihood = evaluate.multiple_choice == "likelihood"
    written = sum(not (prompt.options and by_likelihood) for prompt in prompts)
    return written * evaluate.samples * evaluate.max_new_tokens


def _tokens(refs: Sequence[DatasetRef], longest: int) -> int | None:
    """Returns about how many tokens the examples of some training sets have; None if one is not available locally."""
    if not all(_is_local(ref) for ref in refs):
        return None
    try:
        rows = [row for ref in refs for row in examples(ref)]
    except DataError:
        return None
    return sum(min(longest, (len(row.prompt) + len(row.response)) // CHARACTERS_PER_TOKEN) for row in rows)


def _is_local(ref: DatasetRef) -> bool:
    source = None if ref.path else ref.entry.source
    return source is None or source.is_local


def _load(key: str, loader: Callable[[DatasetRef], Sequence[Any]], ref: DatasetRef) -> None:
    with _placed(key):
        if not loader(ref):
            raise DataError(f"{ref.name} has no usable rows; `safecomm data show {ref.name}` says why")


@contextmanager
def _placed(key: str) -> Iterator[None]:
    """Leads what is wrong with a file by its place in the sweep."""
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
