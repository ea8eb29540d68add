"""The RUN argument: a run's folder, or its URL in a bucket."""

from pathlib import Path
from typing import Annotated

import typer


def local_run(run: str) -> Path:
    """Returns the run's local folder; downloads it if the run is in a bucket."""
    if "://" not in run:
        return Path(run)
    from safecomm.storage import shared

    folder = shared.local_folder(run)
    shared.fetch(folder)
    return folder


Run = Annotated[Path, typer.Argument(parser=local_run, help="A run: <storage>/<name>.", metavar="RUN")]
