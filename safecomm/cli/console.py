"""Output of the command line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Without a terminal, use a width that fits a table of rates with intervals.
console = Console(width=None if sys.stdout.isatty() else 120)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on stderr, if that is a terminal.

    Yields:
        A callback that takes the number of finished modules and the total.
    """
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
