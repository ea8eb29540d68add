"""`safecomm submit` and `doctor`: runs sweeps on a cluster and checks the cluster."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safecomm.cli.console import console
from safecomm.cli.sweeps import Overrides, Storage, SweepFile, read
from safecomm.errors import StoppedError

if TYPE_CHECKING:
    from safecomm.cluster.submit import Job
    from safecomm.spec import Sweep

Dashboard = Annotated[str, typer.Option(help="URL of the cluster's dashboard.", envvar="RAY_API_SERVER_ADDRESS")]


def submit(
    sweep: SweepFile,
    address: Dashboard = "http://127.0.0.1:8265",
    set_: Overrides = None,
    storage: Storage = None,
    wait: Annotated[bool, typer.Option(help="Follow the job's log until it ends.")] = True,
) -> None:
    """Submits a sweep to a cluster as a Ray job from this directory, and follows its log.

    Ctrl-C leaves the job running. Secrets are not sent; set them on the cluster's nodes.
    """
    spec = read(sweep, set_, storage)
    from safecomm.cluster import submit as jobs

    command = jobs.run_command(sweep, set_ or [], storage)
    jobs.check_storage(spec)
    client, job = jobs.submit(address, command)
    _print_job(job, spec)
    if wait:
        raise typer.Exit(_follow(client, job))


def doctor(
    sweep: Annotated[
        Path | None, typer.Argument(help="A sweep to check the machine or cluster for.", metavar="[SWEEP]")
    ] = None,
    set_: Overrides = None,
    storage: Storage = None,
    address: Annotated[
        str | None,
        typer.Option(help="The cluster: its dashboard (http://HEAD:8265), or `auto` on one of its nodes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Checks this machine or a cluster; the exit code is 1 if there is a problem."""
    spec = read(sweep, set_, storage) if sweep else None
    if address and address.startswith(("http://", "https://")):
        raise typer.Exit(_examine_as_job(address, sweep, set_ or [], storage, as_json))
    from rich.table import Table
    from rich.text import Text

    from safecomm.plan.doctor import examine

    styles = {"ok": "green", "warning": "yellow", "problem": "red"}
    table = Table("check", "", "result and fix", box=None)
    findings = examine(address or os.environ.get("RAY_ADDRESS"), spec)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            table.add_row(finding.subject, Text(finding.level, styles[finding.level]), finding.text)
        console.print(table)
    raise typer.Exit(int(any(finding.level == "problem" for finding in findings)))


def _examine_as_job(address: str, sweep: Path | None, overrides: list[str], storage: str | None, as_json: bool) -> int:
    """Runs `safecomm doctor` as a job on the cluster."""
    from safecomm.cluster import submit as jobs

    options = jobs.run_command(sweep, overrides, storage)[1:] if sweep else []
    client, job = jobs.submit(address, ["doctor", *options, *(["--json"] if as_json else [])])
    return _follow(client, job)


def _print_job(job: "Job", sweep: "Sweep") -> None:
    """Prints where to find the job and its results."""
    folder = f"{sweep.storage.rstrip('/')}/{sweep.name}"
    wandb = sweep.tracking.wandb
    lines = {
        "job": f"{job.id} ({job.uploaded / 1e6:.1f} MB uploaded)",
        "dashboard": job.page,
        "W&B": f"project {wandb.project}, group {sweep.name}" if wandb else "off",
        "report": f"{folder}/report.html",
        "log": job.command("logs -f"),
        "trials' logs": f"tail -f {folder}/tune/*/*/stderr",
        "to stop": job.command("stop"),
        "to resume": "run the same command again",
    }
    for name, text in lines.items():
        console.print(f"{name + ':':14}{text}", soft_wrap=True)


def _follow(client: object, job: "Job") -> int:
    from safecomm.cluster.submit import follow

    def write(text: str) -> None:
        console.print(text, end="", soft_wrap=True)

    try:
        return follow(client, job, write)
    except KeyboardInterrupt:
        write(f"\nThe job keeps running; to stop it: {job.command('stop')}\n")
        return StoppedError.exit_code
