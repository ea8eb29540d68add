"""SafeInstruct: safety examples mixed into the task data (Bianchi et al., arXiv 2309.07875)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from safecomm.data.rows import FORMER_TASK, Example
from safecomm.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixture:
    """A training set, and what was drawn for it."""

    examples: list[Example]
    """Task and safety examples in the order of training."""
    task: int
    """Task examples."""
    safety: int
    """Safety examples."""
    ratio: float
    """Safety examples asked for per task example."""
    seed: int
    """Seed of the order and of the draw."""


def mix(task: Sequence[Example], safety: Sequence[Example], ratio: float, seed: int) -> Mixture:
    """Mixes round(ratio * len(task)) safety examples into the task examples.

    They are drawn without replacement among the distinct ones. For one seed a larger ratio only adds to what a smaller
    one gives: the same safety examples are drawn first, and everything keeps its place relative to everything else. So
    two ratios differ in nothing but the examples added.

    Args:
        task: all are used.
        safety: the pool; may be empty where the ratio is 0.
        ratio: safety examples per task example, 0 for none.
        seed: of the order and of the draw.

    Raises:
        DataError: where the pool has too few distinct examples.
    """
    if not 0 <= ratio < math.inf:
        raise DataError(f"the ratio of safety examples must be 0 or more, not {ratio}")
    pool = list(dict.fromkeys(safety))
    count = round(ratio * len(task))
    if count > len(pool):
        largest = math.floor(len(pool) / len(task) * 10_000) / 10_000
        raise DataError(
            f"ratio {ratio:g} of {len(task)} task examples asks for {count} safety examples, but there are "
            f"{len(pool)} distinct ones; use a ratio of at most {largest:g}, or a larger safety dataset"
        )
    drawn = random.Random(f"{seed} draw").sample(pool, len(pool))[:count]
    # The seed still says what it said when the first results were stored: another would give another order.
    placed = _placed(task, f"{seed} {FORMER_TASK}") + _placed(drawn, f"{seed} safety")
    placed.sort(key=lambda entry: entry[0])
    return Mixture([example for _, example in placed], len(task), count, ratio, seed)


def _placed(examples: Sequence[Example], seed: str) -> list[tuple[float, Example]]:
    """Gives every example a random place in the order; those that follow don't change it."""
    generator = random.Random(seed)
    return [(generator.random(), example) for example in examples]
