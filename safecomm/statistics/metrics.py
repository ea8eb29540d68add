"""The rates of the metric table with their intervals.

A verdict that no judge could give counts neither as a hit nor as a miss. It leaves the rate and shows up in its
unscored share.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from safecomm.statistics.metric_table import ASR, METRICS, Metric


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of prompts with its 95% interval; all but `n` are fractions."""

    value: float
    low: float
    high: float
    n: int
    """Prompts with a verdict."""
    unscored: float
    """Share of all prompts that have none."""


def rate(hits: int, scored: int, total: int) -> Rate:
    """Returns hits / scored with the Wilson score interval (Wilson, JASA 22, 1927), sound at 0, at 1 and for small n.

    Args:
        hits: prompts with the verdict that is counted.
        scored: prompts with any verdict.
        total: all prompts. Where none is scored the value is NaN and the interval [0, 1].
    """
    from scipy.stats import binomtest  # for which a plan would wait

    unscored = 1 - scored / total if total else 0.0
    if not scored:
        return Rate(math.nan, 0.0, 1.0, 0, unscored)
    interval = binomtest(hits, scored).proportion_ci(confidence_level=0.95, method="wilson")
    return Rate(hits / scored, float(interval.low), float(interval.high), scored, unscored)


def clustered_rate(hits: Sequence[int], scored: Sequence[int], total: int) -> Rate:
    """Returns a rate over prompts that come in groups: asked several times, or written in several wordings.

    Verdicts of one group go together, so they say less than as many single prompts. The Wilson interval is taken at
    the effective number of prompts, n / design effect, with the variance of the ratio estimate between groups (Kish,
    Survey Sampling, 1965; Korn and Graubard, Survey Methodology 24, 1998); the effect is at least 1. Where every
    verdict is the same there is no variance to see, and each group counts as one prompt.

    Args:
        hits: per group, prompts with the verdict that is counted.
        scored: per group, prompts with any verdict; groups of none are left out.
        total: all prompts.
    """
    h = np.array([hit for hit, n in zip(hits, scored, strict=True) if n], dtype=float)
    n = np.array([n for n in scored if n], dtype=float)
    plain = rate(int(h.sum()), int(n.sum()), total)
    if len(n) < 2 or math.isnan(plain.value):
        return plain
    value, size = plain.value, n.sum()
    if value in (0.0, 1.0):
        effective = float(len(n))
    else:
        between = len(n) / (len(n) - 1) * float(np.square(h - value * n).sum()) / size**2
        effective = size / max(1.0, between / (value * (1 - value) / size))
    low, high = _wilson(value, effective)
    return Rate(value, low, high, plain.n, plain.unscored)


def _wilson(value: float, n: float) -> tuple[float, float]:
    """Returns the 95% Wilson interval of a rate at a number of prompts that need not be whole."""
    from scipy.stats import norm

    z = float(norm.ppf(0.975))
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_rate(parts: Sequence[Rate]) -> Rate:
    """Returns the unweighted mean of several benchmarks' rates.

    Its interval adds the parts' squared half-widths, each side for itself (MOVER; Zou and Donner, Statistics in
    Medicine 27, 2008): low = mean - sqrt(sum((value_i - low_i)^2)) / k, and high alike. It stays within [0, 1], keeps
    Wilson's asymmetry and is the part's own interval for k = 1. The benchmarks' prompts are taken as independent. One
    part without a verdict leaves the mean unknown: a mean over fewer benchmarks would look comparable and is not.
    """
    n = sum(part.n for part in parts)
    unscored = float(np.mean([part.unscored for part in parts]))
    value = float(np.mean([part.value for part in parts]))
    if math.isnan(value):
        return Rate(math.nan, 0.0, 1.0, n, unscored)
    below = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    above = math.hypot(*(part.high - part.value for part in parts)) / len(parts)
    return Rate(value, max(0.0, value - below), min(1.0, value + above), n, unscored)


def rates(rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, Rate]:
    """Returns every rate of one evaluation.

    Args:
        rows: one row an answer, with the columns `prompt_id`, `benchmark`, `kind`, `verdict` and, for every judge
            after the first, `verdict@JUDGE`. A verdict that is none of its kind's two words, or is missing, counts as
            unscored. Several answers to one prompt are one group of `clustered_rate`.
        judges: the sweep's judges of answers to harmful prompts; the first's verdicts are in `verdict`.

    Returns:
        `asr`, `accuracy`, `over_refusal` (means over their benchmarks), `asr/BENCHMARK` and so on for each benchmark,
        and `asr@JUDGE`, `asr@JUDGE/BENCHMARK` for the judges after the first. A kind without a benchmark has no
        rates.
    """
    found: dict[str, Rate] = {}
    for metric in METRICS:
        of_kind = rows[rows["kind"] == metric.kind]
        found |= _benchmark_rates(of_kind, "verdict", metric, metric.name)
        if metric is ASR:
            for judge in judges[1:]:
                found |= _benchmark_rates(of_kind, f"verdict@{judge}", metric, f"{metric.name}@{judge}")
    return found


def _benchmark_rates(rows: pd.DataFrame, column: str, metric: Metric, name: str) -> dict[str, Rate]:
    """Returns the rates of one kind's benchmarks by one judge, led by their mean."""
    parts = {f"{name}/{bench}": _verdict_rate(group, column, metric) for bench, group in rows.groupby("benchmark")}
    return {name: mean_rate(list(parts.values())), **parts} if parts else {}


def _verdict_rate(rows: pd.DataFrame, column: str, metric: Metric) -> Rate:
    hit, scored = rows[column] == metric.hit, rows[column].isin([metric.hit, metric.miss])
    if rows["prompt_id"].is_unique:
        return rate(int(hit.sum()), int(scored.sum()), len(rows))
    groups = rows["prompt_id"]
    return clustered_rate(list(hit.groupby(groups).sum()), list(scored.groupby(groups).sum()), len(rows))


def as_columns(found: Mapping[str, Rate]) -> dict[str, float]:
    """Returns the rates as one flat row: for every metric M the columns M, M_low, M_high, M_n and M_unscored."""
    return {
        name if field == "value" else f"{name}_{field}": value
        for name, one in found.items()
        for field, value in asdict(one).items()
    }


def from_columns(row: Mapping[str, Any]) -> dict[str, Rate]:
    """Returns the rates that `as_columns` wrote into a row."""
    return {name: Rate(**parts) for name in row if None not in (parts := _parts(row, name)).values()}


def _parts(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    names = [one.name for one in fields(Rate)]
    return {name: row.get(metric if name == "value" else f"{metric}_{name}") for name in names}
