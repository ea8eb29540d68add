"""Where the command line prints."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Where there is no terminal, wide enough for a table of rates with intervals.
console = Console(width=None if sys.stdout.isatty() else 120)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on the error stream while modules are worked on; gives what reports how many are done, of how many.

    Nothing is shown where that is no terminal.
    """
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
