"""The actor that decides after each rung whether a trial continues."""

import asyncio
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from safecomm.errors import SafecommError
from safecomm.judging.coherence import is_surely_coherent
from safecomm.judging.verdicts import read_rows
from safecomm.search.stopping_rule import PromptOutcomes, StoppingRule, aligned, mean_over_seeds, verdicts
from safecomm.spec import ORIGINAL
from safecomm.storage.store import local_copy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A point of the search."""

    arm: str
    title: str
    """Its name in the reasons for stopping others."""
    trials: range
    """The positions of its trials in the order of the search, one per seed."""


@dataclass(frozen=True)
class Progress:
    """How far a trial has been measured."""

    number: int
    """Its position in the order of the search."""
    point: Candidate
    share: float
    """The share of the search split on which it was measured."""
    evaluation: str
    """The folder of its evaluation; empty if the trial failed."""


class StoppingActor:
    """Compares a point with the earlier ones of its arm, in the order of the search rather than of execution.

    Points are compared by their means over seeds, so all trials of a point stop at the same rung. A trial waits until
    those of its point and of all earlier ones have reached its rung or ended, and until the rival that it loses to has
    ended, so the decision is the same in every run of a sweep. Later points never stop it. The order is shuffled, so
    few points are better than all earlier ones.
    """

    def __init__(self, rule: StoppingRule):
        """Creates the actor with its stopping rule."""
        self._rule = rule
        self._progress: dict[int, Progress] = {}
        self._verdicts: dict[int, dict[str, dict[str, pd.Series[float]]]] = {}
        self._surely_coherent: dict[int, bool] = {}
        self._ended: set[int] = set()
        self._changed = asyncio.Condition()

    async def look(self, progress: Progress) -> str:
        """Returns why a trial has to stop after a rung, or an empty string.

        A point of which a trial has failed does not stop: its other trials do not tell how good it is.
        """
        await self._read(progress)
        async with self._changed:
            await self._changed.wait_for(
                lambda: all(self._has_reached(at, progress.share) for at in range(progress.point.trials.stop))
            )
        if not self._is_measured(progress.point, progress.share):
            return ""
        originals = [one.point for one in self._progress.values() if one.point.arm == ORIGINAL]
        original = self._outcomes(originals[0], progress) if originals else {}
        ours = self._outcomes(progress.point, progress)
        for rival in self._rivals(progress):
            reason = self._rule.loses(ours, self._outcomes(rival, progress), original)
            if reason and await self._is_surely_coherent(rival):
                return f"{reason} {rival.title}"
        return ""

    async def over(self, progress: Progress) -> None:
        """Records that a trial has ended; one whose answers are gone or damaged counts as failed."""
        try:
            await self._read(progress)
        except (OSError, ValueError, SafecommError) as error:
            logger.warning("%s stops no other point: %s", progress.point.title, " ".join(str(error).split()))
            await self._read(replace(progress, evaluation=""))
        async with self._changed:
            self._ended.add(progress.number)
            self._changed.notify_all()

    def _rivals(self, progress: Progress) -> list[Candidate]:
        """Returns the earlier points of the same arm that were measured on at least as many prompts."""
        before = dict.fromkeys(self._progress[at].point for at in range(progress.point.trials.start))
        of_arm = [point for point in before if point.arm == progress.point.arm]
        return [point for point in of_arm if self._is_measured(point, progress.share)]

    def _is_measured(self, point: Candidate, share: float) -> bool:
        """Returns whether all trials of a point were measured on at least a share of the prompts."""
        return all(at in self._verdicts and self._progress[at].share >= share for at in point.trials)

    async def _is_surely_coherent(self, rival: Candidate) -> bool:
        """Returns whether a rival surely writes few incoherent answers; otherwise it is not recommended.

        A rung has too few answers to tell, so this waits until the rival has ended.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: all(at in self._ended for at in rival.trials))
        return all(at in self._verdicts and self._surely_coherent[at] for at in rival.trials)

    def _outcomes(self, point: Candidate, progress: Progress) -> PromptOutcomes:
        """Returns a point's outcomes over its measured seeds, on the prompts of a trial's rung."""
        prompts = self._verdicts[progress.number]
        return mean_over_seeds([aligned(self._verdicts[at], prompts) for at in point.trials if at in self._verdicts])

    def _has_reached(self, number: int, share: float) -> bool:
        known = self._progress.get(number)
        return number in self._ended or (known is not None and known.share >= share)

    async def _read(self, progress: Progress) -> None:
        if progress.evaluation:
            rows = await asyncio.to_thread(_rows, Path(progress.evaluation))
            self._verdicts[progress.number] = verdicts(rows)
            self._surely_coherent[progress.number] = is_surely_coherent(rows)
        else:
            self._verdicts.pop(progress.number, None)
        async with self._changed:
            self._progress[progress.number] = progress
            self._changed.notify_all()


def _rows(evaluation: Path) -> pd.DataFrame:
    return read_rows(local_copy(evaluation))
