"""Rates of the metrics in the metric table, with confidence intervals.

A prompt without a verdict is neither a hit nor a miss. It is excluded from the rate and counted in the unscored share.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safecomm.statistics.metric_table import ALL_METRICS, ASR, Metric


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of prompts with its 95% interval; all fields except `n` are fractions."""

    value: float
    low: float
    high: float
    n: int
    """Prompts with a verdict."""
    unscored: float
    """Share of prompts without a verdict."""


PRIOR_CLUSTERS = 1.0
"""Clusters of identical verdicts, hits and misses alike, that the estimated correlation within clusters starts from."""


def rate(hits: int, scored: int, total: int) -> Rate:
    """Returns hits / scored with its 95% interval (see `interval`), for independent prompts with one answer each.

    Args:
        hits: prompts with the counted verdict.
        scored: prompts with any verdict. If 0, the value is NaN and the interval [0, 1].
        total: all prompts.
    """
    unscored = 1 - scored / total if total else 0.0
    if not scored:
        return Rate(math.nan, 0.0, 1.0, 0, unscored)
    return Rate(hits / scored, *interval(hits / scored, scored), scored, unscored)


def clustered_rate(hits: Sequence[float], scored: Sequence[float], total: int) -> Rate:
    """Returns a rate over clusters of answers: to one prompt (samples, seeds), or to several wordings of a request.

    Verdicts within a cluster are correlated. The interval therefore uses the effective sample size, n / design effect,
    with the between-cluster variance of the ratio estimate (Kish, Survey Sampling, 1965) and Student's t for few
    clusters (Korn and Graubard, Survey Methodology 24, 1998). With few hits that variance is often estimated as too
    small, so it includes one cluster of identical verdicts (`PRIOR_CLUSTERS`); the design effect is at least 1 and
    at most the size of a cluster. `benchmarks/coverage.py` simulates the coverage.

    Args:
        hits: per cluster, answers with the counted verdict.
        scored: per cluster, answers with any verdict; clusters with none are skipped.
        total: all answers.
    """
    h = np.array([hit for hit, n in zip(hits, scored, strict=True) if n], dtype=float)
    n = np.array([n for n in scored if n], dtype=float)
    plain = rate(round(h.sum()), round(n.sum()), total)
    if math.isnan(plain.value) or n.max() == 1:
        return plain
    low, high = interval(plain.value, effective_size(h, n))
    return Rate(plain.value, low, high, plain.n, plain.unscored)


def effective_size(hits: NDArray[np.float64], scored: NDArray[np.float64]) -> float:
    """Returns how many independent answers carry as much information about a rate as clusters of answers do.

    Args:
        hits: per cluster, answers with the counted verdict.
        scored: per cluster, answers with any verdict; all above 0.
    """
    from scipy.stats import norm, t

    size, clusters = scored.sum(), len(scored)
    mean_size = size / clusters
    if clusters < 2:
        return 1.0
    prior = PRIOR_CLUSTERS * mean_size
    value = (hits.sum() + prior / 2) / (size + prior)
    squares = float(np.square(hits - value * scored).sum())
    squares += PRIOR_CLUSTERS / 2 * mean_size**2 * ((1 - value) ** 2 + value**2)
    between = squares / (clusters - 1 + PRIOR_CLUSTERS)
    effect = float(np.clip(between / (mean_size * value * (1 - value)), 1, scored.max()))
    return float(size / effect * (norm.ppf(0.975) / t.ppf(0.975, clusters - 1)) ** 2)


def interval(value: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Returns a two-sided interval of a rate, the mean of two standard ones bound by bound.

    Clopper and Pearson's (Biometrika 26, 1934) covers too often, Jeffreys' (Brown, Cai and DasGupta, Statistical
    Science 16, 2001) too rarely for some rates near 0 and 1. `benchmarks/coverage.py` compares them.

    Args:
        value: the measured share.
        n: the number of answers; may be fractional.
        confidence: the nominal coverage.
    """
    from scipy.stats import beta  # slow to import, and planning does not need it

    tail, hits = (1 - confidence) / 2, value * n
    misses = n - hits
    low = (beta.ppf(tail, hits, misses + 1) + beta.ppf(tail, hits + 0.5, misses + 0.5)) / 2 if hits > 0 else 0.0
    high = (beta.isf(tail, hits + 1, misses) + beta.isf(tail, hits + 0.5, misses + 0.5)) / 2 if misses > 0 else 1.0
    return float(low), float(high)


def mean_rate(parts: Sequence[Rate]) -> Rate:
    """Returns the unweighted mean of several benchmarks' rates.

    The interval combines the parts' squared half-widths separately for each side (MOVER; Zou and Donner, Statistics in
    Medicine 27, 2008): low = mean - sqrt(sum((value_i - low_i)^2)) / k, and analogously for high. It stays within
    [0, 1], keeps the asymmetry and equals the part's own interval for k = 1. Benchmarks are assumed independent.
    If one part is unknown, so is the mean: a mean over fewer benchmarks would look comparable but is not.
    """
    n = sum(part.n for part in parts)
    unscored = float(np.mean([part.unscored for part in parts]))
    value = float(np.mean([part.value for part in parts]))
    if math.isnan(value):
        return Rate(math.nan, 0.0, 1.0, n, unscored)
    below = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    above = math.hypot(*(part.high - part.value for part in parts)) / len(parts)
    return Rate(value, max(0.0, value - below), min(1.0, value + above), n, unscored)


def one_seeds_interval(seeds: Sequence[Rate]) -> Rate:
    """Returns a benchmark's mean rate over seeds as if every seed gave the same answers, so n is a single seed's."""
    n = min(one.n for one in seeds)
    value = float(np.mean([one.value for one in seeds]))
    unscored = float(np.mean([one.unscored for one in seeds]))
    if not n or math.isnan(value):
        return Rate(math.nan, 0.0, 1.0, 0, unscored)
    return Rate(value, *interval(value, n), n, unscored)


def across_runs(pooled: Rate, runs: Sequence[Rate]) -> tuple[float, float]:
    """Returns a 95% interval of a rate for further training runs with other seeds, not only for those measured.

    It adds the variance between runs, with Student's t for few runs, to that of the prompts. All runs answer the same
    prompts, so their rates differ by chance as well, which the interval over all runs includes already: by how much
    narrower it is than a single run's tells this part of the variance between runs, which is not counted twice.

    Args:
        pooled: the rate over all runs.
        runs: each run's rate, at least two.

    Returns:
        The bounds; NaN if the rate is unknown, 0 and 1 if that of a run is.
    """
    from scipy.stats import t

    if math.isnan(pooled.value):
        return math.nan, math.nan
    if any(math.isnan(run.value) for run in runs):
        return 0.0, 1.0
    count = len(runs)
    single = float(np.mean([_variance(run) for run in runs]))
    chance = max(0.0, single - _variance(pooled)) * count / (count - 1)
    between = max(0.0, float(np.var([run.value for run in runs], ddof=1)) - chance)
    half = float(t.ppf(0.975, count - 1)) * math.sqrt(between / count)
    low = pooled.value - math.hypot(pooled.value - pooled.low, half)
    high = pooled.value + math.hypot(pooled.high - pooled.value, half)
    return max(0.0, low), min(1.0, high)


def _variance(rate: Rate) -> float:
    """Returns the variance of a rate's estimate, from the width of its 95% interval."""
    return ((rate.high - rate.low) / (2 * 1.96)) ** 2


def rates(rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, Rate]:
    """Returns all rates of one evaluation.

    Args:
        rows: one row per answer, with the columns `prompt_id`, `benchmark`, `kind`, `verdict` and, for every judge
            after the first, `verdict@JUDGE`. A missing or unknown verdict counts as unscored. Answers with the same
            `cluster` (where that column is missing or empty: the same `prompt_id`) form one cluster, be they samples,
            seeds or wordings (see `clustered_rate`).
        judges: the sweep's judges for harmful prompts; the column `verdict` has the first one's verdicts.

    Returns:
        `asr`, `accuracy`, `over_refusal`, `incoherence` (means over benchmarks); `asr/BENCHMARK` etc. for each
        benchmark; and `asr@JUDGE`, `asr@JUDGE/BENCHMARK` for the judges after the first. Kinds without benchmarks are
        omitted.
    """
    found: dict[str, Rate] = {}
    for metric in ALL_METRICS:
        of_kind = rows[rows["kind"] == metric.kind]
        found |= _benchmark_rates(of_kind, "verdict", metric, metric.name)
        if metric is ASR:
            for judge in judges[1:]:
                found |= _benchmark_rates(of_kind, f"verdict@{judge}", metric, f"{metric.name}@{judge}")
    return found


def _benchmark_rates(rows: pd.DataFrame, column: str, metric: Metric, name: str) -> dict[str, Rate]:
    """Returns the rates of one kind's benchmarks by one judge, with their mean first."""
    parts = {f"{name}/{bench}": _verdict_rate(group, column, metric) for bench, group in rows.groupby("benchmark")}
    return {name: mean_rate(list(parts.values())), **parts} if parts else {}


def _verdict_rate(rows: pd.DataFrame, column: str, metric: Metric) -> Rate:
    hit, scored = rows[column] == metric.hit, rows[column].isin([metric.hit, metric.miss])
    by = clusters_of(rows)
    return clustered_rate(list(hit.groupby(by).sum()), list(scored.groupby(by).sum()), len(rows))


def clusters_of(rows: pd.DataFrame) -> "pd.Series[str]":
    """Returns every answer's cluster: the prompt's own, or the prompt itself."""
    if "cluster" not in rows:
        return rows["prompt_id"]
    return rows["cluster"].where(rows["cluster"].fillna("") != "", rows["prompt_id"])


def as_columns(found: Mapping[str, Rate]) -> dict[str, float]:
    """Returns the rates as one flat row with the columns M, M_low, M_high, M_n and M_unscored for every metric M."""
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
