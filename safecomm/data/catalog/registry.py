"""The datasets and benchmarks that a sweep can name.

A new one is an entry of its kind's `SETS`, and a reader where none of those there understands its columns.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safecomm.data import custom, medical, redteam, refusal, safety, telecom
from safecomm.data.catalog import generated
from safecomm.data.custom import Columns
from safecomm.data.dataset import Dataset, limited, usable
from safecomm.data.files import read_table
from safecomm.data.rows import Example, Kind, Loaded, Prompt
from safecomm.errors import DataError
from safecomm.storage.own_code import is_dotted, load, refuse

DATASETS: dict[str, Dataset] = {
    **generated.SETS,
    **safety.SETS,
    **redteam.SETS,
    **refusal.SETS,
    **telecom.SETS,
    **medical.SETS,
}


def load_prompts(
    name: str,
    path: str | Path | None = None,
    limit: int | None = None,
    columns: Columns | None = None,
    kind: Kind | None = None,
    shuffle: int | None = None,
    own: str | None = None,
) -> Loaded[Prompt]:
    """Returns a benchmark's prompts; of a set that is also trained on, those of the test side.

    Args:
        name: a name of `safecomm data list`, or with `columns` any other.
        path: a local copy in the dataset's own format, a file or a folder that holds one.
        limit: take only so many prompts, always the same ones.
        columns: makes the file at `path`, of whatever origin, a benchmark.
        kind: what such a benchmark measures.
        shuffle: a seed, to put the options of multiple-choice questions into another order.
        own: the dotted name of a user's own dataset, in place of the name.

    Raises:
        DataError: if the dataset can't be had, is of another format, or has no usable prompt.
    """
    with naming(name):
        if columns and path and kind:
            loaded = usable(custom.prompts(read_table(Path(path)), name, kind, columns, shuffle))
            return limited(loaded, limit, lambda row: row.prompt_id)
        entry = entry_of(own or name)
        if not entry.is_benchmark:
            others = ", ".join(sorted(other for other, entry in DATASETS.items() if entry.is_benchmark))
            raise DataError(f"it has training examples and no prompts; these have prompts: {others}")
        loaded = usable(entry.benchmark(entry.table(path), name, shuffle))
        if own and (
            wrong := [row for row in loaded.rows if not isinstance(row, Prompt) or (kind or row.kind) != row.kind]
        ):
            raise refuse(own, f"its prompts are to be Prompt(kind={kind!r}, ...), not {wrong[0]!r}")
        return limited(loaded, limit, lambda row: row.prompt_id)


def load_examples(
    name: str, path: str | Path | None = None, limit: int | None = None, own: str | None = None
) -> Loaded[Example]:
    """Returns a dataset's training examples; of a set that is also measured on, those of the training side.

    Arguments and errors are those of `load_prompts`.
    """
    with naming(name):
        entry = entry_of(own or name)
        if entry.examples is None:
            others = ", ".join(sorted(other for other, entry in DATASETS.items() if entry.examples))
            raise DataError(f"it has prompts and nothing to train on; these have training examples: {others}")
        loaded = usable(entry.examples(entry.table(path)))
        return limited(loaded, limit, lambda row: f"{row.prompt}\n{row.response}")


def entry_of(name: str) -> Dataset:
    """Returns the dataset of that name, or a user's own of a dotted name.

    Raises:
        DataError: if there is none.
        UsageError: if a user's own can't be loaded or is no dataset.
    """
    if is_dotted(name):
        found = load(name)
        if not isinstance(found, Dataset):
            raise refuse(name, "is no dataset; make it a safecomm.data.dataset.Dataset")
        return found
    if name not in DATASETS:
        raise DataError(f"there is no such dataset; `safecomm data list` shows: {', '.join(sorted(DATASETS))}")
    return DATASETS[name]


def _check_own(own: str, rows: Iterable[object], kind: Kind | None) -> None:
    """Refuses what a user's own benchmark gives in place of prompts of the right kind."""
    for row in rows:
        if not isinstance(row, Prompt) or row.kind != (kind or row.kind):
            raise refuse(own, f"its prompts are to be Prompt(kind={kind!r}, ...), not {row!r}")


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the dataset's name before what is said to be wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
