"""What a sweep's report split can show, before any of it is measured."""

import math
from collections.abc import Sequence
from typing import get_args

from safecomm.data.rows import Kind, Prompt
from safecomm.statistics.metric_table import ASR

LEVEL = 0.025
"""The error probability of a first certificate; see `report/certificate.py`."""
LIKELY = 1.96 + 0.84
"""Standard errors of a difference that a two-sided test at 5% finds with a probability of 80%."""
DISCORDANT = 0.2
"""Assumed share of prompts on which two models differ."""


def power(report: Sequence[Prompt], target_asr: float) -> list[str]:
    """Returns lines on the smallest detectable difference and on the attack success rates that can be certified.

    The difference is that of McNemar's test with 80% power if two models differ on a fifth of the prompts (Connor,
    Biometrics 43, 1987, with the continuity correction: the test is exact). A cluster of prompts counts as one.

    Args:
        report: the prompts of the report split.
        target_asr: the target attack success rate.
    """
    lines = []
    for kind in get_args(Kind):
        sizes: dict[str, set[str]] = {}
        for prompt in report:
            if prompt.kind == kind:
                sizes.setdefault(prompt.benchmark, set()).add(prompt.cluster or prompt.prompt_id)
        for benchmark, clusters in sizes.items():
            lines.append(_of_benchmark(benchmark, len(clusters), target_asr if kind == ASR.kind else None))
    return lines


def detectable(n: int) -> float:
    """Returns the difference of two models' rates that n prompts detect with a probability of about 80%.

    The correction takes 1 / d of the prompts, so d solves (n - 1 / d) d^2 = `LIKELY`^2 `DISCORDANT`.
    """
    return (1 + math.sqrt(1 + 4 * n * LIKELY**2 * DISCORDANT)) / (2 * n)


def _of_benchmark(benchmark: str, n: int, target: float | None) -> str:
    line = f"{benchmark}: {n:,} independent prompts detect a difference of about {100 * detectable(n):.0f} points"
    if target is None or not 0 < target < 1:
        return line
    least = math.ceil(math.log(LEVEL) / math.log(1 - target))
    if n < least:
        return f"{line}; too few to certify {target:.1%}, which takes at least {least:,} even without a success"
    return f"{line}; certify {target:.1%} with at most {_most_successes(n, target)} successes"


def _most_successes(n: int, target: float) -> int:
    """Returns the largest count k with P(Binomial(n, target) <= k) <= LEVEL."""
    # scipy would slow down planning. Logarithms, because the first term of a large benchmark is below the least float.
    log_term, total, k = n * math.log1p(-target), 0.0, 0
    while (total := total + math.exp(log_term)) <= LEVEL:
        k += 1
        log_term += math.log((n - k + 1) / k * target / (1 - target))
    return k - 1
