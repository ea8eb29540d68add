"""`safecomm selftest`: tests whether this machine or a cluster can run sweeps."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from safecomm.cli.console import console
from safecomm.errors import StoppedError, UsageError
from safecomm.storage.output_files import output_file

MEMORY = (
    "memory: the peak memory of a process of the check, on its GPU or, on a node without one, in RAM; "
    "planned: the estimate of `safecomm plan`, which is for GPUs"
)


def selftest(
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster, to test one node of each kind; by default this machine.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="A folder for temporary files; on a cluster it must be shared by all nodes.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the results to this file.", metavar="FILE")] = None,
) -> None:
    """Tests fine-tuning, defenses, engines and judges with small models; the exit code is 1 if a check fails."""
    folder = _folder(storage, address)
    file = json and output_file("--json", json, replaces=True)
    if file and not file.absolute().parent.is_dir():
        raise UsageError(f"--json {json}: its folder does not exist; create it, or choose another file")
    from safecomm.selftest.report import all_ok, table, write_records
    from safecomm.selftest.run import selftest as run

    started = time.monotonic()

    def log(line: str) -> None:
        console.print(f"[{time.monotonic() - started:4.0f} s] {line}", soft_wrap=True)

    try:
        records = run(address, folder, log)
    except KeyboardInterrupt as error:
        raise StoppedError("the self-test was stopped; its files and engines were removed") from error
    if file:
        write_records(file, records)
    console.print(table(records))
    console.print(f"\n{MEMORY}")
    ok = sum(record.status == "ok" for record in records)
    console.print(f"{ok} of {len(records)} checks are ok, in {time.monotonic() - started:.0f} s")
    raise typer.Exit(int(not all_ok(records)))


def _folder(storage: str | None, address: str | None) -> Path | None:
    if storage and "://" in storage:
        raise UsageError(f"--storage {storage}: is a bucket; use a folder that is shared by all nodes")
    if not storage and (address or os.environ.get("RAY_ADDRESS")):
        raise UsageError("--address: a cluster also needs --storage; set it to a folder that is shared by all nodes")
    return Path(storage).expanduser().resolve() if storage else None
