"""The referee of a race: an actor that trials ask, after each rung, whether to go on."""

import asyncio
from pathlib import Path

import numpy as np
import pandas as pd

from safecomm.judging.verdicts import read_rows
from safecomm.search.stopping_rule import PromptOutcomes, StoppingRule, verdicts
from safecomm.storage.store import local_copy


class StoppingActor:
    """Compares a trial with those before it in the order of the search, however far apart in time they run.

    Where one before it has not got as far yet, a trial waits for it: so it hears the same in every run of a sweep.
    Those after it never stop it. As the order is shuffled, few points are better than all before them.
    """

    def __init__(self, rule: StoppingRule):
        """Takes the rule of the race."""
        self._rule = rule
        self._verdicts: dict[int, dict[str, pd.Series[float]]] = {}
        self._hits: dict[tuple[int, float], PromptOutcomes] = {}
        self._share: dict[int, float] = {}
        self._over: set[int] = set()
        self._names: dict[int, str] = {}
        self._news = asyncio.Condition()

    async def look(self, place: int, name: str, share: float, evaluation: str) -> str:
        """Returns why a trial is to stop, empty if it goes on.

        Args:
            place: its place in the order of the search.
            name: what it is called in the reasons of others.
            share: the part of the search split that it was measured on.
            evaluation: the folder of its rows.
        """
        await self._measured(place, name, share, evaluation)
        async with self._news:
            await self._news.wait_for(lambda: all(self._has_reached(before, share) for before in range(place)))
        ours = self._at(place, share, place)
        for rival in [one for one in range(place) if self._share.get(one, 0) >= share]:
            if reason := self._rule.loses(ours, self._at(rival, share, place)):
                return f"{reason} {self._names[rival]}"
        return ""

    async def over(self, place: int, name: str, share: float, evaluation: str) -> None:
        """Takes in a trial that is over; one that is no rival, as it failed, with an empty folder."""
        await self._measured(place, name, share, evaluation)
        async with self._news:
            self._over.add(place)
            self._news.notify_all()

    def _has_reached(self, place: int, share: float) -> bool:
        return place in self._over or self._share.get(place, 0) >= share

    def _at(self, place: int, share: float, asked: int) -> PromptOutcomes:
        """Returns a trial's hits on a rung's questions, which are those that another was asked just now."""
        if (place, share) not in self._hits:
            questions = {kind: of_kind.index for kind, of_kind in self._verdicts[asked].items()}
            own = self._verdicts[place]
            self._hits[place, share] = {
                kind: np.asarray(own[kind].reindex(index), dtype=np.float64) for kind, index in questions.items()
            }
        return self._hits[place, share]

    async def _measured(self, place: int, name: str, share: float, evaluation: str) -> None:
        if not evaluation:
            return
        self._verdicts[place] = verdicts(await asyncio.to_thread(_rows, Path(evaluation)))
        async with self._news:
            self._names[place], self._share[place] = name, share
            self._news.notify_all()


def _rows(evaluation: Path) -> pd.DataFrame:
    return read_rows(local_copy(evaluation))
