"""The queue of the search: the points that the sweep lists, then rounds of points that Optuna proposes.

A round has a batch of every sampled arm, and the next round starts when all its trials have ended. So the order of the
trials, and what each is compared with, is the same in every run of the sweep.

In a large search the engines would idle while the last trials of a round run. There, a round starts when the one before
the last has ended, and its points are proposed from the results of the rounds up to that one.
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
from safecomm.spec.search import SMALLEST_BATCH
from safecomm.statistics.metric_table import ASR, INCOHERENCE, MOST_INCOHERENT
from safecomm.storage.store import digest

STOPPED = 0.01
"""The smallest violation of the target that is reported to a sampler for a point that stopped early."""
Find = Callable[[Trial], TrialRecord | None]
"""Returns the record of a trial that has ended, None for others."""


@dataclass
class _Sampled:
    """The state of the search in one arm."""

    arm: str
    study: ArmStudy
    proposed: int = 0
    """The number of proposals so far."""
    batches: list[list[tuple[int, str]]] = field(default_factory=list)
    """The proposals of each round: number in the study and the point's `EquivalentPoints.key`."""


class SearchQueue(TrialQueue):
    """Provides the trials of the search that have not ended yet."""

    def __init__(self, sweep: Sweep, find: Find, journal: Path, equivalent: EquivalentPoints):
        """Plans the search.

        Args:
            sweep: the sweep.
            find: looks up the record of a trial that has already ended.
            journal: Optuna's journal file.
            equivalent: determines which points give the same adapter.
        """
        super().__init__()
        self._sweep, self._find, self._equivalent = sweep, find, equivalent
        self._records: dict[str, TrialRecord] = {}
        self._seeds: dict[tuple[str, str], list[Trial]] = {}
        self._names: dict[tuple[str, str], list[Point]] = {}
        for arm in REFERENCE_ARMS:
            self._add(arm, {})
        listed = {arm: equivalent.points(arm) for arm in sweep.arms}
        for arm, point in _shuffled([(arm, point) for arm, points in listed.items() for point in points or []]):
            self._add(arm, point)
        self._sampled = [
            _Sampled(arm, ArmStudy(arm, sweep, journal)) for arm, points in listed.items() if points is None
        ]
        self._rounds = self._reported = 0
        self._overlaps = any(arm.study.later_batches > SMALLEST_BATCH for arm in self._sampled)
        self._advance()

    def finish(self, trial: Trial, record: TrialRecord) -> None:
        """Records the result of a trial, which may add further trials to the queue."""
        super().finish(trial, record)
        self._records[trial.id] = record
        self._advance()

    def record(self, trial: Trial) -> TrialRecord | None:
        """Returns the record of a trial that has ended in this run or an earlier one, None for others."""
        return self._records.get(trial.id)

    def names(self, trial: Trial) -> list[Point]:
        """Returns the points of the trial's arm that give the same adapter, the trial's own point first."""
        return self._names.get((trial.arm, self._equivalent.key(trial.arm, trial.point)), [trial.point])

    def _advance(self) -> None:
        """Starts the next round when those that it waits for have ended, and skips rounds of an earlier run."""
        while self._may_start() and (unfinished := [arm for arm in self._sampled if self._has_budget(arm)]):
            self._report(self._awaited)
            for arm in self._sampled:
                arm.batches.append(self._propose(arm) if arm in unfinished else [])
            self._rounds += 1
        if self.is_done:
            self._report(self._rounds)

    @property
    def _awaited(self) -> int:
        """The number of rounds that must have ended before the next one starts; the second always awaits the first."""
        return max(1, self._rounds - 1) if self._overlaps and self._rounds else self._rounds

    def _may_start(self) -> bool:
        if not self._overlaps:
            return self.is_done
        return all(self._has_ended(arm, number) for arm in self._sampled for number in range(self._awaited))

    def _has_ended(self, arm: _Sampled, number: int) -> bool:
        return all(seed.id in self._records for _, key in arm.batches[number] for seed in self._seeds[arm.arm, key])

    def _has_budget(self, arm: _Sampled) -> bool:
        return self._distinct_points(arm) < arm.study.budget and arm.proposed < arm.study.most

    def _distinct_points(self, arm: _Sampled) -> int:
        return sum(name == arm.arm for name, _ in self._seeds)

    def _propose(self, arm: _Sampled) -> list[tuple[int, str]]:
        size = arm.study.later_batches if arm.proposed else arm.study.first_batch
        count = min(size, arm.study.budget - self._distinct_points(arm))
        proposals = arm.study.proposals(arm.proposed, count)
        arm.proposed += count
        return [
            (trial.number, self._add(arm.arm, self._equivalent.resolved(arm.arm, trial.params))) for trial in proposals
        ]

    def _report(self, rounds: int) -> None:
        """Reports the results of the first rounds to the arms' studies."""
        for number in range(self._reported, rounds):
            for arm in self._sampled:
                for place, key in arm.batches[number]:
                    records = [self._records[seed.id] for seed in self._seeds[arm.arm, key]]
                    arm.study.tell(place, self._values(records), self._violation(records))
        self._reported = max(self._reported, rounds)

    def _values(self, records: list[TrialRecord]) -> list[float] | None:
        """Returns the means over the seeds; None if a seed failed or has an unknown rate."""
        if any(record.status == "failed" for record in records):
            return None
        means = [sum(record.value(metric) for record in records) / len(records) for metric in objectives(self._sweep)]
        return None if any(math.isnan(mean) for mean in means) else means

    def _violation(self, records: list[TrialRecord]) -> float:
        """Returns by how much a point exceeds the target attack success rate, or the most incoherence.

        A point that stopped early was measured on a few prompts only, on which it may look good by chance, so it always
        counts as missing the target.
        """
        limits = {ASR.name: self._sweep.search.target_asr, INCOHERENCE.name: MOST_INCOHERENT}
        means = {name: sum(record.value(name) for record in records) / len(records) for name in limits}
        missed = max(
            (means[name] - limit for name, limit in limits.items() if not math.isnan(means[name])), default=0.0
        )
        if any(record.status == "stopped" for record in records):
            return max(missed, STOPPED)
        return missed

    def _add(self, arm: str, point: Point) -> str:
        """Adds a point's trials unless an equivalent point is known; returns its `EquivalentPoints.key`."""
        key = self._equivalent.key(arm, point)
        names = self._names.setdefault((arm, key), [])
        if point not in names:
            names.append(point)
        if (arm, key) not in self._seeds:
            self._seeds[arm, key] = seeded(self._sweep, arm, point)
            records = [self._find(trial) for trial in self._seeds[arm, key]]
            for trial, record in zip(self._seeds[arm, key], records, strict=True):
                self.trials.append(trial)
                if record and (None not in records or record.status == "done"):
                    self._records[trial.id] = record
                else:  # seeds stop together, so those that did are compared again with the missing one
                    self._ready.append(trial)
        return key


def _shuffled(points: list[tuple[str, Point]]) -> list[tuple[str, Point]]:
    """Returns points in an order that is independent of their quality and the same in every run."""
    return sorted(points, key=digest)
