"""Prints a run's results in the terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from safecomm.report.arms import arm_answers, arm_differences, hypervolumes, ranking
from safecomm.report.best_of_n import TryTable, try_tables
from safecomm.report.certificate import in_sentences, read_certificate
from safecomm.report.disagreement import disagreements
from safecomm.report.drift import generations
from safecomm.report.incoherence import warnings
from safecomm.report.run import (
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
from safecomm.report.tampering import tamper_curves
from safecomm.report.worst_case import worst_cases
from safecomm.spec.published import departures
from safecomm.statistics.metric_table import ACCURACY, ASR
from safecomm.statistics.metrics import Rate


def results_table(folder: Path) -> Group:
    """Returns the output of `safecomm report`: the headline table, the recommendation and further tables.

    With about 100 columns each rate fits on one line; narrower terminals wrap it.

    Raises:
        UsageError: if the run folder lacks its sweep or its trials.
    """
    run = read_run(folder)
    parts: list[Table | Text] = [_headline_table(run), _verdict(run)]
    parts += [Text(f"\n{warning}", style="bold red") for warning in run.warnings]
    rows = headline(run)
    parts += [Text(f"\n{line}", style="bold red") for line in (*warnings(rows), *disagreements(run, rows))]
    more = [_certificate, _published, _arms, _tries, _tampering, _drift, _judges, _failures]
    return Group(*parts, *(part for of_run in more for part in of_run(run)))


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
    if row.meets_target:
        text.append("\nmeets target", style="not bold green")
    if row.settings:
        text.append("\n" + in_words(row.settings).replace(", ", "\n"), style="not bold dim")
    return text


def _rate(row: Headline, metric: str) -> Text:
    lines = _in_lines(row.rates[metric])
    if row.seeds > 1:
        (low, high), (runs_low, runs_high) = row.spread[metric], row.runs[metric]
        lines.append(f"\n{row.seeds} seeds: {low * 100:.1f} to {high * 100:.1f}")
        lines.append(f"\nfurther seeds [{runs_low * 100:.1f}, {runs_high * 100:.1f}]")
    return lines


def _verdict(run: Run) -> Text:
    chosen = run.outcome["recommended"]
    if not chosen:
        both = f"{ASR.words(run.domain)} and {ACCURACY.words(run.domain)}"
        return Text(f"\nThere is no recommended point: no trial has both {both}.")
    return Text(f"\n* recommended: {chosen['arm']}. Reason: {chosen['reason']}.")


def _certificate(run: Run) -> list[Table | Text]:
    """Returns what is certified, in sentences; nothing for runs from before there were certificates."""
    found = read_certificate(run.folder)
    return [Text("\n" + "\n".join(in_sentences(found)))] if found else []


def _published(run: Run) -> list[Table | Text]:
    """Returns a comparison with the paper that the sweep repeats."""
    rows = beside_published(run)
    if not rows or run.published is None:
        return []
    title = f"\nCompared with {run.published.source}: {run.published.subject}"
    table = _table(title, "benchmark", "arm", "here", "published")
    for name, row, rate, share in rows:
        table.add_row(Text(name), _arm(row), _in_lines(rate), Text(f"{share:.1%}"))
    differing = departures(run.published, run.sweep)
    notes = [f"  {key}: {ours} (study: {theirs})" for key, ours, theirs in differing]
    return [table, Text("\n".join(["The sweep differs from the study's protocol:", *notes]))] if notes else [table]


def _arms(run: Run) -> list[Table | Text]:
    """Returns which differences between the arms are decided, in sentences."""
    rows = headline(run)
    sentences = ranking(run, rows, arm_differences(run, arm_answers(run, rows)))
    if volumes := ", ".join(f"{arm} {volume:.0%}" for arm, volume in hypervolumes(run).items()):
        sentences.append(f"Hypervolume on the search split: {volumes}")
    return [Text("\n" + "\n".join(sentences))] if sentences else []


def _tries(run: Run) -> list[Table | Text]:
    """Returns attack success by the number of tries of each request, or turns of a conversation about it."""
    return [_tries_table(run, found) for found in try_tables(run)]


def _tries_table(run: Run, found: TryTable) -> Table:
    units = {"try": "tries of a request", "turn": "turns of a conversation"}
    table = _table(f"\n{run.titles[ASR.name]} by {units[found.unit]}", "arm", "benchmark", *map(str, found.counts))
    for one in found.curves:
        rates = [f"{one.rates[count].value:.1%}" if count in one.rates else "" for count in found.counts]
        table.add_row(Text(one.arm), Text(one.benchmark), *rates)
    return table


def _tampering(run: Run) -> list[Table | Text]:
    """Returns attack success after further training, and the steps to breach of the target."""
    if not (found := tamper_curves(run)):
        return []
    steps = list(dict.fromkeys(step for one in found for step in one.rates))
    title = f"\n{run.titles[ASR.name]} after steps of further training"
    table = _table(title, "arm", "trained on", "benchmark", *map(str, steps), "steps to breach")
    for one in found:
        rates = [f"{one.rates[step].value:.1%}" if step in one.rates else "" for step in steps]
        table.add_row(Text(one.arm), one.training, Text(one.benchmark), *rates, str(one.breach))
    return [table, *_worst_cases(run)]


def _worst_cases(run: Run) -> Iterator[Table]:
    """Yields what an attacker achieves who keeps the task accuracy, if the sweep limits its drop."""
    if not (found := worst_cases(run)):
        return
    largest = run.sweep["tamper"]["max_accuracy_drop"]
    title = (
        f"\nWorst {ASR.words(run.domain)} of further training that costs at most {largest * 100:g} points of accuracy"
    )
    table = _table(title, "arm", "benchmark", "worst case")
    for one in found:
        table.add_row(Text(one.arm), Text(one.benchmark), str(one))
    yield table


def _drift(run: Run) -> list[Table | Text]:
    """Returns the rates of later generations, and what each policy took."""
    if not (found := generations(run)):
        return []
    title = "\nLater generations (generation 0 is the table above)"
    table = _table(title, "arm, start", "policy", "order", "gen.", *(run.titles[name] for name in run.metrics), "asked")
    for one in [one for one in found if one.generation]:
        rates = [Text(rate_in_words(one.rates[metric])) for metric in run.metrics]
        policy = Text(f"{one.policy}\n").append(one.applied or "no defense", style="dim")
        table.add_row(
            Text(f"{one.arm}\n{one.start}"), policy, str(one.order), str(one.generation), *rates, f"{one.asked:,}"
        )
    return [table]


def _judges(run: Run) -> list[Table | Text]:
    """Returns the judges' agreement with human labels, and attack success corrected by the labels."""
    if not run.correction:
        return []
    accuracy = _table("\nJudges compared with human labels", "judge", "sensitivity", "specificity")
    for name, found in run.judges.items():
        accuracy.add_row(Text(name), _in_lines(found.sensitivity), _in_lines(found.specificity))
    title = f"\n{run.titles[ASR.name]} {run.correction}"
    corrected = _table(title, "arm and settings", "benchmark", "as judged", "corrected")
    for row in headline(run):
        for benchmark, *rates in benchmark_rates(row):
            corrected.add_row(_arm(row), Text(benchmark), *map(_in_lines, rates))
    return [accuracy, corrected] if run.judges else [corrected]


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
