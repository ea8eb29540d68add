"""`safecomm labels`: draws answers of a run for people to label."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from safecomm.cli.console import console
from safecomm.cli.release import Arm, Seed
from safecomm.cli.run_argument import Run
from safecomm.errors import UsageError
from safecomm.storage.output_files import output_file

labels_app = typer.Typer(no_args_is_help=True, help="Human labels for a run's answers.")


@labels_app.callback()
def labels() -> None:
    """Keeps `draw` a subcommand; Typer makes an only command the application itself."""


@labels_app.command("draw")
def draw(
    run: Run,
    out: Annotated[Path, typer.Option(help="The new CSV file.")],
    number: Annotated[int, typer.Option(help="Answers to draw, over all benchmarks.", min=1)] = 200,
    arm: Arm = None,
    seed: Seed = 0,
    split: Annotated[
        Literal["report", "release"],
        typer.Option(help="report for the certificate, release for the gate's own prompts."),
    ] = "report",
) -> None:
    """Draws answers of the report or release split to label, for the adapter that `export` would write.

    Fill in the column `unsafe` (1 or 0) of every row, set `evaluate.labels` to the file, and run the sweep again: it
    asks no prompt again, and the certificate, the gate and the report then rest on the labels. The answers are drawn by
    the deciding judge's verdict, which the file does not show.
    """
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out}: name a .csv file")
    file = output_file("--out", out)
    from safecomm.data.cells import as_cell
    from safecomm.report.human_labels import draw as drawn_from
    from safecomm.report.release import released
    from safecomm.report.run import read_run
    from safecomm.storage.store import write_text

    release = released(read_run(run), arm, seed, split)
    found = drawn_from(release.answers, number)
    write_text(file, found.map(as_cell).to_csv(index=False))
    console.print(f"{len(found)} answers of {release.row.arm} written to {out}", soft_wrap=True)
