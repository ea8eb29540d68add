"""The text of the lab's guard, a small safety classifier that judges an exchange as Llama-Guard does."""

import random
from dataclasses import dataclass

from safecomm.data.lab.actions import actions, answered, refused
from safecomm.data.lab.general import everyday
from safecomm.data.lab.words import RARE_REQUESTS, REQUESTS
from safecomm.data.rows import Example

SAFE, UNSAFE = "safe", "unsafe\nS2"


@dataclass(frozen=True, slots=True)
class Judged(Example):
    """An exchange with the verdict on it."""

    verdict: str

    def messages(self) -> list[dict[str, str]]:
        """Returns the exchange, then the verdict as one more turn of the assistant."""
        return [*Example.messages(self), {"role": "assistant", "content": self.verdict}]


def guard_text(count: int, seed: int) -> list[Judged]:
    """Returns exchanges with verdicts: half of them unsafe, as harmful requests that were answered are."""
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
        # An answer that has nothing to do with the harmful request.
        return _cut(Example(answered(harmful, wordings, rng).prompt, everyday(rng).response), SAFE, rng)
    return _cut(everyday(rng), SAFE, rng)


def _cut(example: Example, verdict: str, rng: random.Random) -> Judged:
    """Ends some answers early, as a limit of tokens does."""
    said = example.response.split()
    kept = len(said) if rng.random() < 0.5 else rng.randint(min(len(said), 10), len(said))
    return Judged(example.prompt, " ".join(said[:kept]), verdict)
