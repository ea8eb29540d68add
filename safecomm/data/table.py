"""Tables of published rows, with named columns and their source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from safecomm.data.rows import Loaded, Row
from safecomm.data.splits import normalised
from safecomm.errors import DataError

Raw = dict[str, Any]
SURPLUS = "fields beyond the last column"
"""The key for surplus fields of a CSV row, which result from an unquoted comma."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file or Hub dataset."""

    rows: list[Raw]
    where: str
    """The path or URL, for messages."""

    @property
    def columns(self) -> list[str]:
        """All columns that occur in any row."""
        return [column for column in dict.fromkeys(column for row in self.rows for column in row) if column != SURPLUS]

    def find(self, names: Sequence[str]) -> str | None:
        """Returns the column that matches the first of the names that exists, ignoring case."""
        present = {column.strip().casefold(): column for column in self.columns}
        return next((present[name] for name in names if name in present), None)

    def column(self, names: Sequence[str]) -> str:
        """Returns the column that matches one of the names.

        Raises:
            DataError: if there is none; the message lists the existing columns.
        """
        if (found := self.find(names)) is not None:
            return found
        there = ", ".join(column if len(column) <= 40 else f"{column[:12]}..." for column in self.columns)
        raise DataError(
            f"{self.where}: no column {' or '.join(names)}; its columns are: {there or 'none'}. "
            "Rename the column or use a file in the dataset's original format"
        )


def text_in(row: Raw, column: str | None) -> str:
    """Returns a field's stripped text, or "" if it has none."""
    value = row.get(column) if column is not None else None
    return value.strip() if isinstance(value, str) else ""


def collected(table: Table, read: Callable[[Raw], tuple[str, Row] | str]) -> Loaded[Row]:
    """Returns the usable rows; counts the others by reason.

    Args:
        table: the rows as published.
        read: returns a row's prompt text and the resulting record, or the reason to skip the row.
    """
    loaded: Loaded[Row] = Loaded([])
    seen: set[str] = set()
    for row in table.rows:
        found = read(row)
        if isinstance(found, str):
            loaded.skip(found)
        elif reason := _fault(row, found[0], seen):
            loaded.skip(reason)
        else:
            loaded.rows.append(found[1])
    return loaded


def _fault(row: Raw, text: str, seen: set[str]) -> str | None:
    """Returns why a row is unusable, or None if it is usable.

    Args:
        row: the row as published.
        text: its prompt.
        seen: the normalised prompts of earlier rows; a usable row's prompt is added.
    """
    if SURPLUS in row:
        return "more fields than columns"
    if not text:
        return "empty prompt"
    if normalised(text) in seen:
        return "repeated prompt"
    seen.add(normalised(text))
    return None
