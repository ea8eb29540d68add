"""SafeInstruct: safety examples mixed into the telecom data (Bianchi et al., arXiv 2309.07875)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from safecomm.data.rows import Example
from safecomm.errors import DataError


@dataclass(frozen=True, slots=True)
class Mixture:
    """A training set and its composition."""

    examples: list[Example]
    """Telecom and safety examples in training order."""
    telecom: int
    """Telecom examples."""
    safety: int
    """Safety examples."""
    ratio: float
    """Requested safety examples per telecom example."""
    seed: int
    """Seed for sampling and shuffling."""


def mix(telecom: Sequence[Example], safety: Sequence[Example], ratio: float, seed: int) -> Mixture:
    """Mixes round(ratio * len(telecom)) safety examples into the telecom examples.

    They are sampled without replacement from the distinct examples. With the same seed, a larger ratio only adds
    examples: it draws the same ones first and keeps the relative order. So two ratios differ only in the added
    examples.

    Args:
        telecom: the task examples; all are used.
        safety: the pool; may be empty if the ratio is 0.
        ratio: safety examples per telecom example, 0 for none.
        seed: seed for sampling and shuffling.

    Raises:
        DataError: if the pool has too few distinct examples.
    """
    if not 0 <= ratio < math.inf:
        raise DataError(f"the ratio of safety examples must be 0 or more, not {ratio}")
    pool = list(dict.fromkeys(safety))
    count = round(ratio * len(telecom))
    if count > len(pool):
        largest = math.floor(len(pool) / len(telecom) * 10_000) / 10_000
        raise DataError(
            f"ratio {ratio:g} with {len(telecom)} telecom examples needs {count} safety examples, but there are only "
            f"{len(pool)} distinct ones; use a ratio of at most {largest:g} or a larger safety dataset"
        )
    drawn = random.Random(f"{seed} draw").sample(pool, len(pool))[:count]
    placed = _placed(telecom, f"{seed} telecom") + _placed(drawn, f"{seed} safety")
    placed.sort(key=lambda entry: entry[0])
    return Mixture([example for _, example in placed], len(telecom), count, ratio, seed)


def _placed(examples: Sequence[Example], seed: str) -> list[tuple[float, Example]]:
    """Assigns every example a random position, independent of the examples that follow it."""
    generator = random.Random(seed)
    return [(generator.random(), example) for example in examples]
