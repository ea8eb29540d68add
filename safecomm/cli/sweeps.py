"""`safecomm run`, `plan` and `report`: runs sweeps and shows their results."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from safecomm.cli.console import console
from safecomm.cli.numbers import finite
from safecomm.cli.run_argument import Run
from safecomm.cluster.reachable import check_ray_address
from safecomm.errors import SpecError, UsageError
from safecomm.plan.data import check_local_data
from safecomm.plan.files import check_files
from safecomm.spec import Sweep, read_sweep
from safecomm.spec.engine import engine_description
from safecomm.storage.names import REPORT, SWEEP
from safecomm.storage.shared import mounted_folder

SweepFile = Annotated[Path, typer.Argument(help="The sweep: a YAML file, or a run's sweep.json.", metavar="SWEEP")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value, e.g. --set search.trials=8.", metavar="KEY=VALUE")
]
Storage = Annotated[
    str | None, typer.Option(help="Folder or bucket for the store and the runs, instead of the sweep's.")
]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; by default Ray starts on this machine.")]


def schema() -> None:
    """Prints the JSON Schema of sweep files, for editors.

    A sweep names it in its first line: `# yaml-language-server: $schema=sweep.schema.json`.
    """
    from safecomm.spec.json_schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))


def run(
    sweep: SweepFile,
    set_: Overrides = None,
    storage: Storage = None,
    address: Address = None,
    search_on_report_split: Annotated[
        bool,
        typer.Option(
            "--search-on-report-split",
            help="Choose settings on the same prompts that the rates are reported on, which makes them optimistic.",
        ),
    ] = False,
) -> None:
    """Runs a sweep, or resumes an unfinished one."""
    spec = read(sweep, [*(set_ or []), *(["search.split=report"] if search_on_report_split else [])], storage)
    if spec.search.split == "report" and not search_on_report_split:
        raise UsageError(
            f"{sweep}: search.split: report chooses settings on the same prompts that the rates are reported on, which "
            "makes the rates optimistic; remove it, or add --search-on-report-split to confirm"
        )
    check_ray_address(address or os.environ.get("RAY_ADDRESS", ""))
    started = mounted_folder(spec.storage)
    if started and not (Path(started) / spec.name / SWEEP).exists():  # a finished run needs its files no longer
        check_files(spec, str(sweep))
        check_local_data(spec)
    from safecomm.report.table import results_table
    from safecomm.storage import shared
    from safecomm.sweep.run import run_sweep

    console.print(engine_description(spec.evaluate.engine))
    folder = run_sweep(spec, address, console)
    console.print(results_table(folder))
    console.print(f"\nReport: {shared.address(folder / REPORT)}", soft_wrap=True)


def plan(
    sweep: SweepFile,
    set_: Overrides = None,
    storage: Storage = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            help="GPUs to plan for; by default cluster.gpus or, with cluster.gpu_memory, the fewest possible.",
            min=0,
            max=100_000,
            callback=finite,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, as in plan.json.")] = False,
    elsewhere: Annotated[
        bool,
        typer.Option("--elsewhere", help="The sweep will run on other machines: skip the check of its files here."),
    ] = False,
) -> None:
    """Shows what a sweep would run, where it would run, and what is already done."""
    spec = read(sweep, set_, storage)
    try:
        check_files(spec, str(sweep))
    except SpecError as error:
        if not elsewhere:
            hint = "if it will run on other machines, which have these files, add --elsewhere"
            raise SpecError(error.source, [*error.problems, hint]) from error
    if not elsewhere:
        check_local_data(spec)
    from safecomm.cli.plan_table import plan_tables
    from safecomm.cluster.session import Resources
    from safecomm.plan.placement import least_gpus
    from safecomm.plan.plan import make_plan
    from safecomm.search.equivalence import EquivalentPoints
    from safecomm.search.profile_cache import ProfileCache
    from safecomm.search.run_folder import RunFolder

    equivalent = EquivalentPoints(spec, ProfileCache(spec))
    equivalent.fetch()
    RunFolder(spec).fetch()
    if gpus is None:
        gpus = spec.cluster.gpus or (least_gpus(spec, equivalent) if spec.cluster.gpu_memory else 0)
    planned = make_plan(spec, Resources(cpus=0, gpus=gpus), equivalent, fetch=False)
    if as_json:
        print(json.dumps(planned.as_dict(), indent=2))
        return
    for part in [*plan_tables(planned), engine_description(spec.evaluate.engine)]:
        console.print(part, soft_wrap=isinstance(part, str))


def report(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Prints a run's results and rewrites its report.html and guide.md."""
    from safecomm.report.guide import write_guide
    from safecomm.report.page import write_report
    from safecomm.report.run import read_run
    from safecomm.report.table import results_table

    page, advice = write_report(run), write_guide(read_run(run))
    if as_json:
        from safecomm.report.as_json import as_json as results_of

        print(json.dumps(results_of(read_run(run)), indent=2))
        return
    console.print(results_table(run))
    console.print(f"\nReport: {page}", soft_wrap=True)
    console.print(f"Guide: {advice}", soft_wrap=True)


def read(sweep: Path, overrides: list[str] | None, storage: str | None) -> Sweep:
    """Reads a sweep file with the command line's overrides."""
    quoted = [f"storage={json.dumps(storage)}"] if storage is not None else []  # text, whatever YAML would make of it
    return read_sweep(sweep, [*(overrides or []), *quoted])
