"""Output of the command line."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from safecomm.errors import printable

WIDTH = 120
"""Columns without a terminal, which fit a table of rates with intervals; COLUMNS takes precedence."""


class PlainConsole(Console):
    """Prints text as it is: brackets are no markup, and control characters of files don't reach the terminal."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yields what to print, with the control characters of texts escaped; cursor movements are not text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def open_streams() -> None:
    """Makes printing safe: a closed stream takes everything, and one in ASCII shows `?` for others."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


open_streams()
console = PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)


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
