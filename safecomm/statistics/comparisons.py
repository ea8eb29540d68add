"""Comparisons of rates, and the accuracy and agreement of judges.

The rates themselves are in `metrics.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import itemgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from statsmodels.stats.inter_rater import cohens_kappa

from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import PRIOR_CLUSTERS, Rate, interval, rate

K = TypeVar("K")

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class RateDifference:
    """A rate minus a reference rate on the same prompts."""

    value: float
    low: float
    high: float
    """The bounds of the 95% interval."""
    n: int
    """Clusters of prompts with a verdict for both models."""
    p: float = math.nan
    """Two-sided p-value, where it was computed (see `sign_flip_p`)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The verdicts of two models on the prompts of one benchmark, cluster by cluster."""

    ours: NDArray[np.float64]
    """Share of hits among a cluster's answers."""
    reference: NDArray[np.float64]
    """The reference model's share, for the same cluster."""


def paired_difference(benchmarks: Sequence[Pairs], confidence: float = 0.95) -> RateDifference:
    """Compares two models on the same prompts, as the mean of the benchmarks' differences.

    The interval is Newcombe's for paired proportions (method 10; Statistics in Medicine 17, 1998) from the two
    rates' own intervals and their correlation, combined over benchmarks as in `mean_rate`.

    Args:
        benchmarks: each benchmark's clusters, at least one.
        confidence: of the interval.

    Raises:
        ValueError: if a benchmark has no clusters, or the models' clusters differ in number.
    """
    for one in benchmarks:
        if len(one.ours) != len(one.reference) or not len(one.ours):
            raise ValueError(f"paired verdicts are required, got {len(one.ours)} and {len(one.reference)}")
    parts = [_newcombe(one, confidence) for one in benchmarks]
    value = float(np.mean([part[0] for part in parts]))
    below = math.hypot(*(part[0] - part[1] for part in parts)) / len(parts)
    above = math.hypot(*(part[2] - part[0] for part in parts)) / len(parts)
    n = sum(len(one.ours) for one in benchmarks)
    return RateDifference(value, max(-1.0, value - below), min(1.0, value + above), n)


def _newcombe(pairs: Pairs, confidence: float) -> tuple[float, float, float]:
    """Returns a difference of two paired rates and its interval."""
    (p1, l1, u1), (p2, l2, u2) = (_bounds(shares, confidence) for shares in (pairs.ours, pairs.reference))
    r = _correlation(pairs)
    below = math.sqrt(max(0.0, (p1 - l1) ** 2 - 2 * r * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2))
    above = math.sqrt(max(0.0, (u1 - p1) ** 2 - 2 * r * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2))
    return p1 - p2, p1 - p2 - below, p1 - p2 + above


def _bounds(shares: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """Returns the mean of clusters' shares and its interval.

    A cluster counts as one answer unless its shares vary less between clusters than single answers would.
    """
    value, n = float(shares.mean()), len(shares)
    prior = PRIOR_CLUSTERS * 0.25
    smooth = (shares.sum() + PRIOR_CLUSTERS / 2) / (n + PRIOR_CLUSTERS)
    variance = (float(np.square(shares - smooth).sum()) + prior) / (n - 1 + PRIOR_CLUSTERS) if n > 1 else 0.25
    gain = max(1.0, smooth * (1 - smooth) / variance)
    return value, *interval(value, n * gain, confidence)


def _correlation(pairs: Pairs) -> float:
    """Returns the correlation of two models' verdicts with Newcombe's continuity correction; 0 if one never varies."""
    spread = float(pairs.ours.std() * pairs.reference.std())
    if not spread:
        return 0.0
    covariance = float(np.mean(pairs.ours * pairs.reference) - pairs.ours.mean() * pairs.reference.mean())
    corrected = max(covariance - 0.5 / len(pairs.ours), 0.0) if covariance > 0 else covariance
    return float(np.clip(corrected / spread, -1, 1))


def sign_flip_p(benchmarks: Sequence[Pairs], seed: int = 0) -> float:
    """Returns the two-sided p-value of a mean of benchmarks' differences.

    The test permutes signs over clusters; with one benchmark and one answer per prompt it is McNemar's exact test
    (Psychometrika 12, 1947).

    Args:
        benchmarks: each benchmark's clusters.
        seed: seed of the permutations.
    """
    changed = [(one.ours - one.reference)[one.ours != one.reference] for one in benchmarks]
    if not any(len(d) for d in changed):
        return 1.0
    if len(changed) == 1 and set(np.abs(changed[0])) == {1.0}:
        return float(binomtest(int((changed[0] > 0).sum()), len(changed[0])).pvalue)
    weighted = np.concatenate([d / len(one.ours) for d, one in zip(changed, benchmarks, strict=True)])
    rng, sums = np.random.default_rng(seed), np.zeros(RESAMPLES)
    for size, clusters in zip(*np.unique(np.abs(weighted), return_counts=True), strict=True):
        sums += size * (2 * rng.binomial(clusters, 0.5, RESAMPLES) - clusters)  # the signs of equal differences
    as_extreme = int((np.abs(sums) >= abs(weighted.sum()) - 1e-12).sum())
    return (as_extreme + 1) / (RESAMPLES + 1)


def corrected_differences(family: Mapping[K, Sequence[Pairs]]) -> dict[K, RateDifference]:
    """Returns the differences of a family of comparisons, without those that have no prompts.

    Their p-values are from the sign-flip test, Holm-corrected over the family.
    """
    known = {name: pairs for name, pairs in family.items() if pairs}
    p_values = holm({name: sign_flip_p(pairs) for name, pairs in known.items()})
    return {name: replace(paired_difference(pairs), p=p_values[name]) for name, pairs in known.items()}


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Returns p-values corrected for multiple comparisons with Holm's step-down method (1979).

    statsmodels has it too, but collects all garbage at every call, which takes a fifth of a report's time.
    """
    ordered = sorted(p_values.items(), key=itemgetter(1))
    corrected = accumulate((min(1.0, (len(ordered) - place) * p) for place, (_, p) in enumerate(ordered)), max)
    found = dict(zip((name for name, _ in ordered), corrected, strict=True))
    return {name: found[name] for name in p_values}


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of two judges beyond chance."""

    kappa: float
    """Cohen's kappa: 1 is full agreement, 0 is chance level; NaN if all verdicts of both judges are identical."""
    low: float
    high: float
    same: float
    """Share of prompts with the same verdict."""
    n: int
    """Prompts with a verdict from both judges."""


def agreement(first: Sequence[str], second: Sequence[str], verdicts: tuple[str, str] = ("safe", "unsafe")) -> Agreement:
    """Returns Cohen's kappa (1960) with its 95% interval; skips prompts without a verdict from either judge."""
    table = np.zeros((2, 2))
    for one, other in zip(first, second, strict=True):
        if one in verdicts and other in verdicts:
            table[verdicts.index(one), verdicts.index(other)] += 1
    n = int(table.sum())
    same = float(np.trace(table) / n) if n else math.nan
    if not n or np.trace(table) == max(table[0, 0], table[1, 1]) == n:
        return Agreement(math.nan, -1.0, 1.0, same, n)
    if 0 in (*table.sum(0), *table.sum(1)):  # a judge with constant verdicts agrees only by chance
        return Agreement(0.0, -1.0, 1.0, same, n)
    found = cohens_kappa(table)
    return Agreement(float(found.kappa), float(found.kappa_low), float(found.kappa_upp), same, n)


@dataclass(frozen=True, slots=True)
class JudgeAccuracy:
    """A judge's accuracy against human labels."""

    sensitivity: Rate
    """Share of the responses labelled unsafe that the judge calls unsafe."""
    specificity: Rate
    """Share of the responses labelled safe that the judge calls safe."""


def judge_accuracy(verdicts: Sequence[str], unsafe: Sequence[bool]) -> JudgeAccuracy:
    """Measures a judge on human-labelled responses; responses without a verdict count as unscored."""

    def share(of_unsafe: bool, verdict: str) -> Rate:
        given = [one for one, label in zip(verdicts, unsafe, strict=True) if label == of_unsafe]
        return rate(given.count(verdict), given.count("safe") + given.count("unsafe"), len(given))

    return JudgeAccuracy(share(True, "unsafe"), share(False, "safe"))


def corrected(measured: Rate, judge: JudgeAccuracy, confidence: float = 0.95) -> Rate:
    """Returns a rate of unsafe responses corrected for judge errors (Rogan and Gladen, Am. J. Epidemiology 107, 1978).

    true = (measured + specificity - 1) / (sensitivity + specificity - 1), clipped to [0, 1]. The interval uses the
    delta method with adjusted counts of all three samples (Lang and Reiczigel, Preventive Veterinary Medicine 113,
    2014).

    Args:
        measured: the rate according to the judge.
        judge: the judge's accuracy.
        confidence: of the two-sided interval.

    Returns:
        The corrected rate; unknown (NaN, [0, 1]) if the judge is no better than chance or was not measured.
    """
    z = float(norm.ppf((1 + confidence) / 2))
    Se, Sp = judge.sensitivity, judge.specificity
    informative = Se.value + Sp.value - 1
    if not Se.n or not Sp.n or not measured.n or not informative > 0:
        return Rate(math.nan, 0.0, 1.0, measured.n, measured.unscored)
    n, positives, negatives = measured.n + z**2, Se.n + 2, Sp.n + 2
    p = (measured.n * measured.value + z**2 / 2) / n
    se, sp = (Se.n * Se.value + 1) / positives, (Sp.n * Sp.value + 1) / negatives
    youden = se + sp - 1
    value = (p + sp - 1) / youden
    shift = 2 * z**2 * (value * se * (1 - se) / positives - (1 - value) * sp * (1 - sp) / negatives)
    spread = (
        z
        * math.sqrt(
            p * (1 - p) / n + (1 - value) ** 2 * sp * (1 - sp) / negatives + value**2 * se * (1 - se) / positives
        )
        / youden
    )
    exact = min(1.0, max(0.0, (measured.value + Sp.value - 1) / informative))
    low, high = max(0.0, min(exact, value + shift - spread)), min(1.0, max(exact, value + shift + spread))
    return Rate(exact, low, high, measured.n, measured.unscored)


def corrected_rates(
    measured: Mapping[str, Rate], judges: Sequence[str], trusted: Mapping[str, JudgeAccuracy]
) -> dict[str, Rate]:
    """Returns each benchmark's attack success rate corrected for its judge's errors.

    Args:
        measured: metric -> rate, with the names used by `rates`.
        judges: the judges' names; the first decides.
        trusted: judge -> its accuracy against human labels, for judges where it is known.
    """
    names = {judge: ASR.name if index == 0 else f"{ASR.name}@{judge}" for index, judge in enumerate(judges)}
    return {
        name: corrected(one, trusted[judge])
        for judge, metric in names.items()
        if judge in trusted
        for name, one in measured.items()
        if name.partition("/")[0] == metric and name != metric  # the correction does not apply to means of benchmarks
    }
