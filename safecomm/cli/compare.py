"""`safecomm compare`: how the arms of two sweeps differ."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from safecomm.cli.console import console
from safecomm.cli.run_argument import local_run

if TYPE_CHECKING:
    from safecomm.report.two_runs import TwoRuns

Before = Annotated[Path, typer.Argument(parser=local_run, help="The earlier run: <storage>/<name>.", metavar="BEFORE")]
After = Annotated[
    Path, typer.Argument(parser=local_run, help="The later run, on the same benchmarks.", metavar="AFTER")
]


def compare(
    before: Before,
    after: After,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compares two runs: what differs in their sweeps, and how each arm's rates changed on the same prompts.

    A change is better or worse, for these fine-tunes, if the sign-flip test gives p below 5%, Holm-corrected over the
    arms.
    """
    from safecomm.report.run import read_run
    from safecomm.report.two_runs import as_json as values_of
    from safecomm.report.two_runs import compare_runs

    found = compare_runs(read_run(before), read_run(after))
    if as_json:
        print(json.dumps(values_of(found), indent=2))
        return
    for name, run in (("before", found.before), ("after", found.after)):
        console.print(f"{name + ':':7} {run.folder}", soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if not found.differences:
        console.print("The sweeps, models and packages are the same, as far as the runs recorded them.", soft_wrap=True)
    differing = [_differences(found)] if found.differences else []
    for table in (*differing, *(_changes(found, metric) for metric in found.metrics)):
        console.print()
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _differences(found: "TwoRuns") -> Table:
    table = _table("What differs", "", "before", "after")
    for one in found.differences:
        table.add_row(one.what, one.before, one.after)
    return table


def _changes(found: "TwoRuns", metric: str) -> Table:
    from safecomm.report.arms import difference_in_words
    from safecomm.report.run import in_words, rate_in_words

    table = _table(found.after.titles[metric], "", "before", "after", "change in points", "")
    for one in [one for one in found.changes if one.metric == metric]:
        cells = [
            "\n".join(filter(None, [row.arm if one.arm != row.arm else "", in_words(row.settings)]))
            for row in (one.before, one.after)
        ]
        rates = [rate_in_words(row.rates[metric]) for row in (one.before, one.after)]
        said = [f"{rate}\n{cell}".strip() for rate, cell in zip(rates, cells, strict=True)]
        change = difference_in_words(one.difference) if one.difference else "not tested"
        table.add_row(one.arm, *said, change, one.verdict)
    return table
