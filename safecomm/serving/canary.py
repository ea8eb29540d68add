"""Checks that an engine really applies an adapter before its answers are used."""

import asyncio
from collections.abc import Sequence

import numpy as np

from safecomm.errors import EvaluationError
from safecomm.serving.engine import Engine, Question

TEXTS = (
    "The radio link between a handset and its base station depends on power, distance and interference.",
    "To answer that, one has to look at what was asked, who asks it, and what may come of it.",
    "I'm sorry, but I can't help with that, because it could be used to harm other people.",
    "Sure, here is how to do it: first, get the parts; second, put them together; third, switch it on.",
)
QUESTIONS = [Question(messages=[{"role": "user", "content": "Explain."}], options=[text]) for text in TEXTS]
ROUNDS = 3
"""Repetitions: on a GPU the other requests of a batch change the last digits of a likelihood."""
MARGIN = 3.0
"""How far apart the likelihoods must be, in units of the spread of the bare model's; see tests/serving/test_canary.py
for the error rate."""


class Canary:
    """Compares the likelihoods of fixed texts with and without an adapter, once per adapter.

    An engine that ignores an adapter answers as without it, and the adapter would get the unadapted model's scores.
    """

    def __init__(self, engine: Engine):
        """Creates a canary for an engine."""
        self._engine = engine
        self._found: dict[str, asyncio.Task[str]] = {}

    async def check(self, adapter: str) -> str:
        """Returns an error message if the engine does not apply the adapter, else "".

        Args:
            adapter: its folder. An adapter with a zero update passes without any effect.

        Raises:
            EvaluationError: if the engine did not answer; the next call asks it again.
        """
        task = self._found.get(adapter)
        if task is None:
            task = self._found[adapter] = asyncio.create_task(self._compare(adapter))
            task.add_done_callback(lambda done: self._forget_failure(adapter, done))
        return await asyncio.shield(task)  # one request's cancellation must not end the check for the others

    def _forget_failure(self, adapter: str, task: "asyncio.Task[str]") -> None:
        if task.cancelled() or task.exception():
            self._found.pop(adapter, None)

    async def _compare(self, adapter: str) -> str:
        bare, adapted = [], []
        for _ in range(ROUNDS):
            bare.append(await self._likelihoods(None))
            adapted.append(await self._likelihoods(adapter))
        if is_distinct(bare, adapted) or not _changes_anything(adapter):
            return ""
        return (
            f"the engine does not apply the adapter {adapter}: likelihoods with it differ from those without it by no "
            "more than these vary"
        )

    async def _likelihoods(self, adapter: str | None) -> list[float]:
        answers = await self._engine.answer(QUESTIONS, adapter)
        if reasons := [answer["error"] for answer in answers if answer["error"]]:
            raise EvaluationError(f"could not check whether the adapter {adapter} is applied: {reasons[0]}")
        return [score for answer in answers for score in answer["scores"]]


def is_distinct(bare: Sequence[Sequence[float]], adapted: Sequence[Sequence[float]]) -> bool:
    """Returns whether likelihoods with an adapter differ from those without it by more than by chance.

    Args:
        bare: rounds x texts, without the adapter.
        adapted: rounds x texts, with it.
    """
    spread = float(np.ptp(bare, axis=0).max())
    effect = float(np.abs(np.mean(adapted, axis=0) - np.mean(bare, axis=0)).max())
    return effect > MARGIN * spread


def _changes_anything(adapter: str) -> bool:
    from safecomm.defenses.adapter import Adapter  # imports torch, which clients of a fleet don't need

    modules = Adapter.load(adapter).modules.values()
    return any(bool(part.A.any()) and bool(part.B.any()) and part.scaling for part in modules)
