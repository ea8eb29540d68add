"""Compares two runs: what differs in their sweeps, and how the arms that both have changed on the same prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.arms import LEVEL, answers_of_row
from safecomm.report.disagreement import disagreements
from safecomm.report.incoherence import warnings as incoherence_warnings
from safecomm.report.points import metrics_of
from safecomm.report.provenance import model_versions
from safecomm.report.run import Headline, Run, headline
from safecomm.report.versions import recorded_versions
from safecomm.spec import ORIGINAL
from safecomm.statistics.comparisons import Pairs, RateDifference, holm, paired_difference, sign_flip_p
from safecomm.statistics.metric_table import BY_NAME, Metric
from safecomm.storage.store import without_nan

DECIDING = {"harmful answers": "judges", "task answers": "grader", "refusals": "refusal_judge"}
"""The keys of the judges that decide the rates."""
PLACES = ("name", "storage", "tracking")
"""A sweep's keys that say where its results go."""


RECOMMENDED = "(recommended)"
"""Stands for the recommended points; no arm may have this name."""
OWN_FAMILY = (ORIGINAL, RECOMMENDED)
"""What is tested alone: the first has no defense, the second repeats an arm."""


@dataclass(frozen=True)
class Difference:
    """Something that the two runs don't have in common."""

    what: str
    """A sweep's key, a model or a package."""
    before: str
    after: str


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
    rows = _common_rows(before, after)
    metrics = [metric for metric in after.metrics if metric in before.metrics]
    notes = list(_notes(before, after))
    pairs: dict[tuple[str, str], list[Pairs]] = {}
    for arm, (earlier, later) in rows.items() if not (before.warnings or after.warnings) else ():
        try:
            ours, reference = answers_of_row(after, later), answers_of_row(before, earlier)
        except UsageError as error:
            notes.append(f"{arm} is not tested: {error}")
            continue
        pairs |= {(metric, arm): _paired(ours, reference, BY_NAME[metric]) for metric in metrics}
    sweeps = [{key: value for key, value in run.sweep.items() if key not in PLACES} for run in (before, after)]
    differences = [*_differing(sweeps[0], sweeps[1]), *_versions(before, after)]
    return TwoRuns(before, after, differences, list(_changes(rows, metrics, pairs)), notes)


def _common_rows(before: Run, after: Run) -> dict[str, tuple[Headline, Headline]]:
    """Returns the headline rows of the arms in both runs and, if these differ, of the recommended arms."""
    earlier, later = headline(before), headline(after)
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
        p_values = {arm: sign_flip_p(both) for arm in rows if (both := pairs.get((metric, arm)))}
        p_values |= holm({arm: p for arm, p in p_values.items() if arm not in OWN_FAMILY})
        for arm, (earlier, later) in rows.items():
            both = pairs.get((metric, arm))
            difference = replace(paired_difference(both), p=p_values[arm]) if both else None
            yield Change(arm, metric, earlier, later, difference)


def _notes(before: Run, after: Run) -> Iterator[str]:
    """Yields what a reader must know before any change."""
    for run in (before, after):
        rows = headline(run)
        for note in (*run.warnings, *incoherence_warnings(rows), *disagreements(run, rows)):
            yield f"{run.folder}: {note}"
    for what, key in DECIDING.items():
        found = [_said(_first(run.sweep["evaluate"].get(key))) for run in (before, after)]
        if found[0] != found[1]:
            yield f"The judges of {what} differ: a change may be theirs, not the model's."
    arms = [[row.arm for row in headline(run)] for run in (before, after)]
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


def _differing(before: Any, after: Any, key: str = "") -> Iterator[Difference]:
    """Yields the keys of two sweeps with different values, by their full path; items of lists go by their position."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() & after.keys():
        for name in dict.fromkeys([*before, *after]):
            yield from _differing(before.get(name), after.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (earlier, later) in enumerate(zip(before, after, strict=True)):
            yield from _differing(earlier, later, f"{key}.{at}")
    elif before != after:
        yield Difference(key, _said(before), _said(after))


def _said(value: Any) -> str:
    """Returns a sweep's value in words, without what is not set in it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return ("; " if any(isinstance(inner, dict) for inner in value) else ", ").join(map(_said, value))
    return "not set" if value is None else str(value)


def _versions(before: Run, after: Run) -> Iterator[Difference]:
    """Yields the models and packages whose versions differ, as far as both runs recorded them."""
    for versions in (model_versions, lambda run: recorded_versions(run.folder)):
        found = [versions(run) for run in (before, after)]
        yield from (
            Difference(name, found[0][name], found[1][name])
            for name in sorted(found[0].keys() & found[1].keys())
            if found[0][name] != found[1][name]
        )


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
