"""SafeInstruct: safety examples mixed into the task data (Bianchi et al., arXiv 2309.07875)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from safecomm.data.rows import FORMER_TASK, Example
from safecomm.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixture:
    """A training set and its composition."""

    examples: list[Example]
    """Task and safety examples in training order."""
    task: int
    """Task examples."""
    safety: int
    """Safety examples."""
    ratio: float
    """Requested safety examples per task example."""
    seed: int
    """Seed for sampling and shuffling."""


def mix(task: Sequence[Example], safety: Sequence[Example], ratio: float, seed: int) -> Mixture:
    """Mixes round(ratio * len(task)) safety examples into the task examples.

    They are sampled without replacement from the distinct examples. With the same seed, a larger ratio only adds
    examples: it draws the same ones first and keeps the relative order. So two ratios differ only in the added
    examples.

    Args:
        task: the task examples; all are used.
        safety: the pool; may be empty if the ratio is 0.
        ratio: safety examples per task example, 0 for none.
        seed: seed for sampling and shuffling.

    Raises:
        DataError: if the pool has too few distinct examples.
    """
    if not 0 <= ratio < math.inf:
        raise DataError(f"the ratio of safety examples must be 0 or more, not {ratio}")
    pool = list(dict.fromkeys(safety))
    count = round(ratio * len(task))
    if count > len(pool):
        largest = math.floor(len(pool) / len(task) * 10_000) / 10_000
        raise DataError(
            f"ratio {ratio:g} with {len(task)} task examples needs {count} safety examples, but there are only "
            f"{len(pool)} distinct ones; use a ratio of at most {largest:g} or a larger safety dataset"
        )
    drawn = random.Random(f"{seed} draw").sample(pool, len(pool))[:count]
    # The seed still says what it said when the first results were stored: another would give another order.
    placed = _placed(task, f"{seed} {FORMER_TASK}") + _placed(drawn, f"{seed} safety")
    placed.sort(key=lambda entry: entry[0])
    return Mixture([example for _, example in placed], len(task), count, ratio, seed)


def _placed(examples: Sequence[Example], seed: str) -> list[tuple[float, Example]]:
    """Assigns every example a random position, independent of the examples that follow it."""
    generator = random.Random(seed)
    return [(generator.random(), example) for example in examples]
