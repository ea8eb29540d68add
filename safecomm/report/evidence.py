"""What the answers of the report split show of a rate or of a change: bounds for decisions, which assume the worst."""

import math
from dataclasses import dataclass

import pandas as pd

from safecomm.judging.results import paired
from safecomm.report.run import Run
from safecomm.statistics.comparisons import corrected, paired_difference
from safecomm.statistics.labelled import labelled_rate, labels_in
from safecomm.statistics.limits import bounded_rate
from safecomm.statistics.metric_table import ASR, Metric
from safecomm.statistics.metrics import Rate


@dataclass(frozen=True)
class Evidence:
    """A measured value with a one-sided bound on either side."""

    value: float
    """Of the scored answers."""
    low: float
    high: float
    """The bounds, with unscored answers at their lowest and at their highest."""
    lowest: float
    highest: float
    """The values with unscored answers at their lowest and at their highest."""
    n: int
    """Scored answers; for a change, clusters of prompts that both have a verdict on."""
    unscored: float
    """Share of answers without a verdict."""
    labelled: int = 0
    """Answers with a human label, if the value rests on them."""


def rate_evidence(run: Run, rows: pd.DataFrame, metric: Metric, confidence: float) -> Evidence | None:
    """Returns what answers show of a rate, the mean over their benchmarks; None without a verdict.

    Attack success rests on human labels if some of these answers have one (see `labelled_rate`), and is otherwise
    corrected for the deciding judge's errors if these are known (see `corrected`).

    Args:
        run: the run, which knows the judges' errors.
        rows: judged answers to prompts of the metric's kind.
        metric: the metric.
        confidence: of each bound alone.
    """
    if metric is ASR and (labelled := labels_in(rows)):
        found = _mean([labelled_rate(part, metric, confidence) for _, part in rows.groupby("benchmark")])
        return Evidence(found.value, found.low, found.high, found.value, found.value, found.n, found.unscored, labelled)

    def rate(unscored: str | None) -> Rate:
        parts = [bounded_rate(part, metric, confidence, unscored) for _, part in rows.groupby("benchmark")]
        judge = next(iter(run.judge_names), "")
        if metric is ASR and judge in run.judges:
            parts = [corrected(part, run.judges[judge], 2 * confidence - 1) for part in parts]
        return _mean(parts)

    measured = rate(None)
    if not measured.n or math.isnan(measured.value):
        return None
    lowest, highest = rate(metric.miss), rate(metric.hit)
    bounds = (lowest.low, highest.high, lowest.value, highest.value)
    return Evidence(measured.value, *bounds, measured.n, measured.unscored)


def change_evidence(rows: pd.DataFrame, reference: pd.DataFrame, metric: Metric, confidence: float) -> Evidence | None:
    """Returns what answers show of a change for the worse: a rise, or for accuracy a drop.

    It is None if no prompt has a verdict for both models.

    Args:
        rows: judged answers to prompts of the metric's kind.
        reference: the reference model's answers, to these and perhaps other prompts.
        metric: the metric.
        confidence: of each bound alone.
    """
    sign = 1 if metric.direction == "min" else -1
    worse, better = (metric.hit, metric.miss) if sign > 0 else (metric.miss, metric.hit)
    if not (scored := paired(rows, reference, metric)):
        return None
    at_highest = paired(_filled(rows, metric, worse), _filled(reference, metric, better), metric)
    at_lowest = paired(_filled(rows, metric, better), _filled(reference, metric, worse), metric)
    measured, highest, lowest = (
        paired_difference(pairs, 2 * confidence - 1) for pairs in (scored, at_highest, at_lowest)
    )
    low, high = (lowest.low, highest.high) if sign > 0 else (-lowest.high, -highest.low)
    values = (sign * measured.value + 0.0, low, high, sign * lowest.value, sign * highest.value)  # + 0.0: no minus zero
    unscored = 1 - float(rows["verdict"].isin([metric.hit, metric.miss]).mean())
    return Evidence(*values, measured.n, unscored)


def _filled(rows: pd.DataFrame, metric: Metric, verdict: str) -> pd.DataFrame:
    """Returns the rows with a verdict for unscored answers."""
    return rows.assign(verdict=rows["verdict"].where(rows["verdict"].isin([metric.hit, metric.miss]), verdict))


def _mean(parts: list[Rate]) -> Rate:
    """Returns the mean of several benchmarks' rates with the means of their bounds, which are conservative."""
    low, high, value, unscored = (
        sum(getattr(part, name) for part in parts) / len(parts) for name in ("low", "high", "value", "unscored")
    )
    return Rate(value, low, high, sum(part.n for part in parts), unscored)
