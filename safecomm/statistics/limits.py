"""Bounds of rates for decisions: one-sided, exact for single answers, and with unscored answers at their worst."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from safecomm.statistics.metric_table import Metric
from safecomm.statistics.metrics import Rate, clusters_of, effective_size, interval


def bounded_rate(rows: pd.DataFrame, metric: Metric, confidence: float, unscored: str | None = None) -> Rate:
    """Returns one benchmark's rate with a one-sided bound on either side.

    The bounds are Clopper and Pearson's (Biometrika 26, 1934), for clustered answers with their effective number (Korn
    and Graubard, Survey Methodology 24, 1998). Unlike those of `interval`, they never hold less often than stated.

    Args:
        rows: one row per answer to prompts of the benchmark, with `verdict`, `prompt_id` and perhaps `cluster`.
        metric: its metric.
        confidence: of each bound alone.
        unscored: the verdict that answers without one count as; None leaves them out.

    Returns:
        The rate; `n` counts the answers in it.
    """
    verdicts = rows["verdict"].where(rows["verdict"].isin([metric.hit, metric.miss]), unscored or "")
    scored = verdicts != ""
    by = clusters_of(rows)
    table = pd.DataFrame({"hits": (verdicts == metric.hit).astype(float), "counts": scored.astype(float)})
    table = table.groupby(by).sum()
    table = table[table["counts"] > 0]
    hits, counts = table["hits"].to_numpy(float), table["counts"].to_numpy(float)
    total, left_out = int(counts.sum()), float(1 - counts.sum() / len(rows)) if len(rows) else 0.0
    if not total:
        return Rate(math.nan, 0.0, 1.0, 0, left_out)
    value = float(hits.sum() / total)
    n = total if counts.max() == 1 else effective_size(hits, counts)
    low, high = exact_bounds(value, n, confidence)
    return Rate(value, low, high, total, left_out)


def exact_bounds(value: float, n: float, confidence: float) -> tuple[float, float]:
    """Returns a lower and an upper bound of a rate, each with the given confidence; `n` may be fractional."""
    from scipy.stats import beta

    hits, tail = value * n, 1 - confidence
    misses = n - hits
    low = float(beta.ppf(tail, hits, misses + 1)) if hits > 1e-9 else 0.0
    high = float(beta.isf(tail, hits + 1, misses)) if misses > 1e-9 else 1.0
    return low, high


def highest_of(rates: Sequence[Rate]) -> Rate:
    """Returns the highest of several rates, with a 95% interval for the highest true rate.

    The highest measured rate is partly chance. Each bound is the highest of those of all rates, which hold together
    (Bonferroni). A rate without a verdict may be anything, so the upper bound is then 1.

    Args:
        rates: at least one of them known.
    """
    tests = len(rates)
    highest = max((one for one in rates if one.n), key=lambda one: one.value)
    low, high = (max(bound(one, tests) for one in rates) for bound in (low_among, high_among))
    return Rate(highest.value, low, high, highest.n, highest.unscored)


def high_among(found: Rate, tests: int) -> float:
    """Returns the upper bound of one of several rates; see `low_among`."""
    from scipy.optimize import brentq

    if not found.n or found.high >= interval(found.value, 1)[1]:
        return 1.0
    size = brentq(lambda n: interval(found.value, n)[1] - found.high, 1, 1e9)
    return interval(found.value, size, 1 - 0.05 / tests)[1]


def low_among(found: Rate, tests: int) -> float:
    """Returns the lower bound of one of several rates, by Bonferroni: all of them hold together with 97.5%.

    The rate's own 95% interval tells how many independent answers it rests on.

    Args:
        found: the rate.
        tests: the number of rates, at least 1.
    """
    from scipy.optimize import brentq

    if not found.n or found.low <= interval(found.value, 1)[0]:
        return 0.0
    size = brentq(lambda n: interval(found.value, n)[0] - found.low, 1, 1e9)
    return interval(found.value, size, 1 - 0.05 / tests)[0]


def needed(value: float, bound: float, n: int, limit: float, confidence: float) -> int | None:
    """Returns about how many answers would put a bound on the side of the limit that a rate is on.

    Clustered answers are converted: those so far count as the number of independent answers that gives the bound.

    Args:
        value: the rate so far, taken to stay.
        bound: its bound so far, on the limit's side.
        n: the answers so far.
        limit: the limit, between value and bound.
        confidence: of the bound.

    Returns:
        The total number of answers; None if the rate is so close to the limit that no number up to 10 million would.
    """
    sizes: list[float] = np.geomspace(2, 1e7, 400).tolist()
    sides = [exact_bounds(value, size, confidence)[bound > value] for size in sizes]
    own = min(range(len(sizes)), key=lambda at: abs(sides[at] - bound))
    for size, side in zip(sizes[own:], sides[own:], strict=True):
        if (side <= limit) if bound > value else (side >= limit):
            return math.ceil(n * size / sizes[own])
    return None
