"""The argument that names a run: its folder, or its URL in a bucket."""

from pathlib import Path
from typing import Annotated

import typer


def _here(run: str) -> Path:
    """Returns the run's folder on this machine, brought here from a bucket."""
    if "://" not in run:
        return Path(run)
    from safecomm.storage import shared

    folder = shared.local_folder(run)
    shared.fetch(folder)
    return folder


Run = Annotated[Path, typer.Argument(parser=_here, help="A run: <storage>/<name>.", metavar="RUN")]
