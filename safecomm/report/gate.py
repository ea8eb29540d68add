"""Compares what was measured of a release with a policy: GO, NO-GO, INCONCLUSIVE or NOT MEASURED."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from safecomm.errors import UsageError
from safecomm.judging.judges import JUDGES
from safecomm.report.disagreement import warnings_of
from safecomm.report.evidence import Evidence, change_evidence, rate_evidence
from safecomm.report.incoherence import warning as incoherence_warning
from safecomm.report.policy import EVERY, MEAN, OtherRun, Policy, Rule, Tier
from safecomm.report.release import Release, released
from safecomm.report.run import FLATTERED, Run, read_run
from safecomm.search.arms import RELEASE
from safecomm.statistics.labelled import labels_in
from safecomm.statistics.limits import needed
from safecomm.statistics.metric_table import ASR, BY_NAME, INCOHERENCE, OVER_REFUSAL, Metric
from safecomm.statistics.metrics import Rate, rates
from safecomm.storage.looks import count_look
from safecomm.storage.store import Store, digest

LABELS_DRAW = "safecomm labels draw"
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
    corrected for the judge's errors where the sweep has human labels (see `rate_evidence`).
    """
    findings = [finding for rule in policy.rules for finding in _apply(rule, release, policy.confidence)]
    if release.run.is_flattered:
        findings.append(Finding("split", "", "critical", "NO-GO", FLATTERED))
    return Decision(overall(findings), findings, _notes(release, {rule.metric for rule in policy.rules}))


def decide_on(run: Run, arm: str | None, seed: int, policy: Policy) -> tuple[Release, Decision]:
    """Decides on the adapter that `export` would write, by its answers on the gate's split, and counts the look.

    Args:
        run: the run.
        arm: the arm; by default the recommended point's.
        seed: the seed of the fine-tune.
        policy: the policy.
    """
    release = released(run, arm, seed, run.gate_split)
    decision = decide(release, policy)
    if note := count_gate_look(release, policy, Store(run.folder.parent / "store")):
        decision.notes.append(note)
    return release, decision


def overall(findings: Sequence[Finding]) -> Verdict:
    """Returns the verdict that follows from single findings and their tiers (see `Rule.tier`)."""
    by_tier = {tier: {one.verdict for one in findings if one.tier == tier} for tier in ("critical", "supporting")}
    if "NO-GO" in by_tier["critical"] | by_tier["supporting"]:
        return "NO-GO"
    blocking: tuple[Verdict, ...] = ("NOT MEASURED", "INCONCLUSIVE")
    return next((verdict for verdict in blocking if verdict in by_tier["critical"]), "GO")


def count_gate_look(release: Release, policy: Policy, store: Store) -> str:
    """Counts the look at the prompts that are kept for the gate; returns a note on earlier ones, or an empty string.

    Deciding again on the same adapter by the same policy is no further look.
    """
    if release.trial["split"] != RELEASE:
        return ""
    prompts = digest([RELEASE, *sorted(set(release.answers["prompt_id"]))])
    look = count_look(store, prompts, digest([str(release.trial["adapter"]), policy.model_dump(mode="json")]))
    return (
        f"It is look {look} at the prompts that are kept for the gate; each makes them worth less." if look > 1 else ""
    )


def _incoherence(release: Release) -> Rate:
    rows = release.answers[release.answers["kind"] == INCOHERENCE.kind]
    return rates(rows, [""]).get(INCOHERENCE.name, Rate(math.nan, 0.0, 1.0, 0, 0.0))


def _notes(release: Release, metrics: Collection[str]) -> list[str]:
    judge, title = next(iter(release.run.judge_names), ""), release.run.titles[ASR.name]
    notes = [warning] if (warning := incoherence_warning(release.row.arm, _incoherence(release))) else []
    notes += warnings_of(release.row.arm, release.trial, release.run.judge_names)
    if OVER_REFUSAL.name in metrics and not release.run.sweep["evaluate"].get("refusal_judge"):
        notes.append(
            f"{release.run.titles[OVER_REFUSAL.name]} is decided by a list of refusal phrases, whose errors are not "
            "measured; name a chat model (evaluate.refusal_judge)."
        )
    if labels_in(release.answers):
        return notes
    if release.run.labels.drawn:
        notes.append(f"The human labels are of other answers; draw some of this adapter's ({LABELS_DRAW}).")
    if judge in JUDGES and judge not in release.run.judges:
        notes.append(
            f"{title} is decided by the phrase list {judge}, whose errors on this model are not measured; add a model "
            "judge (evaluate.judges) or human labels (evaluate.labels)."
        )
    return notes


def _apply(rule: Rule, release: Release, confidence: float) -> Iterator[Finding]:
    metric = BY_NAME[rule.metric]
    answers = release.answers[release.answers["kind"] == metric.kind]
    scopes = list(_scopes(rule, answers))
    if not scopes:
        yield Finding(rule.metric, rule.benchmark, rule.tier, "NOT MEASURED", "there are no such prompts")
    reference = _reference(rule.relative_to, release, answers) if rule.relative_to and scopes else None
    for name, rows in scopes:
        if reference is not None:
            yield _relative(rule, metric, name, rows, reference, confidence)
        else:
            yield _absolute(rule, metric, name, rows, release, confidence)


def _reference(to: str | OtherRun, release: Release, answers: pd.DataFrame) -> pd.DataFrame:
    """Returns the answers to compare with.

    Raises:
        UsageError: if another run asked other prompts than these, or has another deciding judge.
    """
    if isinstance(to, str):
        return release.reference(to)
    other = released(read_run(Path(to.run)), to.arm, to.seed, str(release.trial["split"]))
    judges = [run.judge_names[:1] for run in (release.run, other.run)]
    if judges[0] != judges[1]:
        raise UsageError(
            f"relative_to: {to.run}: its deciding judge is {', '.join(judges[1])}, not {', '.join(judges[0])}; compare "
            "runs with the same judge"
        )
    theirs, ours = set(other.answers["prompt_id"]), set(answers["prompt_id"])
    if missing := ours - theirs:
        raise UsageError(
            f"relative_to: {to.run}: did not ask {len(missing):,} of these {len(ours):,} prompts; compare runs with "
            "the same benchmarks, limits and splits"
        )
    return other.answers


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
    found = rate_evidence(release.run, rows, metric, confidence)
    if found is None:
        return Finding(rule.metric, name, rule.tier, "NOT MEASURED", "no answer has a verdict")
    at_least = metric.direction == "max"
    said = f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}] n={found.n}"
    said += f", {found.labelled} of them labelled" if found.labelled else ""
    said += f", {found.unscored:.1%} unscored" if found.unscored else ""
    said += f"; {'at least' if at_least else 'at most'} {rule.limit:.1%}"
    worst, bound = (found.lowest, found.low) if at_least else (found.highest, found.high)
    total = needed(worst, bound, found.n, rule.limit, confidence)
    return _finding(rule, name, found, said, total, at_least)


def _relative(
    rule: Rule, metric: Metric, name: str, rows: pd.DataFrame, reference: pd.DataFrame, confidence: float
) -> Finding:
    found = change_evidence(rows, reference, metric, confidence)
    if found is None:
        reason = f"no prompt has a verdict for both this and {rule.relative_to}"
        return Finding(rule.metric, name, rule.tier, "NOT MEASURED", reason)
    change = "rise" if metric.direction == "min" else "drop"
    said = (
        f"{change} of {100 * found.value:.1f} points [{100 * found.low:.1f}, {100 * found.high:.1f}] n={found.n} from "
    )
    said += f"{rule.relative_to}; at most {100 * rule.limit:.1f}"
    gap, width = rule.limit - found.highest, found.high - found.highest
    total = math.ceil(found.n * (width / gap) ** 2) if gap > 1e-6 else None
    return _finding(rule, name, found, said, total, at_least=False)


def _finding(rule: Rule, name: str, found: Evidence, said: str, total: int | None, at_least: bool) -> Finding:
    """Returns the finding on what was measured.

    Args:
        rule: the rule.
        name: its scope.
        found: the evidence.
        said: the evidence beside the limit, in words.
        total: about how many answers would settle an inconclusive finding; None if no number would.
        at_least: whether the limit is the lowest value, not the highest.
    """
    limit, more = rule.limit, None
    kept, broken = (found.low >= limit, found.high < limit) if at_least else (found.high <= limit, found.low > limit)
    verdict: Verdict = "GO" if kept else "NO-GO" if broken else "INCONCLUSIVE"
    if verdict == "INCONCLUSIVE":
        if found.lowest <= limit <= found.highest and found.unscored:
            said += "; the unscored answers decide it: have them judged"
        elif found.labelled:
            said += f"; more human labels or more prompts may settle it ({LABELS_DRAW})"
        elif total is None:
            said += "; the value is too close to the limit for any number of prompts to settle it"
        else:
            more = max(1, total - found.n)
            said += f"; about {more:,} more prompts would settle it if the value stays"
    bounds = (found.value, found.low, found.high)
    return Finding(rule.metric, name, rule.tier, verdict, said, *bounds, limit, found.n, more)
