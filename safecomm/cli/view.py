"""`safecomm view`: a run's report in the browser, while its sweep runs."""

import os
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from safecomm.cli.console import console
from safecomm.cli.run_argument import local_run
from safecomm.cli.serve import TOKEN
from safecomm.storage.shared import CACHE, mirrors


def _watched(run: str) -> Path:
    """Returns the run's folder.

    A run in a bucket is mirrored apart: a driver on this machine has files in its mirror that it has yet to publish.
    """
    if "://" in run:
        os.environ[CACHE] = str(mirrors() / "view")
    return local_run(run)


def view(
    run: Annotated[Path, typer.Argument(parser=_watched, help="A run: <storage>/<name>.", metavar="RUN")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; other machines reach only their own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8100,
) -> None:
    """Shows a run's report in the browser and updates it while the sweep runs, until Ctrl-C.

    On a cluster, run it where the run folder is and forward the port: ssh -L 8100:127.0.0.1:8100 HOST. The address that
    it prints has a token, the one in SAFECOMM_TOKEN or else a new one, because other users may reach the port.
    """
    from safecomm.report.live import LiveReport
    from safecomm.report.view import listening, serve_view, view_app

    report = LiveReport(run)
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    listener = listening(host, port)
    address = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    console.print(f"{report.folder.name}: http://{address}/?token={quote(token)} (Ctrl-C ends it)", soft_wrap=True)
    serve_view(view_app(report, token), listener)
