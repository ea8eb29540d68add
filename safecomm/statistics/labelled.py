"""Rates from a judge's verdicts on all answers and human labels on some of them: prediction-powered inference.

The labels are drawn at random within each of the judge's verdicts. The estimate is then the stratified one of
prediction-powered inference (Angelopoulos et al., Science 382, 2023; Fisch et al., arXiv 2406.04291): the sum over
verdicts of their share times the labelled share of hits among them. It is unbiased however wrong the judge is, and
needs no assumption that the judge errs as it does on other models' answers, unlike a correction for its known errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from safecomm.statistics.limits import exact_bounds
from safecomm.statistics.metric_table import Metric
from safecomm.statistics.metrics import Rate, clusters_of, effective_size

LABEL = "label"
"""The column of a person's verdict; empty without one."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """The answers with one verdict of the judge, or with none."""

    verdict: str
    answers: int
    labelled: int
    rate: float
    """Share of hits among the labelled ones."""


def labelled_rate(rows: pd.DataFrame, metric: Metric, confidence: float) -> Rate:
    """Returns one benchmark's rate from the labels, with a one-sided bound on either side.

    The bounds combine exact ones for the share of hits in each stratum and for the size of the strata by MOVER (Zou and
    Donner, Statistics in Medicine 27, 2008). `benchmarks/coverage.py` simulates how often they hold.

    Args:
        rows: one row per answer, with `verdict`, `label`, `prompt_id` and perhaps `cluster`.
        metric: the metric.
        confidence: of each bound alone.

    Returns:
        The rate over all answers. Where no answer with some verdict has a label, any share of hits is possible; the
        value then takes the verdict for true, and the missing verdict for a hit.
    """
    scored = rows["verdict"].isin([metric.hit, metric.miss])
    verdicts = rows["verdict"].where(scored, "")
    strata = [_stratum(rows[verdicts == name], name, metric) for name in sorted(set(verdicts))]
    table = (
        pd.DataFrame({"hits": (verdicts == metric.hit).astype(float), "counts": 1.0}).groupby(clusters_of(rows)).sum()
    )
    hits, counts = (table[name].to_numpy(float) for name in ("hits", "counts"))
    size = len(rows) if counts.max() == 1 else effective_size(hits, counts)
    unknown = sum(one.answers for one in strata if one.verdict == "" and not one.labelled)
    return Rate(*_combined(strata, size, confidence), len(rows), unknown / len(rows))


def labels_in(rows: pd.DataFrame) -> int:
    """Returns how many of the answers have a label."""
    return int((rows[LABEL] != "").sum()) if LABEL in rows else 0


def _stratum(rows: pd.DataFrame, verdict: str, metric: Metric) -> Stratum:
    hits, misses = (int((rows[LABEL] == label).sum()) for label in (metric.hit, metric.miss))
    rate = hits / (hits + misses) if hits + misses else float(verdict != metric.miss)
    return Stratum(verdict, len(rows), hits + misses, rate)


def _combined(strata: Sequence[Stratum], size: float, confidence: float) -> tuple[float, float, float]:
    """Returns the rate over the strata and its bounds; `size` is the effective number of all answers."""
    total = sum(one.answers for one in strata)
    weights = np.array([one.answers / total for one in strata])
    rates = np.array([one.rate for one in strata])
    value = float(weights @ rates)
    below, above = [], []
    for one, weight, rate in zip(strata, weights, rates, strict=True):
        low, high = 0.0, 1.0
        if one.labelled:
            independent = 1 / (1 / one.labelled + (total / size - 1) / one.answers)
            low, high = exact_bounds(rate, independent, confidence)
        below.append(weight * (rate - low))
        above.append(weight * (high - rate))
        others = float((value - weight * rate) / (1 - weight)) if weight < 1 else rate
        if rate > others:
            smaller, larger = exact_bounds(weight, size, confidence)
            below.append((weight - smaller) * (rate - others))
            above.append((larger - weight) * (rate - others))
    return value, max(0.0, value - math.hypot(*below)), min(1.0, value + math.hypot(*above))
