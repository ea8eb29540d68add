"""Compares the arms: paired tests on the report split, which differences they decide, and hypervolumes."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.pareto import hypervolume
from safecomm.report.points import rows_of
from safecomm.report.release import answers_of
from safecomm.report.run import Headline, Run, rate_in_words
from safecomm.spec import ORIGINAL, REFERENCE_ARMS
from safecomm.statistics.comparisons import Pairs, RateDifference, corrected_differences
from safecomm.statistics.metric_table import BY_NAME

LEVEL = 0.05
"""The family-wise error of the decisions about one metric."""


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two models on the prompts that both answered."""

    metric: str
    difference: RateDifference
    """The first rate minus the second; p is Holm-corrected over the comparisons that belong together."""
    more: int
    """Prompts, in their clusters, on which the first rate is higher."""
    fewer: int
    """Those on which it is lower."""

    @property
    def is_decided(self) -> bool:
        """Whether the models differ on other prompts of this kind, too, with a family-wise error of 5%."""
        return self.difference.p < LEVEL


@dataclass(frozen=True)
class ArmDifference(PairedDifference):
    """The difference between two arms' best points on the report split."""

    first: str
    second: str

    @property
    def better(self) -> str:
        """The arm with the better rate of these two."""
        is_lower = self.difference.value < 0
        return self.first if is_lower == (BY_NAME[self.metric].direction == "min") else self.second

    @property
    def worse(self) -> str:
        """The other one."""
        return self.second if self.better == self.first else self.first


def arm_answers(run: Run, rows: Sequence[Headline]) -> dict[str, pd.DataFrame]:
    """Returns the judged answers of every headline row by arm, without those that are gone.

    Empty if the rates are made up, or if the settings were chosen on the same prompts: nothing can be
    tested then.
    """
    if run.warnings:
        return {}
    found = {}
    for row in rows:
        with suppress(UsageError):
            found[row.arm] = answers_of_row(run, row)
    return found


def arm_differences(run: Run, answers: Mapping[str, pd.DataFrame]) -> list[ArmDifference]:
    """Returns the differences between all pairs of arms but the original model, metric by metric.

    Each arm is represented by the point that would be recommended from it alone under the sweep's target. With several
    seeds, a prompt's answers of all seeds are averaged.

    Args:
        run: the run.
        answers: see `arm_answers`.
    """
    arms = [arm for arm in answers if arm != ORIGINAL]
    found: list[ArmDifference] = []
    for metric in run.metrics:
        pairs = {(a, b): paired(answers[a], answers[b], BY_NAME[metric]) for a, b in combinations(arms, 2)}
        differences = corrected_differences(pairs).items()
        found += [ArmDifference(metric, one, *changed(pairs[names]), *names) for names, one in differences]
    return found


def changed(pairs: Sequence[Pairs]) -> tuple[int, int]:
    """Returns the clusters in which the first rate is higher, and those in which it is lower."""
    more = sum(int((one.ours > one.reference).sum()) for one in pairs)
    return more, sum(int((one.ours < one.reference).sum()) for one in pairs)


def ranking(run: Run, rows: Sequence[Headline], differences: Sequence[ArmDifference]) -> list[str]:
    """Returns a sentence per metric: the arms from the best to the worst, and which differences are decided."""
    return [sentence for metric in run.metrics if (sentence := _ranked(run, metric, rows, differences))]


def _ranked(run: Run, metric: str, rows: Sequence[Headline], differences: Sequence[ArmDifference]) -> str:
    """Returns a metric's sentence; an arm without a rate has no place in it."""
    found = [one for one in differences if one.metric == metric]
    compared = {arm for one in found for arm in (one.first, one.second)}
    rates = {row.arm: row.rates[metric] for row in rows if row.arm in compared}
    sign = 1 if BY_NAME[metric].direction == "min" else -1
    known = [arm for arm, rate in rates.items() if not math.isnan(rate.value)]
    ranked = sorted(known, key=lambda arm: sign * rates[arm].value)
    if len(ranked) < 2:
        return ""
    places = ", ".join(f"{arm} {rate_in_words(rates[arm])}" for arm in ranked)
    decided = [one for one in found if one.is_decided and {one.better, one.worse} <= set(ranked)]
    return f"{run.titles[metric]}, best first: {places}. {_decided(decided, ranked)}"


def _decided(decided: Sequence[ArmDifference], ranked: Sequence[str]) -> str:
    """Returns which arms are better than which others, and which pairs are left open."""
    if not decided:
        return "No difference is decided."
    groups: dict[str, list[str]] = {}  # the arms that are better than the same others
    for arm in ranked:
        if worse := [one.worse for one in decided if one.better == arm]:
            groups.setdefault(_listed(worse, ranked), []).append(arm)
    better = "; ".join(
        f"{_listed(arms, ranked)} {'is' if len(arms) == 1 else 'are each'} better than {others}"
        for others, arms in groups.items()
    )
    pairs = [{one.better, one.worse} for one in decided]
    left = ", ".join(f"{a} and {b}" for a, b in combinations(ranked, 2) if {a, b} not in pairs)
    return f"Decided on the prompts that both answered: {better}." + (f" Not decided: {left}." if left else "")


def _listed(arms: Sequence[str], ranked: Sequence[str]) -> str:
    *first, last = sorted(arms, key=ranked.index)
    return f"{', '.join(first)} and {last}" if first else last


def hypervolumes(run: Run) -> dict[str, float]:
    """Returns the hypervolume of each arm's own points; empty if the sweep repeats no paper."""
    if not run.sweep.get("paper"):
        return {}
    objectives, arms = run.sweep["search"]["objectives"], [arm for arm in run.arms if arm not in REFERENCE_ARMS]
    found = {arm: hypervolume(run.points, objectives, [arm]) for arm in arms}
    return {arm: volume for arm, volume in found.items() if volume is not None}


def difference_in_words(found: RateDifference) -> str:
    """Returns a difference in points as `-4.0 [-7.2, -0.9] n=216, p=0.012`."""
    bounds = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{bounds} n={found.n}, p={found.p:.2g}"


def answers_of_row(run: Run, row: Headline) -> pd.DataFrame:
    """Returns the judged answers of all seeds of a headline row.

    Raises:
        UsageError: if they are gone from the store.
    """
    trials = rows_of(run.trials_of(row.arm, row.point, "report"))
    return pd.concat([answers_of(run, trial) for trial in trials], ignore_index=True)
