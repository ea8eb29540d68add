"""`safecomm view`: a run's report in the browser, while its sweep runs."""

import os
import secrets
from typing import Annotated

import typer

from safecomm.cli.console import console
from safecomm.cli.run_argument import Run
from safecomm.cli.serve import TOKEN


def view(
    run: Run,
    host: Annotated[
        str, typer.Option(help="The address to listen on; other machines reach only their own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8100,
) -> None:
    """Shows a run's report in the browser and updates it while the sweep runs, until Ctrl-C.

    On a cluster, run it where the run folder is and forward the port: ssh -L 8100:127.0.0.1:8100 HOST. Other addresses
    than this machine's own need a token: the one in SAFECOMM_TOKEN, or else a new one.
    """
    from safecomm.report.live import LiveReport
    from safecomm.report.view import LOOPBACK, listening, serve_view, view_app

    report = LiveReport(run)
    token = None if host in LOOPBACK else os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    listener = listening(host, port)
    query = f"?token={token}" if token else ""
    console.print(f"{run.name}: http://{host}:{listener.getsockname()[1]}/{query} (Ctrl-C ends it)", soft_wrap=True)
    serve_view(view_app(report, token), listener)
