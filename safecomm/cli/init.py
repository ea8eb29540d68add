"""`safecomm init`: writes a first sweep."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safecomm.cli.console import console
from safecomm.errors import SpecError, UsageError
from safecomm.storage.output_files import output_file, whole_file

if TYPE_CHECKING:
    from safecomm.spec.first_sweep import Answers


def init(
    base: Annotated[str | None, typer.Option(help="The pre-trained weights: a folder, a Hub id or lab://base.")] = None,
    aligned: Annotated[
        str | None, typer.Option(help="The chat or instruct weights: a folder, a Hub id or lab://aligned.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="The training set, from `safecomm data list` or a file with its columns.",
            metavar="NAME[=FILE[:PROMPT:RESPONSE]]",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="A benchmark; may be repeated.", metavar="NAME[=FILE]")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of 80 GB that it may use.", min=0, max=100_000)] = None,
    out: Annotated[Path, typer.Option(help="The new sweep file.")] = Path("sweep.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Writes a commented sweep from four answers: model, data, benchmarks, GPUs.

    On a terminal it asks for what the options leave open; otherwise it takes the defaults, which make a sweep of the
    lab's small models. Beside the sweep it writes its JSON Schema, by which editors complete and check it.
    """
    from safecomm.spec.first_sweep import first_sweep
    from safecomm.spec.json_schema import FILE, sweep_schema
    from safecomm.storage.store import write_text

    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--out {out}: name a .yaml file")
    file = output_file("--out", out, replaces=force, hint=", or add --force to replace it")
    if bool(base) != bool(aligned):
        raise UsageError("--base, --aligned: give both, the weights before and after the alignment of one model")
    answers = _answers(base, aligned, data, benchmark, gpus)
    name = re.sub("[^A-Za-z0-9._-]+", "-", out.stem).lstrip("._-")[:100] or "sweep"
    schema = output_file("--out", file.with_name(FILE), replaces=True)
    text = json.dumps(sweep_schema(), indent=2) + "\n"
    _write(file, first_sweep(name, answers))
    if not schema.exists() or schema.read_bytes() != text.encode():  # an older version's
        write_text(schema, text)
    console.print(f"{out} written; next: safecomm plan {out}", soft_wrap=True)


def _answers(
    base: str | None, aligned: str | None, data: str | None, benchmarks: list[str] | None, gpus: int | None
) -> "Answers":
    """Returns the answers in the options; on a terminal, it asks for the others."""
    from safecomm.spec.first_sweep import Answers

    usual, asks = Answers(), sys.stdin.isatty()
    if asks and not (base and aligned):
        base = typer.prompt("Model before alignment (a folder, a Hub id or lab://base)", usual.base)
        aligned = typer.prompt("The same after alignment (chat or instruct)", usual.aligned)
    if asks and data is None:
        data = typer.prompt(
            "Training data, NAME or NAME=FILE:PROMPT:RESPONSE (empty: the usual)", default="", show_default=False
        )
    if asks and benchmarks is None:
        benchmarks = _asked("Benchmarks, with spaces between (empty: one of each kind)").split()
    if asks and gpus is None:
        gpus = typer.prompt("GPUs of 80 GB", usual.gpus, type=int)
    return Answers(base or usual.base, aligned or usual.aligned, data or "", benchmarks or [], gpus or 0)


def _asked(question: str) -> str:
    return str(typer.prompt(question, default="", show_default=False))


def _write(out: Path, text: str) -> None:
    """Writes a sweep if it is valid.

    Raises:
        SpecError: if it is not, as the answers have a mistake.
    """
    from safecomm.spec import read_sweep

    with whole_file(out) as half:
        half.write_text(text, encoding="utf-8")
        try:
            read_sweep(half)
        except SpecError as error:
            raise SpecError(str(out), [f"{problem} (not written)" for problem in error.problems]) from error
