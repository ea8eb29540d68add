"""Compares two runs: how the arms that both have changed on the same prompts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.arms import LEVEL, answers_of_row
from safecomm.report.disagreement import disagreements
from safecomm.report.incoherence import warnings as incoherence_warnings
from safecomm.report.points import metrics_of
from safecomm.report.run import Headline, Run, headline
from safecomm.report.sweep_differences import Difference, differences, in_words
from safecomm.spec import ORIGINAL
from safecomm.statistics.comparisons import Pairs, RateDifference, corrected_differences
from safecomm.statistics.metric_table import BY_NAME, Metric
from safecomm.storage.store import without_nan

DECIDING = {
    "harmful answers": "judges",
    "task answers": "grader",
    "refusals": "refusal_judge",
    "conversations": "attacker",
}
"""The keys of the judges that decide the rates."""
RECOMMENDED = "(recommended)"
"""Stands for the recommended points; no arm may have this name."""
OWN_FAMILY = (ORIGINAL, RECOMMENDED)
"""What is tested alone: the first has no defense, the second repeats an arm."""


@dataclass(frozen=True)
class Change:
    """How a rate of an arm's best point on the report split changed from one run to the other."""

    arm: str
    """The arm; `(recommended)` for the runs' recommended points if these are of different arms."""
    metric: str
    before: Headline
    after: Headline
    difference: RateDifference | None
    """The rate after minus the rate before, on the prompts that both answered; None if it could not be tested.

    Its p-value is Holm-corrected over the sweeps' own arms; that of `original` and of `(recommended)` stands alone."""

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not decided` for these fine-tunes, at 5% over the arms; empty without a difference."""
        if self.difference is None:
            return ""
        if not self.difference.p < LEVEL:
            return "not decided"
        return "better" if (self.difference.value < 0) == (BY_NAME[self.metric].direction == "min") else "worse"


@dataclass(frozen=True)
class TwoRuns:
    """Two runs, compared."""

    before: Run
    after: Run
    differences: list[Difference]
    changes: list[Change]
    notes: list[str]
    """What a reader must know before any change."""

    @property
    def metrics(self) -> list[str]:
        """The metrics that both measured."""
        return [metric for metric in self.after.metrics if metric in self.before.metrics]


def compare_runs(before: Run, after: Run) -> TwoRuns:
    """Compares two runs.

    Each arm is represented by its best point, which may have other settings in either run. With several seeds, a
    prompt's answers of all seeds are averaged.
    """
    earlier, later = headline(before), headline(after)
    rows = _common_rows(earlier, later)
    metrics = [metric for metric in after.metrics if metric in before.metrics]
    notes = [*_own_notes(before, earlier), *_own_notes(after, later)]
    notes += [*_judges_differ(before, after), *_unlike(before, after, earlier, later)]
    pairs: dict[tuple[str, str], list[Pairs]] = {}
    for arm, (first, second) in rows.items() if not (before.warnings or after.warnings) else ():
        try:
            ours, reference = answers_of_row(after, second), answers_of_row(before, first)
        except UsageError as error:
            notes.append(f"{arm} is not tested: {error}")
            continue
        pairs |= {(metric, arm): _paired(ours, reference, BY_NAME[metric]) for metric in metrics}
    return TwoRuns(before, after, list(differences(before, after)), list(_changes(rows, metrics, pairs)), notes)


def _common_rows(earlier: Sequence[Headline], later: Sequence[Headline]) -> dict[str, tuple[Headline, Headline]]:
    """Returns the headline rows of the arms in both runs and, if these differ, of the recommended arms."""
    by_arm = {row.arm: row for row in earlier}
    rows = {row.arm: (by_arm[row.arm], row) for row in later if row.arm in by_arm}
    chosen = [next((row for row in found if row.recommended), None) for found in (earlier, later)]
    if chosen[0] and chosen[1] and chosen[0].arm != chosen[1].arm:
        rows[RECOMMENDED] = (chosen[0], chosen[1])
    return rows


def _paired(ours: pd.DataFrame, reference: pd.DataFrame, metric: Metric) -> list[Pairs]:
    """Returns the verdicts on the very prompts that both runs asked; others may be in the same cluster."""
    keys = ["benchmark", "prompt_id"]
    asked = [pd.MultiIndex.from_frame(rows[keys]) for rows in (ours, reference)]
    return paired(ours[asked[0].isin(asked[1])], reference[asked[1].isin(asked[0])], metric)


def _changes(
    rows: Mapping[str, tuple[Headline, Headline]], metrics: list[str], pairs: Mapping[tuple[str, str], list[Pairs]]
) -> Iterator[Change]:
    for metric in metrics:
        known = {arm: pairs.get((metric, arm), []) for arm in rows}
        differences = corrected_differences({arm: both for arm, both in known.items() if arm not in OWN_FAMILY})
        for arm in OWN_FAMILY:
            differences |= corrected_differences({arm: known.get(arm, [])})
        for arm, (earlier, later) in rows.items():
            yield Change(arm, metric, earlier, later, differences.get(arm))


def _own_notes(run: Run, rows: Sequence[Headline]) -> Iterator[str]:
    """Yields what a reader of one run's rates must know."""
    for note in (*run.warnings, *incoherence_warnings(rows), *disagreements(run, rows)):
        yield f"{run.folder}: {note}"


def _judges_differ(before: Run, after: Run) -> Iterator[str]:
    for what, key in DECIDING.items():
        found = [in_words(_first(run.sweep["evaluate"].get(key))) for run in (before, after)]
        if found[0] != found[1]:
            yield f"The judges of {what} differ: a change may be theirs, not the model's."


def _unlike(before: Run, after: Run, earlier: Sequence[Headline], later: Sequence[Headline]) -> Iterator[str]:
    """Yields which arms and benchmarks only one of the runs has."""
    arms = [[row.arm for row in rows] for rows in (earlier, later)]
    for run, own, others in ((before, arms[0], arms[1]), (after, arms[1], arms[0])):
        if alone := [arm for arm in own if arm not in others]:
            yield f"Measured on the report split only in {run.folder}: {', '.join(alone)}."
    benchmarks = [_benchmarks(run) for run in (before, after)]
    if unlike := sorted(benchmarks[0] ^ benchmarks[1]):
        yield f"Only one run has {', '.join(unlike)}: the rates include it, the changes don't."
    if not set(arms[0]) & set(arms[1]):
        yield "No arm was measured on the report split in both runs, so there is nothing to compare."


def _first(value: Any) -> Any:
    """Returns the deciding one of several judges, or the only one."""
    return value[0] if isinstance(value, list) and value else value


def _benchmarks(run: Run) -> set[str]:
    """Returns the benchmarks with rates, with what an attack adds to their names."""
    return {name.partition("/")[2] for name in metrics_of(run.points) if "/" in name}


def as_json(found: TwoRuns) -> dict[str, Any]:
    """Returns `before` and `after` (folders), `notes`, `differences` and `changes` as JSON values."""
    values: dict[str, Any] = without_nan(
        {
            "before": str(found.before.folder),
            "after": str(found.after.folder),
            "notes": found.notes,
            "differences": [asdict(one) for one in found.differences],
            "changes": [
                {
                    "arm": one.arm,
                    "metric": one.metric,
                    "before": _side(one.before, one.metric),
                    "after": _side(one.after, one.metric),
                    "difference": asdict(one.difference) if one.difference else None,
                    "verdict": one.verdict,
                }
                for one in found.changes
            ],
        }
    )
    return values


def _side(row: Headline, metric: str) -> dict[str, Any]:
    return {"arm": row.arm, "settings": row.settings, "rate": asdict(row.rates[metric])}
