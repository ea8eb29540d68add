"""The RUN argument: a run's folder, or its URL in a bucket."""

from pathlib import Path
from typing import Annotated

import typer

from safecomm.errors import UsageError
from safecomm.storage.input_files import is_regular
from safecomm.storage.names import SWEEP


def local_run(run: str) -> Path:
    """Returns the run's local folder; downloads it if the run is in a bucket.

    Raises:
        UsageError: if it is no run folder.
    """
    if "://" not in run:
        folder = Path(run)
    else:
        from safecomm.storage import shared

        folder = shared.local_folder(run)
        shared.fetch(folder)
    if not is_regular(folder / SWEEP):
        raise UsageError(f"{run}: can't read {SWEEP}; pass a run folder, <storage>/<name>")
    return folder


Run = Annotated[Path, typer.Argument(parser=local_run, help="A run: <storage>/<name>.", metavar="RUN")]
