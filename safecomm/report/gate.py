"""Compares what was measured of a release with a policy: GO, NO-GO, INCONCLUSIVE or NOT MEASURED."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from safecomm.judging.judges import JUDGES
from safecomm.judging.results import difference
from safecomm.report.policy import EVERY, MEAN, Policy, Rule, Tier
from safecomm.report.release import Release
from safecomm.report.run import FLATTERED
from safecomm.statistics.comparisons import corrected
from safecomm.statistics.limits import bounded_rate, mean_of, needed
from safecomm.statistics.metric_table import ASR, BY_NAME, Metric
from safecomm.statistics.metrics import Rate

Verdict = Literal["GO", "NO-GO", "INCONCLUSIVE", "NOT MEASURED"]


@dataclass(frozen=True)
class Finding:
    """One rule, applied to one benchmark or category."""

    metric: str
    scope: str
    """The benchmark, with the category if there is one, or `mean`."""
    tier: Tier
    verdict: Verdict
    reason: str
    """The measured value and its bound beside the limit, in words."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """The bounds, with unscored answers at their best and at their worst."""
    limit: float | None = None
    n: int = 0
    more: int | None = None
    """If inconclusive: about how many more prompts would settle it if the value stays; None if no number would."""


@dataclass(frozen=True)
class Decision:
    """The verdict on a release."""

    verdict: Verdict
    findings: list[Finding]
    notes: list[str]
    """What a reader of the verdict has to know about it."""


def decide(release: Release, policy: Policy) -> Decision:
    """Applies a policy to the very adapter that would be released.

    Unscored answers count against a limit when it is to be kept, and for it when it is to be broken. Attack success is
    corrected for the judge's errors where the sweep has human labels (see `corrected`).
    """
    findings = [finding for rule in policy.rules for finding in _apply(rule, release, policy.confidence)]
    if release.run.is_flattered:
        findings.append(Finding("split", "", "critical", "NO-GO", FLATTERED))
    return Decision(overall(findings), findings, _notes(release))


def overall(findings: Sequence[Finding]) -> Verdict:
    """Returns the verdict that follows from single findings and their tiers (see `Rule.tier`)."""
    by_tier = {tier: {one.verdict for one in findings if one.tier == tier} for tier in ("critical", "supporting")}
    if "NO-GO" in by_tier["critical"] | by_tier["supporting"]:
        return "NO-GO"
    blocking: tuple[Verdict, ...] = ("NOT MEASURED", "INCONCLUSIVE")
    return next((verdict for verdict in blocking if verdict in by_tier["critical"]), "GO")


def _notes(release: Release) -> list[str]:
    judge = next(iter(release.run.judge_names), "")
    if judge in JUDGES and judge not in release.run.judges:
        return [
            f"{release.run.titles[ASR.name]} is decided by the phrase list {judge}, whose errors on this model are not "
            "measured; add a model judge (evaluate.judges) or human labels (evaluate.labels)."
        ]
    return []


def _apply(rule: Rule, release: Release, confidence: float) -> Iterator[Finding]:
    metric = BY_NAME[rule.metric]
    answers = release.answers[release.answers["kind"] == metric.kind]
    scopes = list(_scopes(rule, answers))
    if not scopes:
        yield Finding(rule.metric, rule.benchmark, rule.tier, "NOT MEASURED", "there are no such prompts")
    for name, rows in scopes:
        if rule.relative_to:
            yield _relative(rule, metric, name, rows, release, confidence)
        else:
            yield _absolute(rule, metric, name, rows, release, confidence)


def _scopes(rule: Rule, answers: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields what a rule applies to, by name."""
    if rule.benchmark == MEAN:
        if len(answers):
            yield MEAN, answers
        return
    for benchmark, rows in answers.groupby("benchmark"):
        if rule.benchmark not in (EVERY, benchmark):
            continue
        if not rule.category:
            yield str(benchmark), rows
            continue
        for category, part in rows.groupby("category"):
            if rule.category in (EVERY, category):
                yield f"{benchmark}/{category}", part


def _absolute(
    rule: Rule, metric: Metric, name: str, rows: pd.DataFrame, release: Release, confidence: float
) -> Finding:
    low_is_worst = metric.direction == "max"
    low_from, high_from = (_rate(rows, metric, release, confidence, verdict) for verdict in (metric.miss, metric.hit))
    measured = _rate(rows, metric, release, confidence, None)
    value, low, high = measured.value, low_from.low, high_from.high
    if not measured.n or math.isnan(value):
        return Finding(rule.metric, name, rule.tier, "NOT MEASURED", "no answer has a verdict")
    verdict = _verdict(low, high, rule.limit, low_is_worst)
    worst = low_from if low_is_worst else high_from
    more = needed(worst.value, worst.n, rule.limit, confidence) if verdict == "INCONCLUSIVE" else None
    said = f"{value:.1%} [{low:.1%}, {high:.1%}] n={measured.n}"
    said += f", {measured.unscored:.1%} unscored" if measured.unscored else ""
    said += f"; {'at least' if low_is_worst else 'at most'} {rule.limit:.1%}"
    said += _settled(verdict, more, worst.n)
    return Finding(
        rule.metric, name, rule.tier, verdict, said, value, low, high, rule.limit, measured.n, _beyond(more, worst.n)
    )


def _rate(rows: pd.DataFrame, metric: Metric, release: Release, confidence: float, unscored: str | None) -> Rate:
    """Returns the rate of a scope, the mean over its benchmarks, without the deciding judge's errors if known."""
    parts = [bounded_rate(part, metric, confidence, unscored) for _, part in rows.groupby("benchmark")]
    judge = next(iter(release.run.judge_names), "")
    if metric is ASR and judge in release.run.judges:
        parts = [corrected(part, release.run.judges[judge], 2 * confidence - 1) for part in parts]
    return mean_of(parts)


def _relative(
    rule: Rule, metric: Metric, name: str, rows: pd.DataFrame, release: Release, confidence: float
) -> Finding:
    assert rule.relative_to is not None
    reference = release.reference(rule.relative_to)
    sign = 1 if metric.direction == "min" else -1
    worst, best = (metric.hit, metric.miss) if sign > 0 else (metric.miss, metric.hit)
    level = 2 * confidence - 1
    measured = difference(rows, reference, metric, level)
    if measured is None:
        reason = f"no prompt has a verdict for both this and {rule.relative_to}"
        return Finding(rule.metric, name, rule.tier, "NOT MEASURED", reason)
    at_worst = difference(_filled(rows, metric, worst), _filled(reference, metric, best), metric, level) or measured
    at_best = difference(_filled(rows, metric, best), _filled(reference, metric, worst), metric, level) or measured
    value = sign * measured.value + 0.0  # no minus zero
    low = min(sign * at_best.low, sign * at_best.high)
    high = max(sign * at_worst.low, sign * at_worst.high)
    verdict = _verdict(low, high, rule.limit, False)
    change = "rise" if sign > 0 else "drop"
    said = f"{change} of {100 * value:.1f} points [{100 * low:.1f}, {100 * high:.1f}] n={measured.n} from "
    said += f"{rule.relative_to}; at most {100 * rule.limit:.1f}"
    gap = abs(rule.limit - value)
    more = math.ceil(measured.n * (max(high - value, value - low) / gap) ** 2) if gap > 1e-6 else None
    said += _settled(verdict, more, measured.n)
    return Finding(
        rule.metric, name, rule.tier, verdict, said, value, low, high, rule.limit, measured.n, _beyond(more, measured.n)
    )


def _filled(rows: pd.DataFrame, metric: Metric, verdict: str) -> pd.DataFrame:
    """Returns the rows with a verdict for unscored answers."""
    return rows.assign(verdict=rows["verdict"].where(rows["verdict"].isin([metric.hit, metric.miss]), verdict))


def _verdict(low: float, high: float, limit: float, at_least: bool) -> Verdict:
    kept, broken = (low >= limit, high < limit) if at_least else (high <= limit, low > limit)
    return "GO" if kept else "NO-GO" if broken else "INCONCLUSIVE"


def _settled(verdict: Verdict, total: int | None, n: int) -> str:
    if verdict != "INCONCLUSIVE":
        return ""
    if total is None:
        return "; the value is at the limit, so more prompts would not settle it"
    return f"; about {max(1, total - n):,} more prompts would settle it"


def _beyond(total: int | None, n: int) -> int | None:
    return None if total is None else max(1, total - n)
