"""The registry of datasets and benchmarks.

To add one, add an entry to the `SETS` of its kind, and a reader if no existing one supports its columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safecomm.data import custom, medical, redteam, refusal, safety, telecom
from safecomm.data.catalog import generated
from safecomm.data.custom import Columns
from safecomm.data.dataset import Dataset, limited, sliced, usable
from safecomm.data.files import read_table
from safecomm.data.rows import Example, Kind, Loaded, Prompt
from safecomm.errors import DataError, UsageError, suggestion
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
    """Returns a benchmark's prompts. If the dataset is also used for training, these are the prompts of its test split.

    Args:
        name: a name from `safecomm data list`, or with `columns` any other name.
        path: a local copy in the dataset's original format, a file or a folder with one.
        limit: maximum number of prompts; the sample is always the same.
        columns: the columns of the user's file at `path`, which becomes a benchmark.
        kind: the kind of that benchmark.
        shuffle: a seed for shuffling the options of multiple-choice questions.
        own: the dotted name of a user's dataset, instead of the name.

    Raises:
        DataError: if the dataset is not available, has another format, or has no usable prompts.
    """
    with naming(name):
        if columns and path and kind:
            loaded = usable(custom.prompts(read_table(Path(path)), name, kind, columns, shuffle))
            return limited(loaded, limit, lambda row: row.prompt_id)
        entry = entry_of(own or name)
        if not entry.is_benchmark:
            others = ", ".join(sorted(other for other, entry in DATASETS.items() if entry.is_benchmark))
            raise DataError(f"it has training examples but no prompts; use one of: {others}")
        loaded = usable(entry.benchmark(entry.table(path), name, shuffle))
        if own and (
            wrong := [row for row in loaded.rows if not isinstance(row, Prompt) or (kind or row.kind) != row.kind]
        ):
            raise refuse(own, f"its prompts must be Prompt(kind={kind!r}, ...), not {wrong[0]!r}")
        return limited(loaded, limit, lambda row: row.prompt_id)


def load_examples(
    name: str,
    path: str | Path | None = None,
    limit: int | None = None,
    own: str | None = None,
    columns: Columns | None = None,
    part: str | None = None,
) -> Loaded[Example]:
    """Returns a dataset's training examples. If it is also a benchmark, these are the examples of its training split.

    With `part`, e.g. `1/4`, they are those of one slice (see `sliced`). See `load_prompts` for the other arguments and
    the errors.
    """
    with naming(name):
        if columns and path:
            loaded = custom.examples(read_table(Path(path)), columns)
            return limited(sliced(loaded, part, _example_key), limit, _example_key)
        entry = entry_of(own or name)
        if entry.examples is None:
            others = ", ".join(sorted(other for other, entry in DATASETS.items() if entry.examples))
            raise DataError(f"it has prompts but no training examples; use one of: {others}")
        loaded = usable(entry.examples(entry.table(path)))
        return limited(sliced(loaded, part, _example_key), limit, _example_key)


def load_requests(
    name: str, path: str | Path | None = None, limit: int | None = None, column: str = ""
) -> Loaded[Prompt]:
    """Returns harmful prompts: those of a red-team benchmark, of a safety training set or of the user's file.

    Args:
        name: a name from `safecomm data list`, or with `column` any other name.
        path: a local copy in the dataset's original format, or the user's file.
        limit: maximum number of prompts; the sample is always the same.
        column: the column of the user's file with the prompts.

    Raises:
        DataError: if the dataset is not available or has another format.
        UsageError: if it is of another kind.
    """
    if column:
        return load_prompts(name, path, limit, Columns(column), "red_team")
    roles = entry_of(name).roles
    if "red_team" in roles:
        return load_prompts(name, path, limit)
    if "safety" not in roles:
        fitting = ", ".join(sorted(other for other, one in DATASETS.items() if one.roles & {"red_team", "safety"}))
        raise UsageError(f"{name}: its prompts are not harmful; use one of: {fitting}, or your own file")
    loaded = load_examples(name, path, limit)
    return Loaded([Prompt(name, "red_team", row.prompt) for row in loaded.rows], loaded.skipped)


def _example_key(row: Example) -> str:
    return f"{row.prompt}\n{row.response}"


def entry_of(name: str) -> Dataset:
    """Returns the dataset with a registered name, or the user's dataset with a dotted name.

    Raises:
        UsageError: if it does not exist, or the user's object can't be loaded or is not a `Dataset`.
    """
    if is_dotted(name):
        found = load(name)
        if not isinstance(found, Dataset):
            raise refuse(name, "is not a dataset; make it a safecomm.data.dataset.Dataset")
        return found
    if name not in DATASETS:
        hint = suggestion(name, DATASETS) or "; `safecomm data list` lists them"
        raise UsageError(f"there is no dataset {name!r:.100}{hint}")
    return DATASETS[name]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Prefixes error messages with the dataset's name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
