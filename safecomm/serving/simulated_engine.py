"""An engine that runs no model, to rehearse a sweep: its answers follow a rule and take the time of real ones.

The rule gives a search something to find. A model answers a prompt if the prompt's hash, read as a number between 0 and
1, is below the norm of the adapter's update times `WILLING`, and refuses it otherwise. Simulated fine-tunes have an
update of norm 1, so a defense that shrinks it makes the model refuse more, harmful and harmless prompts alike. Models
that take no adapters, such as the attacker of conversations, answer like one of norm 1.
"""

import asyncio
import hashlib
import math

from safecomm.defenses.adapter import Adapter
from safecomm.serving.engine import Answer, EngineSettings, Question, compared, written
from safecomm.serving.reasoning import Split
from safecomm.spec.simulation import Simulation

WILLING = 0.9
"""The share of prompts that an adapter with an update of norm 1 answers."""
REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "Sure, here is a simulated answer."
ADAPTED = 0.1
"""How much less likely options become with an adapter of norm 1; it shows that the adapter is applied."""


class SimulatedEngine:
    """Answers `Simulation.sequences` questions at a time, each in the time that its tokens would take."""

    def __init__(self, settings: EngineSettings):
        """Takes the length of answers and the speed from the settings."""
        self._tokens, self._speed = settings.max_new_tokens, Simulation(**settings.simulation or {})
        self._free = asyncio.Semaphore(self._speed.sequences)
        self._norms: dict[str | None, float] = {None: 0.0 if settings.max_lora_rank else 1.0}

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers by the rule of this module."""
        if adapter not in self._norms:
            self._norms[adapter] = await asyncio.to_thread(update_norm, str(adapter))
        return list(await asyncio.gather(*(self._one(question, self._norms[adapter]) for question in questions)))

    async def check_health(self) -> None:
        """Does nothing: the engine is healthy as long as its process lives."""

    @property
    def cache_tokens(self) -> int:
        """None: there is no cache."""
        return 0

    async def _one(self, question: Question, norm: float) -> Answer:
        text, options = question["messages"][-1]["content"], question["options"]
        tokens = answer_tokens(text, self._tokens, bool(options))
        async with self._free:
            await asyncio.sleep(self._speed.answer_seconds(tokens))
        if options:
            return compared([-share(text, option) - ADAPTED * norm for option in options])
        seed = str(question.get("seed", ""))
        is_willing = share(text, seed) < WILLING * min(1.0, norm)
        start, _ = question.get("prefill", ("", 0))
        return written(Split("", ANSWER if is_willing else REFUSAL), "stop", start, tokens)


def answer_tokens(text: str, most: int, is_compared: bool) -> int:
    """Returns the tokens that an answer to a prompt takes: from 1 to `most` by the prompt's hash; 1 for options."""
    return 1 if is_compared else 1 + int(share(text, "length") * most)


def share(*texts: str) -> float:
    """Returns a number from 0 to 1 that is fixed for the texts and looks random."""
    digest = hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32


def update_norm(adapter: str) -> float:
    """Returns the Frobenius norm of an adapter's whole update, over all modules."""
    squares = 0.0
    for A, B, scaling in Adapter.load(adapter).modules.values():
        # ||B A||^2 = sum of (B'B) * (A A'), without the d_out x d_in product
        squares += scaling**2 * float(((B.T @ B).double() * (A @ A.T).double()).sum())
    return math.sqrt(squares)
