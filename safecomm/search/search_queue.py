"""What is still to be tried: the points that the sweep lists, then round by round those that Optuna proposes.

A round has a batch of every sampled arm, and the next begins when all of it is measured. So the order of the trials,
and what each of them is compared with, is the same whenever and wherever the sweep runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safecomm.search.arms import Point, Trial, seeded
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.queue import TrialQueue
from safecomm.search.record import TrialRecord
from safecomm.search.study import ArmStudy, objectives
from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.statistics.metric_table import ASR
from safecomm.storage.store import digest

STOPPED = 0.01
"""The least violation of the target that a sampler learns of a point that stopped early."""
Find = Callable[[Trial], TrialRecord | None]
"""Returns the record of a trial that is over already, if it is."""


@dataclass
class _Sampled:
    """How far the search of one arm is."""

    arm: str
    study: ArmStudy
    asked: int = 0
    batch: list[tuple[int, str]] = field(default_factory=list)
    """The proposals of this round: number in the study, and what the point comes to."""


class SearchQueue(TrialQueue):
    """Hands out the trials of the search that are not over yet."""

    def __init__(self, sweep: Sweep, find: Find, journal: Path, equivalent: EquivalentPoints):
        """Plans the search.

        Args:
            sweep: the sweep.
            find: looks up the record of a trial that is over already.
            journal: Optuna's journal file.
            equivalent: tells which points come to the same.
        """
        super().__init__()
        self._sweep, self._find, self._equivalent = sweep, find, equivalent
        self._records: dict[str, TrialRecord] = {}
        self._seeds: dict[tuple[str, str], list[Trial]] = {}
        self._names: dict[tuple[str, str], list[Point]] = {}
        for arm in REFERENCE_ARMS:
            self._enlist(arm, {})
        listed = {arm: equivalent.points(arm) for arm in sweep.arms}
        for arm, point in _shuffled([(arm, point) for arm, points in listed.items() for point in points or []]):
            self._enlist(arm, point)
        self._sampled = [
            _Sampled(arm, ArmStudy(arm, sweep, journal)) for arm, points in listed.items() if points is None
        ]
        self._advance()

    def finish(self, trial: Trial, record: TrialRecord) -> None:
        """Takes in what a trial gave, from which others may follow."""
        super().finish(trial, record)
        self._records[trial.id] = record
        self._advance()

    def record(self, trial: Trial) -> TrialRecord | None:
        """Returns what a trial gave, in this run or before."""
        return self._records.get(trial.id)

    def names(self, trial: Trial) -> list[Point]:
        """Returns the points of the trial's arm that come to the same as its own, which is the first."""
        return self._names.get((trial.arm, self._equivalent.key(trial.arm, trial.point)), [trial.point])

    def _advance(self) -> None:
        """Goes on to the next round when this one is over, and further where all of that was done before."""
        while self.is_done and (left := [arm for arm in self._sampled if self._wants_more(arm)]):
            for arm in left:
                self._learn(arm)
            for arm in left:
                self._propose(arm)
        if self.is_done:
            for arm in self._sampled:
                self._learn(arm)

    def _wants_more(self, arm: _Sampled) -> bool:
        return self._found(arm) < arm.study.budget and arm.asked < arm.study.most

    def _found(self, arm: _Sampled) -> int:
        return sum(name == arm.arm for name, _ in self._seeds)

    def _propose(self, arm: _Sampled) -> None:
        size = arm.study.later_batches if arm.asked else arm.study.first_batch
        count = min(size, arm.study.budget - self._found(arm))
        for trial in arm.study.proposals(arm.asked, count):
            point = self._equivalent.resolved(arm.arm, trial.params)
            arm.batch.append((trial.number, self._enlist(arm.arm, point)))
        arm.asked += count

    def _learn(self, arm: _Sampled) -> None:
        """Reports the results of the last batch to the arm's study."""
        for number, key in arm.batch:
            records = [self._records[seed.id] for seed in self._seeds[arm.arm, key]]
            arm.study.tell(number, self._values(records), self._violation(records))
        arm.batch = []

    def _values(self, records: list[TrialRecord]) -> list[float] | None:
        """Returns the means over the seeds; None if a seed failed or has an unknown rate."""
        if any(record.status == "failed" for record in records):
            return None
        means = [sum(record.value(metric) for record in records) / len(records) for metric in objectives(self._sweep)]
        return None if any(math.isnan(mean) for mean in means) else means

    def _violation(self, records: list[TrialRecord]) -> float:
        """Returns by how much a point misses the target attack success rate.

        A point that stopped early has rates of a few prompts only, which must not make it look good: it counts as
        missing the target.
        """
        missed = sum(record.value(ASR.name) for record in records) / len(records) - self._sweep.search.target_asr
        if any(record.status == "stopped" for record in records):
            return max(missed, STOPPED) if not math.isnan(missed) else STOPPED
        return 0.0 if math.isnan(missed) else missed

    def _enlist(self, arm: str, point: Point) -> str:
        """Takes a point in, unless another that comes to the same is known; returns what it comes to."""
        key = self._equivalent.key(arm, point)
        names = self._names.setdefault((arm, key), [])
        if point not in names:
            names.append(point)
        if (arm, key) not in self._seeds:
            self._seeds[arm, key] = seeded(self._sweep, arm, point)
            for trial in self._seeds[arm, key]:
                self.trials.append(trial)
                if record := self._find(trial):
                    self._records[trial.id] = record
                else:
                    self._ready.append(trial)
        return key


def _shuffled(points: list[tuple[str, Point]]) -> list[tuple[str, Point]]:
    """Returns points in an order that has nothing to do with how good they are, the same every time."""
    return sorted(points, key=digest)
