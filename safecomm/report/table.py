"""The results of a run in a terminal."""

from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from safecomm.report.run import (
    FLATTERED,
    Headline,
    Run,
    benchmark_rates,
    beside_published,
    failures,
    headline,
    in_words,
    rate_in_words,
    read_run,
    unscored_in_words,
)
from safecomm.spec.published import departures
from safecomm.statistics.metric_table import ACCURACY, ASR
from safecomm.statistics.metrics import Rate


def results_table(folder: Path) -> Group:
    """Returns what `safecomm report` prints: the headline table, the recommendation and what else there is to tell.

    A rate stays on one line from about 100 columns on; narrower tables wrap and lose nothing.

    Raises:
        UsageError: if the run folder lacks its sweep or its trials.
    """
    run = read_run(folder)
    parts: list[Table | Text] = [_headline_table(run), _verdict(run)]
    if run.is_flattered:
        parts.append(Text(f"\n{FLATTERED}", style="bold red"))
    return Group(*parts, *_published(run), *_judges(run), *_failures(run))


def _headline_table(run: Run) -> Table:
    split = "report" if run.is_flattered else "search"
    title = f"{run.sweep['name']}: every arm's best point (chosen on the {split} split), rates on the report split"
    table = Table(title=title, title_justify="left", box=box.HORIZONTALS, padding=(0, 1), show_edge=False, leading=1)
    table.add_column("arm and settings", max_width=18, overflow="fold")
    for metric in run.metrics:
        table.add_column(run.titles[metric], overflow="fold")
    for row in headline(run):
        table.add_row(_arm(row), *(_rate(row, metric) for metric in run.metrics))
    return table


def _arm(row: Headline) -> Text:
    text = Text(row.arm, style="bold green" if row.recommended else "bold")
    if row.recommended:
        text.append("\n* recommended", style="green")
    if row.settings:
        text.append("\n" + in_words(row.settings).replace(", ", "\n"), style="not bold dim")
    return text


def _rate(row: Headline, metric: str) -> Text:
    lines = _in_lines(row.rates[metric])
    if row.seeds > 1:
        low, high = row.spread[metric]
        lines.append(f"\n{row.seeds} seeds: {low * 100:.1f} to {high * 100:.1f}")
    return lines


def _verdict(run: Run) -> Text:
    chosen = run.outcome["recommended"]
    if not chosen:
        both = f"{ASR.words(run.domain)} and {ACCURACY.words(run.domain)}"
        return Text(f"\nNo point can be recommended: no trial has values for both {both}.")
    return Text(f"\n* recommended: {chosen['arm']}. Chosen for: {chosen['reason']}.")


def _published(run: Run) -> list[Table | Text]:
    """Returns the rates beside those of the paper that the sweep repeats."""
    rows = beside_published(run)
    if not rows or run.published is None:
        return []
    table = _table(f"\nBeside {run.published.source}: {run.published.subject}", "benchmark", "arm", "here", "published")
    for name, row, rate, share in rows:
        table.add_row(Text(name), _arm(row), _in_lines(rate), Text(f"{share:.1%}"))
    differing = departures(run.published, run.sweep)
    notes = [f"  {key}: {ours}, in the study {theirs}" for key, ours, theirs in differing]
    return [table, Text("\n".join(["The sweep departs from the study's protocol:", *notes]))] if notes else [table]


def _judges(run: Run) -> list[Table | Text]:
    """Returns how far the judges agree with people, and attack success without the deciding one's errors."""
    if not run.judges:
        return []
    accuracy = _table("\nJudges against people", "judge", "unsafe ones found", "safe ones left alone")
    for name, found in run.judges.items():
        accuracy.add_row(Text(name), _in_lines(found.sensitivity), _in_lines(found.specificity))
    title = f"\n{run.titles[ASR.name]} without the errors of {next(iter(run.judges))}"
    sound = _table(title, "arm and settings", "benchmark", "as judged", "corrected")
    for row in headline(run):
        for benchmark, *rates in benchmark_rates(row):
            sound.add_row(_arm(row), Text(benchmark), *map(_in_lines, rates))
    return [accuracy, sound]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.HORIZONTALS, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _in_lines(rate: Rate) -> Text:
    return Text("\n".join(filter(None, [rate_in_words(rate), unscored_in_words(rate)])))


def _failures(run: Run) -> list[Table | Text]:
    failed = failures(run)
    if not failed:
        return []
    table = _table(f"\n{len(failed)} failed trials", "trial", "arm, seed", "reason and log")
    for trial in failed:
        reason = Text(str(trial["error"])).append(f"\n{trial['log']}", style="dim")
        table.add_row(Text(str(trial["trial"])), Text(f"{trial['arm']}, {trial['seed']}"), reason)
    return [table]
