"""Loads and checks a sweep's training sets and benchmarks."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from safecomm.data.catalog.registry import load_examples, load_prompts
from safecomm.data.dataset import Counts
from safecomm.data.judgeable import check_gradable, check_judgeable
from safecomm.data.overlap import contained
from safecomm.data.rows import Example, Kind, Prompt, estimated_tokens
from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.registry import defense_of
from safecomm.errors import DataError
from safecomm.search.arms import DRIFT, TAMPER, Trial
from safecomm.search.fine_tunes import SAFE_ADAPTER
from safecomm.spec import DatasetRef, Sweep
from safecomm.storage.store import digest


def all_prompts(sweep: Sweep, fetch: bool = True) -> list[Prompt]:
    """Returns the prompts of all benchmarks of a sweep, without those that are in its training data.

    Args:
        sweep: the sweep.
        fetch: whether training sets may be downloaded; otherwise only local ones are compared.

    Raises:
        DataError: if a dataset can't be read, or all prompts of a benchmark are in the training data.
    """
    found = []
    for key, prompts in _benchmarks(sweep).items():
        trained_on = _contained(prompts, _training_sets(sweep, fetch))
        if prompts and len(trained_on) == len(prompts):
            raise DataError(f"{key}: all {len(prompts):,} prompts are in the training data; use another benchmark")
        found += [prompt for prompt in prompts if prompt.prompt_id not in trained_on]
    return found


def overlaps(sweep: Sweep, fetch: bool = True) -> list[str]:
    """Returns a line for each benchmark of which prompts are in the training data and therefore left out."""
    found = []
    for key, prompts in _benchmarks(sweep).items():
        if trained_on := _contained(prompts, _training_sets(sweep, fetch)):
            found.append(
                f"{key}: {len(trained_on):,} of {len(prompts):,} prompts are in the training data and left out"
            )
    return found


def _benchmarks(sweep: Sweep) -> dict[str, tuple[Prompt, ...]]:
    """Returns the prompts of every benchmark, by its key in the sweep."""
    return {
        f"evaluate.{kind}.{at} ({ref.benchmark})": _prompts(ref, kind)
        for kind in get_args(Kind)
        for at, ref in enumerate(getattr(sweep.evaluate, kind))
    }


def _training_sets(sweep: Sweep, fetch: bool) -> tuple[DatasetRef, ...]:
    return tuple(ref for ref in dict.fromkeys(sweep.training_sets.values()) if fetch or _is_local(ref))


@functools.lru_cache(maxsize=64)
def _contained(prompts: tuple[Prompt, ...], trained: tuple[DatasetRef, ...]) -> frozenset[str]:
    return frozenset(contained(prompts, (example for ref in trained for example in examples(ref))))


def split_prompts(sweep: Sweep, split: str, fetch: bool = True) -> list[Prompt]:
    """Returns the prompts for the trials of a split (see `of_split`); for `fetch` see `all_prompts`."""
    return of_split(sweep, split, all_prompts(sweep, fetch))


def of_split(sweep: Sweep, split: str, prompts: Iterable[Prompt]) -> list[Prompt]:
    """Returns those of a sweep's prompts that the trials of a split answer.

    Later generations (`drift`) answer the prompts of the report split; adapters that were trained further (`tamper`),
    the harmful ones of these and, if the sweep limits the drop in accuracy, the task's.
    """
    if split == DRIFT:
        return of_split(sweep, "report", prompts)
    if split == TAMPER:
        kinds = {"red_team", "task"} if sweep.tamper and sweep.tamper.max_accuracy_drop is not None else {"red_team"}
        return [prompt for prompt in of_split(sweep, "report", prompts) if prompt.kind in kinds]
    side = sweep.search.split if split == "search" else split
    return [prompt for prompt in prompts if prompt.side(sweep.search.release_split) == side]


def check_data(sweep: Sweep) -> None:
    """Loads all datasets of a sweep, and its file of labels.

    Raises:
        DataError: if one can't be read or is empty; the message starts with its key in the sweep.
        UsageError: if the answers to a benchmark can't be judged.
    """
    _check(sweep, lambda ref: True)
    check_safety_data(sweep)
    check_enough(sweep, all_prompts(sweep))


def check_local_data(sweep: Sweep) -> None:
    """The same for the sweep's own files, and for datasets that are generated."""
    _check(sweep, lambda ref: bool(ref.path) or ref.entry.source is None)
    check_safety_data(sweep, fetch=False)


def _check(sweep: Sweep, is_wanted: Callable[[DatasetRef], bool]) -> None:
    evaluate = sweep.evaluate
    for key, ref in sweep.training_sets.items():
        if is_wanted(ref):
            _load(key, examples, ref)
    prompts: list[Prompt] = []
    for kind in get_args(Kind):
        for place, ref in enumerate(getattr(evaluate, kind)):
            if is_wanted(ref):
                prompts += _load(f"evaluate.{kind}.{place}", functools.partial(_prompts, kind=kind), ref)
    check_gradable(prompts, evaluate.grader is not None, "evaluate.grader")
    check_judgeable(prompts, evaluate.judges[0].name, "evaluate.judges")
    if evaluate.labels:
        from safecomm.judging.labels import Labelled  # imports scipy, which slows down planning

        with _placed("evaluate.labels"):
            Labelled.read(Path(evaluate.labels))


def check_safety_data(sweep: Sweep, fetch: bool = True) -> None:
    """Checks that there are as many safety examples as the defenses need.

    Args:
        sweep: the sweep.
        fetch: whether to download the examples; if not, only those that can be read here are checked.

    Raises:
        DataError: if there are fewer.
    """
    ref = sweep.finetune.safety_data
    steps = [(arm, step) for arm, chain in sweep.arms.items() for step in chain]
    needs = [
        (arm, step.name, step.settings.least_safety_examples)
        for arm, step in steps
        if isinstance(step.settings, TrainingDefense) and step.settings.least_safety_examples
    ]
    if ref is None or not needs or not (fetch or _is_local(ref)):
        return
    try:
        found = len(examples(ref))
    except DataError:
        if fetch:
            raise
        return  # offline, it is looked for in the Hub's cache
    for arm, name, needed in needs:
        if needed > found:
            raise DataError(
                f"finetune.safety_data: has {found:,} examples, but arms.{arm} ({name}) needs {needed:,}; use a larger "
                "set or lower that setting"
            )


def check_enough(sweep: Sweep, prompts: Sequence[Prompt]) -> None:
    """Checks that every benchmark has enough prompts on both splits for an interval.

    Raises:
        DataError: if one has fewer than two; prompts of one cluster count once.
    """
    clusters: dict[tuple[str, str, str], set[str]] = {}
    for prompt in prompts:
        place = (prompt.kind, prompt.benchmark, prompt.side(sweep.search.release_split))
        clusters.setdefault(place, set()).add(prompt.cluster or prompt.question or prompt.text)
    for kind in get_args(Kind):
        for at, ref in enumerate(getattr(sweep.evaluate, kind)):
            for split in {sweep.search.split, *sweep.search.reported_splits}:
                if len(found := clusters.get((kind, ref.benchmark, split), ())) < 2:
                    raise DataError(
                        f"evaluate.{kind}.{at} ({ref.benchmark}): has {len(found)} prompts on the {split} split, too "
                        "few for an interval; raise its limit or use a larger benchmark"
                    )


def non_commercial(sweep: Sweep) -> list[str]:
    """Returns a line for each training set whose licence excludes commercial use, and so that of the adapters."""
    return [
        f"{key}: {ref.name} is {ref.entry.licence}, so its adapters are not for commercial use; `safecomm data "
        "safety` makes safety examples from the model's answers to your own prompts"
        for key, ref in sweep.training_sets.items()
        if ref.own is None and ref.columns is None and "-NC" in ref.entry.licence
    ]


def datasets_to_download(sweep: Sweep) -> list[str]:
    """Returns the names of the benchmarks that are not available locally."""
    return list(dict.fromkeys(ref.name for ref in sweep.evaluate.datasets.values() if not _is_local(ref)))


def training_tokens(sweep: Sweep, trials: Sequence[Trial]) -> int | None:
    """Returns about how many tokens some fine-tunes train on, in all epochs; None if a dataset's size is unknown."""
    section = sweep.finetune
    total = 0.0
    for trial in {_without_patches(trial): trial for trial in trials}.values():
        if trial.arm == SAFE_ADAPTER and section.safe_adapter:
            refs, epochs = [section.safe_adapter.data], section.safe_adapter.epochs
        else:
            refs, epochs = section.data, trial.point.get("epochs", section.epochs)
        tokens = [_tokens(ref, section.max_length) for ref in refs]
        if None in tokens:
            return None
        total += sum(filter(None, tokens)) * epochs * (1 + trial.point.get("ratio", 0.0))
    return int(total)


def _without_patches(trial: Trial) -> str:
    """Returns a key that trials share if only the short training after the fine-tune differs."""
    chain = [step for step in trial.chain if not _is_patch(step[0])]
    return digest([trial.arm, chain, trial.seed])


def _is_patch(name: str) -> bool:
    defense = defense_of(name)
    return issubclass(defense, TrainingDefense) and defense.has_patch()


def written_tokens(sweep: Sweep, split: str) -> int | None:
    """Returns about how many tokens a model writes at most for a split; None if a dataset's size is unknown."""
    evaluate, side = sweep.evaluate, sweep.search.split if split == "search" else split
    by_likelihood = evaluate.multiple_choice == "likelihood"
    release = sweep.search.release_split
    answers = [
        _answers(ref, kind, side, release, by_likelihood) for kind in get_args(Kind) for ref in getattr(evaluate, kind)
    ]
    return None if None in answers else sum(filter(None, answers)) * evaluate.samples * evaluate.max_new_tokens


def _tokens(ref: DatasetRef, longest: int) -> int | None:
    """Returns about how many tokens the examples of a training set have; None if that is unknown here."""
    if counts := _counts(ref):
        rows = counts.examples // int((ref.slice or "1/1").partition("/")[2])
        return min(ref.limit or rows, rows) * min(longest, counts.tokens)
    if _is_local(ref):
        with contextlib.suppress(DataError):
            return sum(min(longest, estimated_tokens(row.prompt, row.response)) for row in examples(ref))
    return None


def _answers(ref: DatasetRef, kind: Kind, side: str, release: float, by_likelihood: bool) -> int | None:
    """Returns how many prompts of a benchmark's side are answered in words; None if that is unknown here."""
    if counts := _counts(ref):
        share = release if side == "release" else (1 - release) / 2
        asked = int(min(ref.limit or counts.prompts, counts.prompts) * share) * _tries(ref)
        return 0 if ref.entry.questions and by_likelihood else asked
    if _is_local(ref):
        with contextlib.suppress(DataError):
            prompts = _prompts(ref, kind)
            return sum(prompt.side(release) == side and not (prompt.options and by_likelihood) for prompt in prompts)
    return None


def _tries(ref: DatasetRef) -> int:
    """Returns how many prompts an attack makes of one."""
    request = Prompt(ref.benchmark, "red_team", "a request", target="a target")
    return len(ref.attack.of([request], ref.benchmark)) if ref.attack else 1


def _counts(ref: DatasetRef) -> Counts | None:
    return None if ref.path else ref.entry.counts


def _is_local(ref: DatasetRef) -> bool:
    source = None if ref.path else ref.entry.source
    return source is None or source.is_local


def _load(key: str, loader: Callable[[DatasetRef], Sequence[Any]], ref: DatasetRef) -> Sequence[Any]:
    with _placed(key):
        if not (rows := loader(ref)):
            raise DataError(f"{ref.name} has no usable rows; `safecomm data show {ref.name}` says why")
    return rows


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
    return tuple(load_examples(ref.name, ref.path, ref.limit, ref.own, ref.columns, ref.slice).rows)


@functools.cache
def _prompts(ref: DatasetRef, kind: Kind) -> tuple[Prompt, ...]:
    rows = load_prompts(ref.name, ref.path, ref.limit, ref.columns, kind, ref.shuffle_options, ref.own).rows
    return tuple(ref.attack.of(rows, ref.benchmark) if ref.attack else rows)
