"""A gate for release pipelines: a run passes where its published rates keep their limits with their whole interval."""

from collections.abc import Mapping
from dataclasses import dataclass

from safecomm.errors import UsageError
from safecomm.report.run import FLATTERED, Headline, Run, headline, rate_in_words
from safecomm.statistics.metric_table import BY_NAME
from safecomm.statistics.metrics import Rate


@dataclass(frozen=True)
class Check:
    """One limit and whether it is kept."""

    metric: str
    limit: float
    kept: bool
    reason: str
    """The rate beside its limit, in words."""


def release_row(run: Run, arm: str | None) -> Headline:
    """Returns what would be released: an arm's best point or, without an arm, the recommended one.

    Raises:
        UsageError: if it was not measured on the report split.
    """
    rows = headline(run)
    wanted = [row for row in rows if (row.arm == arm if arm else row.recommended)]
    if not wanted:
        arms = ", ".join(dict.fromkeys(row.arm for row in rows)) or "none"
        what = f"the arm {arm}" if arm else "a recommended point"
        raise UsageError(f"{run.folder}: has no numbers of {what} on the report split; there are those of: {arms}")
    return next((row for row in wanted if row.recommended), wanted[0])


def fair_choice(run: Run) -> list[Check]:
    """Returns a check that fails where settings were chosen on the prompts that the rates are from; else none."""
    return [Check("split", 0.0, False, FLATTERED)] if run.is_flattered else []


def check(run: Run, row: Headline, limits: Mapping[str, float], max_unscored: float) -> list[Check]:
    """Compares published rates with limits.

    Args:
        run: the run.
        row: what would be released.
        limits: metric -> the highest (attack success, over-refusal) or lowest (accuracy) value for the bound of the 95%
            interval on that side, a fraction.
        max_unscored: highest share of a metric's prompts without a verdict; what nobody could read is not safe.
    """
    return [
        _check(metric, run.titles[metric], limit, row.rates.get(metric), max_unscored)
        for metric, limit in limits.items()
    ]


def _check(metric: str, title: str, limit: float, rate: Rate | None, max_unscored: float) -> Check:
    if rate is None or not rate.n:
        return Check(metric, limit, False, f"{title}: was not measured")
    said = f"{title}: {rate_in_words(rate)}"
    if rate.unscored > max_unscored:
        return Check(metric, limit, False, f"{said}, but {rate.unscored:.1%} unscored; the limit is {max_unscored:.1%}")
    at_most = BY_NAME[metric].direction == "min"
    kept = rate.high <= limit if at_most else rate.low >= limit
    side = "at most" if at_most else "at least"
    return Check(metric, limit, kept, f"{said}; the whole interval must be {side} {limit:.1%}")
