"""`safecomm selftest`: whether this machine or a cluster can do what a sweep needs."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from safecomm.cli.console import console
from safecomm.errors import StoppedError, UsageError

MEMORY = (
    "memory: the most that a process of the check held of its GPU or, on a node without one, of the node's memory; "
    "planned: what `safecomm plan` reckons with, which is for GPUs"
)


def selftest(
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster, of which one node of each kind is tested; else this machine.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="A folder for the test's own files; on a cluster, one that every node sees.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the results to this file.", metavar="FILE")] = None,
) -> None:
    """Tests fine-tuning, defenses, engines and judges with small models; exit code 1 where something fails."""
    folder = _folder(storage, address)
    if json and not json.expanduser().absolute().parent.is_dir():
        raise UsageError(f"--json {json}: its folder does not exist; make it, or name another file")
    from safecomm.selftest.report import all_ok, table, write_records
    from safecomm.selftest.run import selftest as run

    started = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[{time.monotonic() - started:4.0f} s] {line}", soft_wrap=True, markup=False, highlight=False)

    try:
        records = run(address, folder, say)
    except KeyboardInterrupt as error:
        raise StoppedError("the self-test was stopped; its files and engines are removed") from error
    if json:
        write_records(json.expanduser().absolute(), records)
    console.print(table(records))
    console.print(f"\n{MEMORY}")
    ok = sum(record.status == "ok" for record in records)
    console.print(f"{ok} of {len(records)} checks are ok, after {time.monotonic() - started:.0f} s")
    raise typer.Exit(int(not all_ok(records)))


def _folder(storage: str | None, address: str | None) -> Path | None:
    if storage and "://" in storage:
        raise UsageError(f"--storage {storage}: is a bucket; the self-test needs a folder that every node sees")
    if not storage and (address or os.environ.get("RAY_ADDRESS")):
        raise UsageError("--address: give --storage too, a folder that every node of the cluster sees")
    return Path(storage).expanduser().resolve() if storage else None
