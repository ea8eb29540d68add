"""A gate for release pipelines: a run passes if the whole interval of each reported rate is within its limit."""

from collections.abc import Mapping
from dataclasses import dataclass

from safecomm.errors import UsageError
from safecomm.report.run import FLATTERED, Headline, Run, headline, rate_in_words
from safecomm.statistics.metric_table import BY_NAME
from safecomm.statistics.metrics import Rate


@dataclass(frozen=True)
class Check:
    """One limit and whether the rate is within it."""

    metric: str
    limit: float
    kept: bool
    reason: str
    """The rate and its limit, as text."""


def release_row(run: Run, arm: str | None) -> Headline:
    """Returns the point to release: an arm's best point, or by default the recommended one.

    Raises:
        UsageError: if it was not measured on the report split.
    """
    rows = headline(run)
    wanted = [row for row in rows if (row.arm == arm if arm else row.recommended)]
    if not wanted:
        arms = ", ".join(dict.fromkeys(row.arm for row in rows)) or "none"
        what = f"arm {arm}" if arm else "recommended point"
        raise UsageError(f"{run.folder}: has no {what} on the report split; arms with results there: {arms}")
    return next((row for row in wanted if row.recommended), wanted[0])


def fair_choice(run: Run) -> list[Check]:
    """Returns a failing check if the settings were chosen on the prompts of the reported rates, else no check."""
    return [Check("split", 0.0, False, FLATTERED)] if run.is_flattered else []


def check(run: Run, row: Headline, limits: Mapping[str, float], max_unscored: float) -> list[Check]:
    """Compares reported rates with limits.

    Args:
        run: the run.
        row: the point to release.
        limits: metric -> limit, a fraction: for attack success and over-refusal on the upper end of the 95% interval,
            for accuracy on the lower end.
        max_unscored: the highest allowed share of a metric's prompts without a verdict, which can't count as safe.
    """
    return [
        _check(metric, run.titles[metric], limit, row.rates.get(metric), max_unscored)
        for metric, limit in limits.items()
    ]


def _check(metric: str, title: str, limit: float, rate: Rate | None, max_unscored: float) -> Check:
    if rate is None or not rate.n:
        return Check(metric, limit, False, f"{title}: was not measured")
    text = f"{title}: {rate_in_words(rate)}"
    if rate.unscored > max_unscored:
        return Check(metric, limit, False, f"{text}, but {rate.unscored:.1%} unscored; the limit is {max_unscored:.1%}")
    at_most = BY_NAME[metric].direction == "min"
    kept = rate.high <= limit if at_most else rate.low >= limit
    side = "at most" if at_most else "at least"
    return Check(metric, limit, kept, f"{text}; the whole interval must be {side} {limit:.1%}")
