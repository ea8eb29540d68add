"""`safecomm gate` and `safecomm export`: checks a finished run for release and exports its adapter."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from safecomm.cli.console import console
from safecomm.cli.run_argument import Run
from safecomm.errors import UsageError
from safecomm.statistics.metric_table import ACCURACY, ASR, OVER_REFUSAL

Arm = Annotated[str | None, typer.Option(help="Use this arm's best point instead of the recommended point.")]


def gate(
    run: Run,
    max_asr: Annotated[float | None, typer.Option(help=f"Highest {ASR.title} rate.", min=0, max=1)] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Lowest task accuracy.", min=0, max=1)] = None,
    max_over_refusal: Annotated[float | None, typer.Option(help=f"Highest {OVER_REFUSAL.title}.", min=0, max=1)] = None,
    max_unscored: Annotated[float, typer.Option(help="Highest share without a verdict.", min=0, max=1)] = 0.05,
    arm: Arm = None,
) -> None:
    """Checks that the whole 95% interval of each reported rate is within its limit; else the exit code is 1."""
    from safecomm.report.gate import check, fair_choice, release_row
    from safecomm.report.run import in_words, read_run

    given = {ASR.name: max_asr, ACCURACY.name: min_accuracy, OVER_REFUSAL.name: max_over_refusal}
    limits: dict[str, float] = {metric: limit for metric, limit in given.items() if limit is not None}
    if not limits:
        raise UsageError("gate: has no limit to check; add --max-asr, --min-accuracy or --max-over-refusal")
    found = read_run(run)
    row = release_row(found, arm)
    console.print(escape(f"{row.arm} {in_words(row.settings)}".strip()))
    checks = [*fair_choice(found), *check(found, row, limits, max_unscored)]
    for one in checks:
        console.print(escape(f"{'pass' if one.kept else 'FAIL'}  {one.reason}"), soft_wrap=True)
    if not all(one.kept for one in checks):
        sys.exit(1)


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The new output folder.")],
    arm: Arm = None,
    seed: Annotated[int, typer.Option(help="Seed of the fine-tune.")] = 0,
) -> None:
    """Exports the adapter with its lineage and a model card: settings, rates, judges, licences."""
    from safecomm.report.export import export as write

    row = write(run, arm, seed, out)
    console.print(escape(f"{row.arm} written to {out}"), soft_wrap=True)
