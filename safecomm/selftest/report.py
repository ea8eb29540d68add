"""The results of the self-test: one record per check, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"ok": "green", "failed": "red", "skipped": "yellow"}
GIB = 1 << 30


@dataclass(frozen=True)
class Record:
    """The outcome of one check on one node."""

    node: str
    """The node's kind and address."""
    check: str
    status: Literal["ok", "failed", "skipped"]
    text: str
    """The findings of a successful check; otherwise the reason, in one line."""
    seconds: float = 0.0
    memory_bytes: int | None = None
    """The peak memory of one process of the check: GPU memory, or main memory without a GPU."""
    planned_bytes: int | None = None
    """The GPU memory that `safecomm plan` estimates."""
    tokens_per_second: float | None = None
    trace: str = ""
    """The traceback of a check that failed."""

    @property
    def result(self) -> str:
        """The check's cell in the table."""
        return f"{self.status}: {self.text}" if self.status != "ok" else f"ok, {self.text}" if self.text else "ok"


def all_ok(records: Sequence[Record]) -> bool:
    """Returns whether every check ran and succeeded."""
    return all(record.status == "ok" for record in records)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Writes the records as JSON."""
    from safecomm.storage.store import write_json

    write_json(path, {"ok": all_ok(records), "records": [asdict(record) for record in records]})


def table(records: Sequence[Record]) -> "Table":
    """Returns the records as a table, grouped by node."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False)
    for column, justify in (
        ("check", "left"),
        ("result", "left"),
        ("seconds", "right"),
        ("memory", "right"),
        ("planned", "right"),
        ("tokens/s", "right"),
    ):
        found.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    node = None
    for record in records:
        if record.node != node:
            node = record.node
            found.add_row(Text(node, "bold"))
        figures = (_seconds(record), _gib(record.memory_bytes), _gib(record.planned_bytes), _rate(record))
        found.add_row(Text(record.check), Text(record.result, STYLES[record.status]), *figures)
    return found


def _seconds(record: Record) -> str:
    return "" if record.status == "skipped" else f"{record.seconds:.1f}"


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / GIB:.2f} GiB"


def _rate(record: Record) -> str:
    return "" if record.tokens_per_second is None else f"{record.tokens_per_second:,.0f}"
