"""Checks that an engine really applies an adapter before its answers are used."""

import asyncio

from safecomm.serving.engine import Engine, Question

TEXTS = (
    "The radio link between a handset and its base station depends on power, distance and interference.",
    "To answer that, one has to look at what was asked, who asks it, and what may come of it.",
)
QUESTIONS = [Question(messages=[{"role": "user", "content": "Explain."}], options=[text]) for text in TEXTS]


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
        """
        if adapter not in self._found:
            self._found[adapter] = asyncio.create_task(self._compare(adapter))
        return await self._found[adapter]

    async def _compare(self, adapter: str) -> str:
        bare, adapted = [await self._engine.answer(QUESTIONS, folder) for folder in (None, adapter)]
        if reasons := [answer["error"] for answer in [*bare, *adapted] if answer["error"]]:
            return f"could not check whether the adapter {adapter} is applied: {reasons[0]}"
        if bare != adapted or not _changes_anything(adapter):
            return ""
        return f"the engine does not apply the adapter {adapter}: likelihoods are identical with and without it"


def _changes_anything(adapter: str) -> bool:
    from safecomm.defenses.adapter import Adapter  # imports torch, which clients of a fleet don't need

    modules = Adapter.load(adapter).modules.values()
    return any(bool(part.A.any()) and bool(part.B.any()) and part.scaling for part in modules)
