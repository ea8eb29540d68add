"""Compares two runs: what differs in their sweeps, and how the arms that both have changed on the same prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.arms import LEVEL, answers_of_row
from safecomm.report.provenance import model_versions
from safecomm.report.run import Headline, Run, headline
from safecomm.report.versions import recorded_versions
from safecomm.statistics.comparisons import Pairs, RateDifference, holm, paired_difference, sign_flip_p
from safecomm.statistics.metric_table import BY_NAME
from safecomm.storage.store import without_nan

PLACES = ("name", "storage", "tracking")
"""A sweep's keys that say where its results go."""


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
    """The arm; `recommended` for the runs' recommended points if these are of different arms."""
    metric: str
    before: Headline
    after: Headline
    difference: RateDifference | None
    """The rate after minus the rate before, on the prompts that both answered; None if there are none.

    Its p-value is Holm-corrected over the arms."""

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not decided`, with a family-wise error of 5% per metric; empty without a difference."""
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
    notes, pairs = _notes(before, after), {}
    if not (before.warnings or after.warnings):
        try:
            pairs = _pairs(before, after, rows, metrics)
        except UsageError as error:
            notes.append(f"The changes can't be tested: {error}")
    earlier, later = ({key: value for key, value in run.sweep.items() if key not in PLACES} for run in (before, after))
    differences = [*_differing(earlier, later), *_versions(before, after)]
    return TwoRuns(before, after, differences, list(_changes(rows, metrics, pairs)), notes)


def _common_rows(before: Run, after: Run) -> dict[str, tuple[Headline, Headline]]:
    """Returns the headline rows of the arms in both runs and, if these differ, of the recommended arms."""
    earlier, later = headline(before), headline(after)
    by_arm = {row.arm: row for row in earlier}
    rows = {row.arm: (by_arm[row.arm], row) for row in later if row.arm in by_arm}
    chosen = [next((row for row in found if row.recommended), None) for found in (earlier, later)]
    if chosen[0] and chosen[1] and chosen[0].arm != chosen[1].arm:
        rows["recommended"] = (chosen[0], chosen[1])
    return rows


def _pairs(
    before: Run, after: Run, rows: Mapping[str, tuple[Headline, Headline]], metrics: list[str]
) -> dict[tuple[str, str], list[Pairs]]:
    """Returns (metric, arm) -> the verdicts after and before on the prompts that both answered.

    Raises:
        UsageError: if answers are gone from a store.
    """
    found: dict[tuple[str, str], list[Pairs]] = {}
    for arm, (earlier, later) in rows.items():
        reference, ours = answers_of_row(before, earlier), answers_of_row(after, later)
        found |= {(metric, arm): paired(ours, reference, BY_NAME[metric]) for metric in metrics}
    return found


def _changes(
    rows: Mapping[str, tuple[Headline, Headline]], metrics: list[str], pairs: Mapping[tuple[str, str], list[Pairs]]
) -> Iterator[Change]:
    for metric in metrics:
        p_values = holm({arm: sign_flip_p(both) for arm in rows if (both := pairs.get((metric, arm)))})
        for arm, (earlier, later) in rows.items():
            both = pairs.get((metric, arm))
            difference = replace(paired_difference(both), p=p_values[arm]) if both else None
            yield Change(arm, metric, earlier, later, difference)


def _notes(before: Run, after: Run) -> list[str]:
    notes = [f"{run.sweep['name']}: {warning}" for run in (before, after) for warning in run.warnings]
    judges = [run.judge_names[:1] for run in (before, after)]
    if judges[0] != judges[1]:
        names = [", ".join(names) or "none" for names in judges]
        notes.append(f"The deciding judges differ ({names[0]}; {names[1]}): a change may be theirs, not the model's.")
    for run, other in ((before, after), (after, before)):
        if alone := [arm for arm in run.arms if arm not in other.arms]:
            notes.append(f"Only in {run.folder}: {', '.join(alone)}.")
    return notes


def _differing(before: Any, after: Any, key: str = "") -> Iterator[Difference]:
    """Yields the keys of two sweeps with different values, each as deep as both sweeps have it; items are numbered."""
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
            for name in found[0].keys() & found[1].keys()
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
