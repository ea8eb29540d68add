"""`safecomm selftest`: whether this machine or a cluster can do what a sweep needs."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from safecomm.cli.console import console
from safecomm.errors import UsageError


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

    records = run(address, folder, say)
    if json:
        write_records(json.expanduser().absolute(), records)
    console.print(table(records))
    failed = [record for record in records if record.status == "failed"]
    console.print(escape(f"{len(records)} checks in {time.monotonic() - started:.0f} s, {len(failed)} failed"))
    raise typer.Exit(int(not all_ok(records)))


def _folder(storage: str | None, address: str | None) -> Path | None:
    import os

    if storage and "://" in storage:
        raise UsageError(f"--storage {storage}: is a bucket; the self-test needs a folder that every node sees")
    if not storage and (address or os.environ.get("RAY_ADDRESS")):
        raise UsageError("--address: give --storage too, a folder that every node of the cluster sees")
    return Path(storage).expanduser().resolve() if storage else None
