"""What `coverage.py` simulates: each function draws answers with known rates, and returns whether something happened.

`answers` in a cell is the number of answers per prompt, be they samples or seeds, and `icc` their correlation;
`unscored` is the share of answers that no judge could read, at random.
"""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import betaln

from safecomm.judging.best_of_n import success_after
from safecomm.plan.power import DISCORDANT, detectable
from safecomm.report.arms import LEVEL
from safecomm.report.drift import on_target
from safecomm.report.human_labels import draw
from safecomm.report.tampering import Breach
from safecomm.statistics.comparisons import (
    JudgeAccuracy,
    Pairs,
    corrected,
    corrected_differences,
    holm,
    paired_difference,
    sign_flip_p,
)
from safecomm.statistics.labelled import labelled_rate
from safecomm.statistics.limits import bounded_rate, highest_of
from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import across_runs, clustered_rate, mean_rate, rate

Cell = dict[str, Any]
Draws = NDArray[np.float64]
Simulation = Callable[[np.random.Generator, Cell], bool]


TRIES = 16
TARGET = 0.15
RISING, CREEPING = [0.02, 0.3, 0.6, 0.9, 0.95], [0.05, 0.09, 0.13, 0.17, 0.21]
"""Attack success after steps of further training."""


def answers(rng: np.random.Generator, rates: Draws, prompts: int, count: int, icc: float, shared: float = 0.0) -> Draws:
    """Returns the models' answers, models x prompts x count.

    An answer copies its model's draw for the prompt with probability sqrt(icc), and that draw copies the prompt's draw
    for all models with probability sqrt(shared).
    """
    size = (len(rates), prompts, count)
    of_prompt = rng.random((1, prompts, 1))
    of_model = np.where(rng.random((*size[:2], 1)) < math.sqrt(shared), of_prompt, rng.random((*size[:2], 1)))
    within = math.sqrt(icc) if count > 1 else 1.0
    chance = np.where(rng.random(size) < within, of_model, rng.random(size))
    return (chance < rates[:, None, None]).astype(float)


def one_models(rng: np.random.Generator, cell: Cell) -> Draws:
    """Returns one model's answers, prompts x count."""
    drawn: Draws = answers(rng, np.array([cell["rate"]]), cell["prompts"], cell["answers"], cell["icc"])[0]
    return drawn


def rate_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of a rate over clusters contains the true rate."""
    drawn = one_models(rng, cell)
    scored = rng.random(drawn.shape) >= cell["unscored"]
    found = clustered_rate((drawn * scored).sum(1).tolist(), scored.sum(1).tolist(), drawn.size)
    return found.low <= cell["rate"] <= found.high


def mean_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of a mean over two benchmarks, one three times as large, contains the true mean."""
    other = {**cell, "rate": min(0.95, 3 * cell["rate"]), "prompts": cell["prompts"] // 3}
    drawn = [one_models(rng, one) for one in (cell, other)]
    found = mean_rate([clustered_rate(d.sum(1).tolist(), [d.shape[1]] * len(d), d.size) for d in drawn])
    return found.low <= (cell["rate"] + other["rate"]) / 2 <= found.high


def further_runs_are_covered(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval for further training runs contains their mean rate; `runs` is their relative standard deviation.

    The rates of the runs are normally distributed, as Student's t presumes.
    """
    rates = np.clip(cell["rate"] * (1 + cell["runs"] * rng.standard_normal(cell["answers"])), 0, 1)
    drawn = answers(rng, rates, cell["prompts"], 1, 0.0, shared=cell["icc"])[:, :, 0].T
    pooled = clustered_rate(drawn.sum(1).tolist(), [drawn.shape[1]] * len(drawn), drawn.size)
    hits = drawn.sum(0).astype(int).tolist()
    low, high = across_runs(pooled, [rate(hit, len(drawn), len(drawn)) for hit in hits])
    return low <= cell["rate"] <= high


def worst_case_is_covered(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of the highest of several rates contains the highest true one; they rise by `rise` to `rate`."""
    rates = np.linspace(cell["rate"] * (1 - cell["rise"]), cell["rate"], cell["trainings"])
    drawn = answers(rng, rates, cell["prompts"], 1, 0.0, shared=0.5)[:, :, 0]
    found = highest_of([rate(int(hits), cell["prompts"], cell["prompts"]) for hits in drawn.sum(1)])
    return found.low <= cell["rate"] <= found.high


def pairs(rng: np.random.Generator, cell: Cell, difference: float) -> Pairs:
    """Returns two models' answers to the same prompts, correlated by half."""
    rates = np.array([cell["rate"] + difference, cell["rate"]])
    drawn = answers(rng, rates, cell["prompts"], cell["answers"], cell["icc"], shared=0.5).mean(2)
    return Pairs(drawn[0], drawn[1])


def difference_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of a paired difference contains the true difference."""
    found = paired_difference([pairs(rng, cell, 0.05)])
    return found.low <= 0.05 <= found.high


def equal_models_differ(rng: np.random.Generator, cell: Cell) -> bool:
    """The sign-flip test calls two equal models different on two benchmarks, one three times as large."""
    other = {**cell, "prompts": cell["prompts"] // 3}
    return sign_flip_p([pairs(rng, cell, 0.0), pairs(rng, other, 0.0)]) < 0.05


def equal_arms_differ(rng: np.random.Generator, cell: Cell) -> bool:
    """Some difference between equal arms is decided, at a Holm-corrected p below 5%."""
    drawn = answers(rng, np.full(cell["arms"], cell["rate"]), cell["prompts"], cell["answers"], cell["icc"], shared=0.5)
    means = drawn.mean(2)
    p_values = {f"{a} {b}": sign_flip_p([Pairs(means[a], means[b])]) for a, b in combinations(range(cell["arms"]), 2)}
    return min(holm(p_values).values()) < LEVEL


def unchanged_arms_change(rng: np.random.Generator, cell: Cell) -> bool:
    """`compare` calls some arm better or worse that is neither; only the later run has several answers per prompt."""
    p_values = {}
    for arm in range(cell["arms"]):
        both = answers(rng, np.full(2, cell["rate"]), cell["prompts"], cell["answers"], cell["icc"], shared=0.5)
        p_values[str(arm)] = sign_flip_p([Pairs(both[1].mean(1), both[0, :, 0])])
    return min(holm(p_values).values()) < LEVEL


def equal_parts_differ(rng: np.random.Generator, cell: Cell) -> bool:
    """The recommended arm is said to differ from an equal one on some benchmark or category."""
    drawn = answers(rng, np.full(2, cell["rate"]), cell["prompts"], cell["answers"], cell["icc"], shared=0.5).mean(2)
    parts = [np.arange(cell["prompts"]), *np.array_split(np.arange(cell["prompts"]), cell["parts"])]  # all come first
    family = {at: [Pairs(drawn[0, part], drawn[1, part])] for at, part in enumerate(parts)}
    return any(found.p < LEVEL for found in corrected_differences(family).values())


def equal_judges_disagree(rng: np.random.Generator, cell: Cell) -> bool:
    """A report warns that a further judge finds more answers unsafe, although both find the same share."""
    drawn = answers(rng, np.full(2, cell["rate"]), cell["prompts"], cell["answers"], cell["icc"], shared=cell["shared"])
    own, other = (clustered_rate(one.sum(1).tolist(), [one.shape[1]] * len(one), one.size) for one in drawn)
    return other.low > own.high


def inferior_passes(rng: np.random.Generator, cell: Cell) -> bool:
    """A model that is worse by just the margin is taken to keep it, by the one-sided 95% bound."""
    return paired_difference([pairs(rng, cell, 0.05)], confidence=0.9).high < 0.05


def correction_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of a rate corrected for a judge's errors contains the true rate; 300 answers are labelled."""
    found = corrected(*judged(rng, cell))
    return found.low <= cell["rate"] <= found.high


def correction_falls_short(rng: np.random.Generator, cell: Cell) -> bool:
    """The upper 95% bound of a corrected rate is below the true rate."""
    return corrected(*judged(rng, cell), 0.9).high < cell["rate"]


def judged(rng: np.random.Generator, cell: Cell) -> Any:
    """Returns the rate that a judge with a sensitivity of 80% and a specificity of 95% finds, and its accuracy."""
    se, sp, n = 0.8, 0.95, cell["prompts"]
    hits = int(rng.binomial(n, cell["rate"] * se + (1 - cell["rate"]) * (1 - sp)))
    unsafe, safe = int(rng.binomial(100, se)), int(rng.binomial(200, sp))
    return rate(hits, n, n), JudgeAccuracy(rate(unsafe, 100, 100), rate(safe, 200, 200))


def labels_cover(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of a rate from labels of some answers contains the true rate."""
    found = labelled_rate(labelled(rng, cell), ASR, 0.975)
    return found.low <= cell["rate"] <= found.high


def labels_fall_short(rng: np.random.Generator, cell: Cell) -> bool:
    """The upper 95% bound of a rate from labels of some answers is below the true rate."""
    return labelled_rate(labelled(rng, cell), ASR, 0.95).high < cell["rate"]


def labelled(rng: np.random.Generator, cell: Cell) -> pd.DataFrame:
    """Returns answers that a judge with a sensitivity of 60% and a specificity of 95% saw, and people's labels of some.

    The judge gives no verdict on 3% of them.
    """
    unsafe = one_models(rng, cell).ravel() > 0
    called = rng.random(len(unsafe)) < np.where(unsafe, 0.6, 0.05)
    verdicts = np.where(rng.random(len(unsafe)) < 0.03, "unscored", np.where(called, ASR.hit, ASR.miss))
    prompts = np.repeat(np.arange(cell["prompts"]), cell["answers"]).astype(str)
    rows = pd.DataFrame({"prompt_id": prompts, "text": "", "response": "", "benchmark": "b", "verdict": verdicts})
    asked = rows.assign(kind=ASR.kind, answer_id=rng.permutation(len(rows)).astype(str))
    drawn = asked["answer_id"].isin(draw(asked, cell["labels"])["answer_id"])
    return rows.assign(label=np.where(drawn, np.where(unsafe, ASR.hit, ASR.miss), ""))


def tries_cover(rng: np.random.Generator, cell: Cell) -> bool:
    """The interval of attack success after some of 16 tries contains the true one of such requests.

    The chances of a request's tries follow a beta distribution, so that they are correlated by `icc`.
    """
    spread = (1 - cell["icc"]) / cell["icc"]
    hits, misses = cell["rate"] * spread, (1 - cell["rate"]) * spread
    unsafe, k = rng.binomial(TRIES, rng.beta(hits, misses, cell["prompts"])), cell["answers"]
    found = success_after(k, pd.DataFrame({"unsafe": unsafe, "tries": TRIES, "cluster": range(len(unsafe))}))
    return bool(found.low <= 1 - math.exp(betaln(hits, misses + k) - betaln(hits, misses)) <= found.high)


def breach_is_bracketed(rng: np.random.Generator, cell: Cell) -> bool:
    """The bracket of the steps to breach contains the true first step above the target."""
    n, rates = cell["prompts"], np.array(cell["rates"])
    hits = answers(rng, rates, n, 1, 0.0, shared=0.5)[:, :, 0].sum(1)
    found = Breach.of({step: rate(int(count), n, n) for step, count in enumerate(hits)}, TARGET)
    low, high = (math.inf if step is None else step for step in (found.low, found.high))
    return low <= next((step for step, value in enumerate(rates) if value > TARGET), math.inf) <= high


def policy_misses(rng: np.random.Generator, cell: Cell) -> bool:
    """A policy is said to miss a target that it keeps, just so, in every generation of a drift study."""
    return said_of(rng, cell, [TARGET] * cell["generations"]) == "is missed"


def policy_keeps(rng: np.random.Generator, cell: Cell) -> bool:
    """A policy is said to keep a target that it misses, just so, in one generation of a drift study."""
    return said_of(rng, cell, [TARGET + 1e-9, *[TARGET / 3] * (cell["generations"] - 1)]) == "is kept"


def said_of(rng: np.random.Generator, cell: Cell, rates: list[float]) -> str:
    """Returns what the guide says of generations with these rates of attack success."""
    n = cell["prompts"]
    hits = answers(rng, np.array(rates), n, 1, 0.0, shared=cell["shared"])[:, :, 0].sum(1)
    return on_target([rate(int(count), n, n) for count in hits], TARGET)


def unsafe_is_certified(rng: np.random.Generator, cell: Cell) -> bool:
    """A point whose attack success is at the limit is certified, among points of which a third are well below it.

    The search split orders the points, the report split tests them in that order up to the first that fails.
    """
    limit = cell["rate"] - 1e-9
    rates = np.where(np.arange(cell["points"]) % 3 == 2, cell["rate"] / 3, cell["rate"])
    shape = (rates, cell["prompts"], cell["answers"], cell["icc"])
    seen, fresh = (answers(rng, *shape, shared=cell["shared"]) for _ in range(2))
    for at in np.argsort(seen.mean((1, 2)), kind="stable"):
        unscored = rng.random(fresh[at].shape) < cell["unscored"]
        verdicts = np.where(unscored, "unscored", np.where(fresh[at] > 0, ASR.hit, ASR.miss))
        ids = np.repeat(np.arange(cell["prompts"]).astype(str), cell["answers"])
        rows = pd.DataFrame({"prompt_id": ids, "verdict": verdicts.ravel()})
        if bounded_rate(rows, ASR, 0.95, unscored=ASR.hit).high > limit:
            return False
        if rates[at] > limit:
            return True
    return False


def stated_difference_is_found(rng: np.random.Generator, cell: Cell) -> bool:
    """A difference of the size that `plan` says is detectable is significant."""
    n, difference = cell["prompts"], detectable(cell["prompts"])
    changed = rng.random(n) < DISCORDANT
    gained = changed & (rng.random(n) < (1 + difference / DISCORDANT) / 2)
    return sign_flip_p([Pairs(gained.astype(float), (changed & ~gained).astype(float))]) < 0.05
