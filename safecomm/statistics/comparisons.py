"""Comparisons of rates, and the accuracy and agreement of judges.

The rates themselves, with Wilson intervals, are in `metrics.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, permutation_test
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests

from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import Rate, rate

RESAMPLES = 10_000
Outcomes = Sequence[bool | int] | NDArray[np.bool_]
"""One value per prompt: true if the verdict counts as a hit."""


@dataclass(frozen=True, slots=True)
class RateDifference:
    """A rate minus a reference rate on the same prompts."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided p-value."""
    n: int
    """Prompts with a verdict for both models."""


def paired_difference(ours: Outcomes, reference: Outcomes, seed: int = 0) -> RateDifference:
    """Compares the verdicts of two models on the same prompts.

    The p-value is from McNemar's exact test (the binomial test on the prompts whose verdict changed; McNemar,
    Psychometrika 12, 1947), the 95% interval from a percentile bootstrap over prompts.

    Args:
        ours: one verdict per prompt.
        reference: the reference's verdicts, in the same order.
        seed: seed of the bootstrap.

    Raises:
        ValueError: if there are no prompts, or the lengths differ.
    """
    a, b = np.asarray(ours, dtype=bool), np.asarray(reference, dtype=bool)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired verdicts are required, got {len(a)} and {len(b)}")
    gained, lost, n = int((a & ~b).sum()), int((~a & b).sum()), len(a)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    # Only the counts matter, so sampling them from a multinomial is equivalent to the bootstrap over prompts.
    draws = np.random.default_rng(seed).multinomial(n, [gained / n, lost / n, 1 - (gained + lost) / n], RESAMPLES)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [0.025, 0.975])
    return RateDifference((gained - lost) / n, float(low), float(high), p, n)


def grouped_difference(differences: Sequence[float], seed: int = 0) -> RateDifference:
    """Compares two models with several answers per prompt.

    The p-value is from the sign-flip permutation test, which reduces to McNemar's test with one answer per prompt; the
    95% interval is from a percentile bootstrap over prompts.

    Args:
        differences: per prompt, the share of hits among its answers minus the reference's share.
        seed: seed of the resampling.

    Raises:
        ValueError: if there are no prompts.
    """
    d = np.asarray(differences, dtype=float)
    if not len(d):
        raise ValueError("paired verdicts are required, got none")
    rng = np.random.default_rng(seed)
    low, high = np.quantile(d[rng.integers(0, len(d), (RESAMPLES, len(d)))].mean(1), [0.025, 0.975])
    flipped = d[d != 0]  # flipping the sign of 0 changes nothing
    p = 1.0
    if len(flipped):
        p = permutation_test((flipped,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=rng).pvalue
    return RateDifference(float(d.mean()), float(low), float(high), float(p), len(d))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values corrected for multiple comparisons with Holm's step-down method (1979)."""
    if not p_values:
        return {}
    corrected = multipletests(list(p_values.values()), method="holm")[1]
    return {name: float(p) for name, p in zip(p_values, corrected, strict=True)}


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


def corrected(measured: Rate, judge: JudgeAccuracy) -> Rate:
    """Returns a rate of unsafe responses corrected for judge errors (Rogan and Gladen, Am. J. Epidemiology 107, 1978).

    true = (measured + specificity - 1) / (sensitivity + specificity - 1), clipped to [0, 1]. The interval uses the
    delta method with adjusted counts of all three samples (Lang and Reiczigel, Preventive Veterinary Medicine 113,
    2014).

    Args:
        measured: the rate according to the judge.
        judge: the judge's accuracy.

    Returns:
        The corrected rate; unknown (NaN, [0, 1]) if the judge is no better than chance or was not measured.
    """
    z = float(norm.ppf(0.975))
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
