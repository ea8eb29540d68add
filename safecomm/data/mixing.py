"""SafeInstruct: safety examples mixed into the telecom data (Bianchi et al., arXiv 2309.07875)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from safecomm.data.rows import Example
from safecomm.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixture:
    """A training set, and what was drawn for it."""

    examples: list[Example]
    """Telecom and safety examples in the order of training."""
    telecom: int
    """Telecom examples."""
    safety: int
    """Safety examples."""
    ratio: float
    """Safety examples asked for per telecom example."""
    seed: int
    """Seed of the order and of the draw."""


def mix(telecom: Sequence[Example], safety: Sequence[Example], ratio: float, seed: int) -> Mixture:
    """Mixes round(ratio * len(telecom)) safety examples into the telecom examples.

    They are drawn without replacement among the distinct ones. For one seed a larger ratio only adds to what a smaller
    one gives: the same safety examples are drawn first, and everything keeps its place relative to everything else. So
    two ratios differ in nothing but the examples added.

    Args:
        telecom: all are used.
        safety: the pool; may be empty where the ratio is 0.
        ratio: safety examples per telecom example, 0 for none.
        seed: of the order and of the draw.

    Raises:
        DataError: where the pool has too few distinct examples.
    """
    if not 0 <= ratio < math.inf:
        raise DataError(f"the ratio of safety examples must be 0 or more, not {ratio}")
    pool = list(dict.fromkeys(safety))
    count = round(ratio * len(telecom))
    if count > len(pool):
        largest = math.floor(len(pool) / len(telecom) * 10_000) / 10_000
        raise DataError(
            f"ratio {ratio:g} of {len(telecom)} telecom examples asks for {count} safety examples, but there are "
            f"{len(pool)} distinct ones; use a ratio of at most {largest:g}, or a larger safety dataset"
        )
    drawn = random.Random(f"{seed} draw").sample(pool, len(pool))[:count]
    placed = _placed(telecom, f"{seed} telecom") + _placed(drawn, f"{seed} safety")
    placed.sort(key=lambda entry: entry[0])
    return Mixture([example for _, example in placed], len(telecom), count, ratio, seed)


def _placed(examples: Sequence[Example], seed: str) -> list[tuple[float, Example]]:
    """Gives every example a random place in the order; those that follow don't change it."""
    generator = random.Random(seed)
    return [(generator.random(), example) for example in examples]
