"""Racing: a point stops early once it is almost certain to be neither the recommended point nor its arm's best.

Points are measured in rungs, on growing parts of the search split, all on the same prompts. Two points of an arm are
compared by the quantities that `recommend` compares: means over benchmarks, with a cluster of prompts as the unit.
"Better" is domination under constraints (Deb et al., IEEE Trans. Evol. Comput. 6, 2002, definition 1): a point within
the target attack success rate and the over-refusal margin beats one that is not. Among points within both, the higher
task accuracy is better; among the others, the lower attack success.

The tests are by betting (Waudby-Smith and Ramdas, JRSS B 86, 2024, section 4.1): every cluster is a bet that is fair
if the hypothesis holds, so the wealth exceeds 1 / level with at most probability `level` (Ville's inequality). This
holds for any share between 0 and 1 in a cluster, so several answers per prompt, wordings and seeds need no assumption
about their correlation. `benchmarks/racing.py` simulates the error rate.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp

from safecomm.data.rows import Prompt
from safecomm.data.splits import place
from safecomm.spec.search import MARGIN
from safecomm.statistics.domain import TELECOM, Domain
from safecomm.statistics.metric_table import ACCURACY, ASR, METRICS, OVER_REFUSAL, Metric
from safecomm.statistics.metrics import clusters_of
from safecomm.storage.own_code import is_dotted, load, refuse

Shares = NDArray[np.float64]
PromptOutcomes = dict[str, dict[str, Shares]]
"""Kind of benchmark -> benchmark -> per cluster of prompts, the share of hits among its scored answers; NaN if none."""
BETS = np.linspace(0.02, 0.98, 25)
"""Stakes as shares of the largest one that can't make the wealth negative; the wealth is the mean over them."""


def first(prompts: Sequence[Prompt], share: float) -> list[Prompt]:
    """Returns the given share of the prompts of every benchmark and category; a larger share contains all smaller ones.

    Clusters of prompts are not split.
    """
    strata: dict[tuple[str, str], dict[str, list[Prompt]]] = {}
    for prompt in prompts:
        stratum = strata.setdefault((prompt.benchmark, prompt.category), {})
        stratum.setdefault(prompt.cluster or prompt.prompt_id, []).append(prompt)
    chosen = set()
    for name, clusters in strata.items():
        ranked = sorted(clusters, key=lambda cluster: place("rung", cluster))
        start = place("stratum", "\n".join(name))  # otherwise all strata of one cluster would come last
        for rank, cluster in enumerate(ranked):
            if (rank + start) / len(ranked) < share:
                chosen |= {prompt.prompt_id for prompt in clusters[cluster]}
    return [prompt for prompt in prompts if prompt.prompt_id in chosen]


def verdicts(rows: pd.DataFrame) -> "dict[str, dict[str, pd.Series[float]]]":
    """Returns, by kind and benchmark, cluster -> share of the counted verdict among its scored answers.

    Args:
        rows: the rows of an evaluation, with `prompt_id`, `benchmark`, `kind`, `verdict` and optionally `cluster`.
    """
    found: dict[str, dict[str, pd.Series[float]]] = {}
    for metric in METRICS:
        of_kind = rows[rows["kind"] == metric.kind]
        hits = of_kind["verdict"].map({metric.hit: 1.0, metric.miss: 0.0}).astype(float)
        shares = hits.groupby([of_kind["benchmark"], clusters_of(of_kind)]).mean()
        found[metric.kind] = {str(name): one.droplevel(0) for name, one in shares.groupby(level=0)}
    return found


@dataclass(frozen=True)
class Rule:
    """Decides when a point stops.

    The best point of an arm, the one that `recommend` would choose if every rate were known, stops with at most
    probability `level` over all looks and rivals: half of it for the error that the point misses the target, half for
    the error that a rival is better.
    """

    target_asr: float
    level: float
    """1 - confidence."""
    looks: int
    """The number of times that a point is tested: once per rung."""
    rivals: int
    """The largest number of points with which one is compared."""
    domain: Domain = TELECOM
    """The sweep's domain, for the reasons."""
    margin: float = MARGIN
    """The largest rise in over-refusal above the original model's that a recommended point may have."""

    def loses(self, ours: PromptOutcomes, rival: PromptOutcomes, original: PromptOutcomes) -> str:
        """Returns why a point stops, compared with a rival on the same prompts; empty if it continues.

        Args:
            ours: the point's outcomes.
            rival: the outcomes of another point of the same arm.
            original: the original model's outcomes; empty if unknown.
        """
        own, paired = (2 * self.looks * tests / self.level for tests in (1, self.rivals))
        attack, task = ASR.words(self.domain), ACCURACY.words(self.domain)
        if _wealth(_sums(ASR, (1, ours)), self.target_asr) >= own and _exceeds(ASR, ours, rival, paired):
            return f"{attack} is above the target and higher than that of"
        within = _wealth(1 - _sums(ASR, (1, rival)), 1 - self.target_asr) >= paired
        if within and _exceeds(ACCURACY, rival, ours, paired) and self._refuses_little(rival, original, paired):
            return f"{task} is lower, at an {attack} within the target, than that of"
        return ""

    def _refuses_little(self, rival: PromptOutcomes, original: PromptOutcomes, needed: float) -> bool:
        """Returns whether a rival's over-refusal exceeds the original's by significantly less than the margin."""
        if not rival[OVER_REFUSAL.kind]:
            return True
        falls = _sums(OVER_REFUSAL, (1, original), (-1, rival))
        return _wealth((falls + 1) / 2, (1 - self.margin) / 2) >= needed


def _exceeds(metric: Metric, one: PromptOutcomes, other: PromptOutcomes, needed: float) -> bool:
    """Returns whether the first point's rate is significantly higher than the second's."""
    return _wealth((_sums(metric, (1, one), (-1, other)) + 1) / 2, 0.5) >= needed


def _sums(metric: Metric, *terms: tuple[int, PromptOutcomes]) -> Shares:
    """Returns draws whose mean is a signed sum of the points' mean rates over benchmarks.

    Every draw averages over benchmarks: each benchmark's clusters are split into as many groups as the smallest
    benchmark has clusters, and a draw uses one group of each. Clusters without a verdict for one of the points are
    omitted.
    """
    benchmarks = [outcomes.get(metric.kind, {}) for _, outcomes in terms]
    names = set.intersection(*(set(one) for one in benchmarks)) if benchmarks else set()
    if not names or any(set(one) != names for one in benchmarks):
        return np.array([])
    signs = [sign for sign, _ in terms]
    values = [np.dot(signs, [one[name] for one in benchmarks]) for name in sorted(names)]
    scored = [value[~np.isnan(value)] for value in values]
    draws = min(len(value) for value in scored)
    if not draws:
        return np.array([])
    groups = [[group.mean() for group in np.array_split(value, draws)] for value in scored]
    return cast(Shares, np.mean(groups, axis=0))


def _wealth(draws: Shares, mean: float) -> float:
    """Returns the wealth from betting that the mean of draws in [0, 1] exceeds the given one; 1 without draws."""
    if not len(draws) or mean >= 1:
        return 1.0
    stakes = BETS / max(mean, 1e-9)
    logs = np.log1p(stakes[:, None] * (draws - mean)).sum(axis=1)
    return math.exp(min(700.0, float(logsumexp(logs)) - math.log(len(BETS))))


class StoppingRule(Protocol):
    """Decides which points of an arm stop. A user's own class is constructed with the arguments of `Rule`."""

    def loses(self, ours: PromptOutcomes, rival: PromptOutcomes, original: PromptOutcomes) -> str:
        """Returns why a point stops, compared with a rival on the same prompts; empty if it continues."""
        ...


RULES: dict[str, Callable[[float, float, int, int, Domain, float], StoppingRule]] = {"paired": Rule}


def rule_of(
    name: str, target_asr: float, level: float, looks: int, rivals: int, domain: Domain, margin: float
) -> StoppingRule:
    """Returns a stopping rule.

    Args:
        name: a key of `RULES`, or the dotted name of a user's own rule.
        target_asr: the highest attack success rate of a recommended point.
        level: 1 - confidence.
        looks: the number of times that a point is tested: once per rung.
        rivals: the largest number of points with which one is compared.
        domain: the sweep's domain, for the reasons.
        margin: the largest rise in over-refusal that a recommended point may have.

    Raises:
        UsageError: if a user's own rule has no `loses`.
    """
    if not is_dotted(name):
        return RULES[name](target_asr, level, looks, rivals, domain, margin)
    rule = load(name)(target_asr, level, looks, rivals, domain, margin)
    if not callable(getattr(rule, "loses", None)):
        raise refuse(name, "is not a stopping rule; define a method loses(self, ours, rival, original) -> str")
    return cast(StoppingRule, rule)


def mean_over_seeds(outcomes: Sequence[PromptOutcomes]) -> PromptOutcomes:
    """Returns the mean of the shares that have a verdict, cluster by cluster; empty without outcomes.

    Args:
        outcomes: those of a point's trials, one per seed, on the same clusters.
    """
    if len(outcomes) < 2:
        return outcomes[0] if outcomes else {}
    return {
        kind: {name: _mean(np.stack([one[kind][name] for one in outcomes])) for name in benchmarks}
        for kind, benchmarks in outcomes[0].items()
    }


def _mean(shares: Shares) -> Shares:
    scored = (~np.isnan(shares)).sum(0)
    mean: Shares = np.full(len(scored), np.nan)
    np.divide(np.nansum(shares, 0), scored, out=mean, where=scored > 0)
    return mean


def aligned(
    outcomes: Mapping[str, "Mapping[str, pd.Series[float]]"], like: "dict[str, dict[str, pd.Series[float]]]"
) -> PromptOutcomes:
    """Returns a point's outcomes on another point's clusters, in their order; NaN for clusters that it lacks."""
    return {
        kind: {
            name: np.asarray(outcomes[kind][name].reindex(clusters.index), dtype=np.float64)
            for name, clusters in benchmarks.items()
            if name in outcomes.get(kind, {})
        }
        for kind, benchmarks in like.items()
    }
