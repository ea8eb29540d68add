"""The actor that decides after each rung whether a trial continues."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from safecomm.judging.coherence import is_surely_coherent
from safecomm.judging.verdicts import read_rows
from safecomm.search.stopping_rule import StoppingRule, aligned, verdicts
from safecomm.spec import ORIGINAL
from safecomm.storage.store import local_copy


@dataclass(frozen=True)
class Progress:
    """How far a trial has been measured."""

    number: int
    """Its position in the order of the search."""
    arm: str
    title: str
    """The trial's name in the reasons for stopping others."""
    share: float
    """The share of the search split on which it was measured."""
    evaluation: str
    """The folder of its evaluation; empty if the trial failed."""


class StoppingActor:
    """Compares a trial with the earlier ones of its arm, in the order of the search rather than of execution.

    A trial waits until all earlier ones have reached its rung or ended, so the decision is the same in every run of a
    sweep. Later trials never stop it. The order is shuffled, so few points are better than all earlier ones.
    """

    def __init__(self, rule: StoppingRule):
        """Creates the actor with its stopping rule."""
        self._rule = rule
        self._progress: dict[int, Progress] = {}
        self._verdicts: dict[int, dict[str, dict[str, pd.Series[float]]]] = {}
        self._ended: set[int] = set()
        self._is_coherent: dict[int, bool] = {}
        self._changed = asyncio.Condition()

    async def look(self, progress: Progress) -> str:
        """Returns why a trial has to stop after a rung, or an empty string."""
        await self._read(progress)
        async with self._changed:
            await self._changed.wait_for(
                lambda: all(self._has_reached(at, progress.share) for at in range(progress.number))
            )
        own = self._verdicts[progress.number]
        originals = [at for at, one in self._progress.items() if one.arm == ORIGINAL and at in self._verdicts]
        original = aligned(self._verdicts[originals[0]], own) if originals else {}
        ours = aligned(own, own)
        for rival in self._rivals(progress):
            if reason := self._rule.loses(ours, aligned(self._verdicts[rival.number], own), original):
                return f"{reason} {rival.title}"
        return ""

    async def over(self, progress: Progress) -> None:
        """Records that a trial has ended."""
        await self._read(progress)
        async with self._changed:
            self._ended.add(progress.number)
            self._changed.notify_all()

    def _rivals(self, progress: Progress) -> list[Progress]:
        """Returns the earlier trials of the same arm that were measured on at least as many prompts.

        Those that may write too many incoherent answers are left out, because such points are not recommended.
        """
        before = [self._progress[at] for at in range(progress.number) if at in self._verdicts]
        rivals = [one for one in before if one.arm == progress.arm and one.share >= progress.share]
        return [one for one in rivals if self._is_coherent[one.number]]

    def _has_reached(self, number: int, share: float) -> bool:
        known = self._progress.get(number)
        return number in self._ended or (known is not None and known.share >= share)

    async def _read(self, progress: Progress) -> None:
        if progress.evaluation:
            rows = await asyncio.to_thread(_rows, Path(progress.evaluation))
            self._verdicts[progress.number] = verdicts(rows)
            self._is_coherent[progress.number] = is_surely_coherent(rows)
        async with self._changed:
            self._progress[progress.number] = progress
            self._changed.notify_all()


def _rows(evaluation: Path) -> pd.DataFrame:
    return read_rows(local_copy(evaluation))
