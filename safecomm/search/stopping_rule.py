"""Racing: a point stops early where it is as good as certain that it will not be recommended.

Points are measured in rungs, on growing parts of the search split, all on the same prompts. As in other multi-objective
races (S-Race; Zhang, Georgiopoulos, Anagnostopoulos, GECCO 2013) pairs are compared by exact paired tests, corrected by
Bonferroni. "Better" is domination under a constraint (Deb et al., IEEE Trans. Evol. Comput. 6, 2002, definition 1):
what keeps the target attack success beats what does not; above the target the lower attack success is better, below it
the higher task accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, binom

from safecomm.data.rows import Prompt
from safecomm.data.splits import place
from safecomm.serving.stream import ID
from safecomm.statistics.domain import TELECOM, Domain
from safecomm.statistics.metric_table import ACCURACY, ASR, METRICS, OVER_REFUSAL
from safecomm.storage.own_code import is_dotted, load, refuse

PromptOutcomes = dict[str, NDArray[np.float64]]
"""Kind of benchmark -> a number a question: 1 with the counted verdict, 0 with the other, NaN without one."""


def first(prompts: Sequence[Prompt], share: float) -> list[Prompt]:
    """Returns a part of the prompts with its share of every benchmark and category; a larger share only adds to it."""
    strata: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in prompts:
        strata.setdefault((prompt.benchmark, prompt.category), []).append(prompt)
    chosen = set()
    for name, members in strata.items():
        ranked = sorted(members, key=lambda prompt: place("rung", prompt.prompt_id))
        start = place("stratum", "\n".join(name))  # or strata of one prompt would all come last
        chosen |= {prompt.prompt_id for rank, prompt in enumerate(ranked) if (rank + start) / len(ranked) < share}
    return [prompt for prompt in prompts if prompt.prompt_id in chosen]


def verdicts(rows: pd.DataFrame) -> "dict[str, pd.Series[float]]":
    """Returns, by kind of benchmark, question -> 1 with the counted verdict, 0 with the other, NaN without one.

    Args:
        rows: an evaluation's, with the columns `question_id`, `kind` and `verdict`.
    """
    return {
        metric.kind: rows[rows["kind"] == metric.kind].set_index(ID)["verdict"].map({metric.hit: 1.0, metric.miss: 0.0})
        for metric in METRICS
    }


@dataclass(frozen=True)
class Rule:
    """When a point stops.

    Over all looks and rivals the best point of a race, the one that `recommend` would choose if every rate were known,
    stops with at most the probability `level`: half of it for taking the point itself to miss the target, half for
    taking one of its rivals to be better. Prompts of all benchmarks of a kind count alike.
    """

    target_asr: float
    level: float
    """1 - confidence."""
    looks: int
    """How often a point may stop."""
    rivals: int
    """The most points that one is compared with."""
    domain: Domain = TELECOM
    """The sweep's, for the reasons."""

    def loses(self, ours: PromptOutcomes, rival: PromptOutcomes) -> str:
        """Returns why a point stops in view of a rival on the same questions; empty if it goes on."""
        own, paired = self.level / 2 / self.looks, self.level / 2 / (self.looks * self.rivals)
        attack, task = ASR.words(self.domain), ACCURACY.words(self.domain)
        if _lower(ours[ASR.kind], own) > self.target_asr and _excess(ours, rival, ASR.kind) <= paired:
            return f"{attack} is above the target and higher than that of"
        within = _upper(rival[ASR.kind], paired) <= self.target_asr
        if within and _excess(rival, ours, ACCURACY.kind) <= paired and _no_shyer(rival, ours):
            return f"{task} is lower, at an {attack} within the target, than that of"
        return ""


class StoppingRule(Protocol):
    """Decides which points of a race stop. A class of a user's own is made as `Rule` is, with the same arguments."""

    def loses(self, ours: PromptOutcomes, rival: PromptOutcomes) -> str:
        """Returns why a point stops in view of a rival on the same questions; empty if it goes on."""
        ...


RULES: dict[str, Callable[[float, float, int, int, Domain], StoppingRule]] = {"paired": Rule}


def rule_of(name: str, target_asr: float, level: float, looks: int, rivals: int, domain: Domain) -> StoppingRule:
    """Returns a stopping rule.

    Args:
        name: a name of `RULES`, or the dotted name of a user's own.
        target_asr: the attack success that a recommended point keeps.
        level: 1 - confidence.
        looks: how often a point may stop.
        rivals: the most points that one is compared with.
        domain: the sweep's, for the reasons.

    Raises:
        UsageError: where a user's own has no `loses`.
    """
    if not is_dotted(name):
        return RULES[name](target_asr, level, looks, rivals, domain)
    rule = load(name)(target_asr, level, looks, rivals, domain)
    if not callable(getattr(rule, "loses", None)):
        raise refuse(name, "is no stopping rule; give it a method loses(self, ours, rival) -> str")
    return cast(StoppingRule, rule)


def _excess(one: PromptOutcomes, other: PromptOutcomes, kind: str) -> float:
    """Returns McNemar's exact one-sided p-value for the first having more hits."""
    difference = one[kind] - other[kind]  # NaN where either has no verdict
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return _tail(gained, gained + lost)


def _no_shyer(one: PromptOutcomes, other: PromptOutcomes) -> bool:
    """Tells whether the first refuses no more harmless prompts than the second."""
    return bool(np.nansum(one[OVER_REFUSAL.kind] - other[OVER_REFUSAL.kind]) <= 0)


@lru_cache(maxsize=100_000)
def _tail(hits: int, n: int) -> float:
    return float(binom.sf(hits - 1, n, 0.5)) if n else 1.0


def _lower(hits: NDArray[np.float64], level: float) -> float:
    """Returns the exact one-sided lower bound of a rate (Clopper and Pearson, Biometrika 26, 1934)."""
    return _bound(int((hits == 1).sum()), int((~np.isnan(hits)).sum()), level)


def _upper(hits: NDArray[np.float64], level: float) -> float:
    return 1 - _lower(1 - hits, level)


@lru_cache(maxsize=100_000)
def _bound(hits: int, n: int, level: float) -> float:
    return float(beta.ppf(level, hits, n - hits + 1)) if hits else 0.0
