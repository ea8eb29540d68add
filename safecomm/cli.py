"""The command line, one function a verb.

Heavy imports wait inside the verbs, so that a wrong sweep file is told at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from safecomm.errors import SafecommError, SpecError, StoppedError
from safecomm.spec import read_sweep

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=__doc__.split(".")[0] + ".",
)
data_app = typer.Typer(no_args_is_help=True, help="The datasets and benchmarks that a sweep can name.")
lab_app = typer.Typer(no_args_is_help=True, help="The small models that the project trains itself.")
app.add_typer(data_app, name="data")
app.add_typer(lab_app, name="lab")

# Where there is no terminal, wide enough for a table of rates with intervals.
console = Console(width=None if sys.stdout.isatty() else 120)
SweepFile = Annotated[Path, typer.Argument(help="The sweep: a YAML file, or a run's sweep.json.", metavar="SWEEP")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Replace a value, e.g. --set search.trials=8.", metavar="KEY=VALUE")
]
Storage = Annotated[str | None, typer.Option(help="Folder for the store and the runs, instead of the sweep's.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; without it Ray is started on this machine.")]


def main() -> None:
    """Runs the command line; a SafecommError becomes its message and its exit code."""
    try:
        app()
    except SpecError as error:
        for line in str(error).splitlines():
            print(line, file=sys.stderr)
        sys.exit(error.exit_code)
    except SafecommError as error:
        print(f"safecomm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("safecomm: stopped; what was finished is kept", file=sys.stderr)
        sys.exit(StoppedError.exit_code)


@app.command()
def run(sweep: SweepFile, set_: Overrides = None, storage: Storage = None, address: Address = None) -> None:
    """Runs a sweep, or what is still missing of it."""
    spec = read_sweep(sweep, _overrides(set_, storage))
    from safecomm.report.table import results_table
    from safecomm.sweep.run import run_sweep

    folder = run_sweep(spec, address, console)
    console.print(results_table(folder))
    console.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True)


@app.command()
def plan(
    sweep: SweepFile, set_: Overrides = None, gpus: Annotated[float, typer.Option(help="GPUs to plan for.")] = 0
) -> None:
    """Shows what a sweep would run and on what."""
    spec = read_sweep(sweep, set_)
    from safecomm.plan import Resources, make_plan

    print(json.dumps(make_plan(spec, Resources(cpus=0, gpus=gpus)).as_dict(), indent=2))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]) -> None:
    """Prints a run's results and writes its report.html anew."""
    from safecomm.report.page import write_report
    from safecomm.report.table import results_table

    page = write_report(run)
    console.print(results_table(run))
    console.print(f"\nReport: {page}", soft_wrap=True)


@data_app.command("list")
def data_list() -> None:
    """Lists the datasets, what each can serve as, and where it lives."""
    from safecomm.data.describe import overview

    table = Table("name", "what it is", "serves as", "licence", "where it lives", box=None, pad_edge=False)
    for entry in overview():
        table.add_row(entry["name"], entry["title"], ", ".join(entry["roles"]), entry["licence"], entry["where"])
    console.print(table)


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A name of `safecomm data list`.")],
    path: Annotated[Path | None, typer.Option(help="A local copy, in the dataset's own format.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show a harmful example in full.")] = False,
) -> None:
    """Shows a dataset's rows: how many are used, which are skipped and why, and one example."""
    from safecomm.data.describe import summary

    for line in _lines(summary(name, path, reveal)):
        console.print(escape(line), soft_wrap=True)


@lab_app.command("build")
def lab_build(storage: Annotated[str, typer.Option(help="Folder for the store.")] = "runs", seed: int = 0) -> None:
    """Trains the lab's base and aligned models, unless the store has them."""
    from safecomm.lab.build import build_lab
    from safecomm.store import Store

    for name, folder in build_lab(Store(Path(storage) / "store"), seed, report=console.print).items():
        console.print(f"lab://{name}: {folder}", soft_wrap=True)


def _overrides(given: list[str] | None, storage: str | None) -> list[str]:
    return [*(given or []), *([f"storage={storage}"] if storage else [])]


def _lines(value: Any, indent: str = "") -> list[str]:
    """Words nested values as indented `key: value` lines."""
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict):
            lines += [f"{indent}{key}:" if inner else f"{indent}{key}: none", *_lines(inner, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {inner}")
    return lines
