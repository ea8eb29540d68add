"""`safecomm data` and `safecomm lab`: the datasets and the bundled small models."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from safecomm.cli.console import console
from safecomm.cli.numbers import MAX_SEED
from safecomm.cli.safety_data import safety
from safecomm.storage.output_files import new_folder, output_folder

data_app = typer.Typer(no_args_is_help=True, help="The datasets and benchmarks that sweeps can use.")
lab_app = typer.Typer(no_args_is_help=True, help="The bundled small models.")
data_app.command("safety")(safety)


@data_app.command("list")
def data_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Lists the datasets with their roles, licences and sources."""
    from safecomm.data.catalog.describe import overview

    if as_json:
        print(json.dumps(overview(), indent=2))
        return
    table = Table("name", "description", "roles", "licence", "source", box=None, pad_edge=False)
    for entry in overview():
        table.add_row(entry["name"], entry["title"], ", ".join(entry["roles"]), entry["licence"], entry["where"])
    console.print(table)


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A name from `safecomm data list`.")],
    path: Annotated[Path | None, typer.Option(help="A local copy in the dataset's original format.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show a harmful example in full.")] = False,
) -> None:
    """Shows how many rows of a dataset are used, which are skipped and why, and one example."""
    from safecomm.data.catalog.describe import summary

    for line in _lines(summary(name, path, reveal)):
        console.print(line, soft_wrap=True)


@lab_app.command("build")
def lab_build(
    out: Annotated[Path, typer.Option(help="A new folder for the models base, aligned and guard.")],
    seed: Annotated[
        int, typer.Option(help="Seed for the training text and the initial weights.", min=0, max=MAX_SEED)
    ] = 0,
) -> None:
    """Trains the bundled small models again from scratch, with the same recipe."""
    out = output_folder("--out", out)
    from safecomm.data.lab.build import train_models
    from safecomm.serving.precision import has_native_bf16

    with new_folder(out) as half:
        train_models(half, seed, lambda line: console.print(line, soft_wrap=True), bf16=has_native_bf16())
    console.print(f"Written to {out}", soft_wrap=True)


def _lines(value: Any, indent: str = "") -> list[str]:
    """Formats nested values as indented `key: value` lines."""
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict):
            lines += [f"{indent}{key}:" if inner else f"{indent}{key}: none", *_lines(inner, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {inner}")
    return lines
