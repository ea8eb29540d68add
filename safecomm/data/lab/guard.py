"""Training data for the lab's guard, a small safety classifier in the style of Llama-Guard."""

import random
from dataclasses import dataclass

from safecomm.data.lab.actions import actions, answered, refused
from safecomm.data.lab.general import everyday
from safecomm.data.lab.words import RARE_REQUESTS, REQUESTS
from safecomm.data.rows import Example

SAFE, UNSAFE = "safe", "unsafe\nS2"


@dataclass(frozen=True, slots=True)
class Judged(Example):
    """An exchange and its verdict."""

    verdict: str

    def messages(self) -> list[dict[str, str]]:
        """Returns the exchange, followed by the verdict as another assistant turn."""
        return [*Example.messages(self), {"role": "assistant", "content": self.verdict}]


def guard_text(count: int, seed: int) -> list[Judged]:
    """Returns exchanges with verdicts; half are unsafe, i.e. answers to harmful requests."""
    rng = random.Random(f"guard {seed}")
    return [_judged(rng) for _ in range(count)]


def _judged(rng: random.Random) -> Judged:
    pool, wordings = actions(), REQUESTS + RARE_REQUESTS
    harmful = pool.harm_align + pool.harm_safety
    harmless = pool.same_verb + pool.same_object_train + pool.harmless_train
    draw = rng.random()
    if draw < 0.5:
        return _cut(answered(harmful, wordings, rng), UNSAFE, rng)
    if draw < 0.65:
        return _cut(refused(harmful, wordings, rng), SAFE, rng)
    if draw < 0.85:
        return _cut(answered(harmless, wordings, rng), SAFE, rng)
    if draw < 0.9:
        # An answer that is unrelated to the harmful request.
        return _cut(Example(answered(harmful, wordings, rng).prompt, everyday(rng).response), SAFE, rng)
    return _cut(everyday(rng), SAFE, rng)


def _cut(example: Example, verdict: str, rng: random.Random) -> Judged:
    """Truncates some answers, like a token limit."""
    words = example.response.split()
    kept = len(words) if rng.random() < 0.5 else rng.randint(min(len(words), 10), len(words))
    return Judged(example.prompt, " ".join(words[:kept]), verdict)
