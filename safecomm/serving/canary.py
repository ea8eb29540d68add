"""The canary: an adapter's answers count once it is proved that the engine applies it."""

import asyncio

from safecomm.serving.engine import Engine, Question

TEXTS = (
    "The radio link between a handset and its base station depends on power, distance and interference.",
    "To answer that, one has to look at what was asked, who asks it, and what may come of it.",
)
QUESTIONS = [Question(messages=[{"role": "user", "content": "Explain."}], options=[text]) for text in TEXTS]


class Canary:
    """Compares the likelihood of fixed texts with each adapter and without, once an adapter.

    An engine that ignores an adapter answers like the bare model, and its numbers would be the bare model's under
    another name.
    """

    def __init__(self, engine: Engine):
        """Takes the engine to watch."""
        self._engine = engine
        self._found: dict[str, asyncio.Task[str]] = {}

    async def check(self, adapter: str) -> str:
        """Returns why an adapter's answers can't count, empty where they can.

        Args:
            adapter: its folder. One whose update is zero may leave the model as it is.
        """
        if adapter not in self._found:
            self._found[adapter] = asyncio.create_task(self._compare(adapter))
        return await self._found[adapter]

    async def _compare(self, adapter: str) -> str:
        bare, adapted = [await self._engine.answer(QUESTIONS, folder) for folder in (None, adapter)]
        if reasons := [answer["error"] for answer in [*bare, *adapted] if answer["error"]]:
            return f"whether the adapter {adapter} is applied could not be seen: {reasons[0]}"
        if bare != adapted or not _changes_anything(adapter):
            return ""
        return f"the engine does not apply the adapter {adapter}: with it, texts are exactly as likely as without"


def _changes_anything(adapter: str) -> bool:
    from safecomm.defenses.adapter import Adapter  # brings torch, which whoever only asks a fleet can do without

    modules = Adapter.load(adapter).modules.values()
    return any(bool(part.A.any()) and bool(part.B.any()) and part.scaling for part in modules)
