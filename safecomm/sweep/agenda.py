"""What is still to be tried: the points that the sweep fixes, then those that Optuna proposes.

An arm of constants and grids is enumerated. An arm with a range has an Optuna study of its own, kept in a journal
beside the run, so that a sweep which was stopped goes on with what it learnt.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.spec.space import Choice, Grid, LogUniform, RandInt, Strict, Uniform
from safecomm.sweep.arms import Point, Trial, chain_at, dimensions, grid_points

DIRECTIONS = {
    "asr": StudyDirection.MINIMIZE,
    "accuracy": StudyDirection.MAXIMIZE,
    "over_refusal": StudyDirection.MINIMIZE,
}
Record = Mapping[str, Any]
Find = Callable[[Trial], Record | None]
"""Returns the record of a trial that is done already, if it is."""

logging.getLogger("optuna").setLevel(logging.WARNING)


def distribution(space: Strict) -> BaseDistribution:
    """Returns Optuna's form of a searched setting."""
    match space:
        case Grid():
            return CategoricalDistribution(space.grid)
        case Choice():
            return CategoricalDistribution(space.choice)
        case Uniform():
            return FloatDistribution(*space.uniform)
        case LogUniform():
            return FloatDistribution(*space.loguniform, log=True)
        case RandInt():
            return IntDistribution(*space.randint)
    raise TypeError(f"{type(space).__name__} is no searched setting")


class SampledArm:
    """An arm whose points Optuna proposes, with as many trials as the sweep gives it."""

    def __init__(self, name: str, sweep: Sweep, journal: Path):
        self.name = name
        self._searched = {key: distribution(space) for key, space in dimensions(sweep.arms[name]).items()}
        self._objectives = objectives(sweep)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            directions=[DIRECTIONS[metric] for metric in self._objectives],
        )
        known = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        # A sampler that starts anew with the same seed would propose its first points again.
        self._study.sampler = _sampler(sweep, seed=sweep.search.seed + len(self._study.trials))
        self.budget = sweep.search.trials - len(known)
        self.unfinished = {trial.number: trial.params for trial in known if trial.state == TrialState.RUNNING}
        self.finished = [trial.params for trial in known if trial.state == TrialState.COMPLETE]

    def ask(self) -> tuple[int, Point]:
        """Returns a new point and its number in the study."""
        self.budget -= 1
        trial = self._study.ask(self._searched)
        return trial.number, trial.params

    def tell(self, number: int, records: list[Record]) -> None:
        """Tells the study what a point gave, as the mean over the seeds; a failed seed fails the point."""
        if any(record["status"] != "done" for record in records):
            self._study.tell(number, state=TrialState.FAIL)
            return
        means = [sum(record[metric] for record in records) / len(records) for metric in self._objectives]
        self._study.tell(number, means)


def objectives(sweep: Sweep) -> list[str]:
    """Returns the objectives that the sweep has benchmarks for."""
    return [metric for metric in sweep.search.objectives if metric != "over_refusal" or sweep.evaluate.over_refusal]


def _sampler(sweep: Sweep, seed: int) -> BaseSampler:
    if sweep.search.algorithm == "random":
        return RandomSampler(seed=seed)
    if sweep.search.algorithm == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(4, sweep.search.trials // 4))
    return TPESampler(seed=seed, n_startup_trials=max(4, sweep.search.trials // 3))


class Agenda:
    """Hands out the trials of the search that are not done yet, in an order that starts shared fine-tunes early."""

    def __init__(self, sweep: Sweep, find: Find, journal: Path):
        """Plans the search.

        Args:
            sweep: the sweep.
            find: looks up the record of a trial that is done already.
            journal: Optuna's journal file.
        """
        self._sweep = sweep
        self._find = find
        self._ready: deque[Trial] = deque()
        self._open: dict[tuple[str, int], tuple[SampledArm, Point]] = {}
        self._records: dict[str, Record] = {}
        self._sampled: deque[SampledArm] = deque()
        self.trials: list[Trial] = []
        """Every trial handed out or found done, once."""
        for arm in REFERENCE_ARMS:
            self._enlist(arm, {})
        for arm, chain in sweep.arms.items():
            points = grid_points(chain)
            if points is None:
                self._take_up(SampledArm(arm, sweep, journal))
            for point in points or []:
                self._enlist(arm, point)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to hand out."""
        return not self._ready and not any(arm.budget > 0 for arm in self._sampled)

    def next(self) -> Trial | None:
        """Returns the next trial, or None when all have been handed out."""
        while not self._ready and any(arm.budget > 0 for arm in self._sampled):
            arm = self._sampled[0]
            self._sampled.rotate(-1)
            if arm.budget > 0:
                self._propose(arm, *arm.ask())
        return self._ready.popleft() if self._ready else None

    def finish(self, trial: Trial, record: Record) -> None:
        """Takes in what a trial gave."""
        self._records[trial.id] = record
        for asked in list(self._open):
            self._tell_if_complete(asked)

    def _take_up(self, arm: SampledArm) -> None:
        """Goes on with an arm's study: what was finished is enlisted, what was interrupted is proposed again."""
        self._sampled.append(arm)
        for point in arm.finished:
            self._enlist(arm.name, point)
        for number, point in arm.unfinished.items():
            self._propose(arm, number, point)

    def _propose(self, arm: SampledArm, number: int, point: Point) -> None:
        asked = (arm.name, number)
        self._open[asked] = (arm, point)
        self._enlist(arm.name, point)
        self._tell_if_complete(asked)

    def _enlist(self, arm: str, point: Point) -> None:
        for trial in self._seeded(arm, point):
            if trial.id in {known.id for known in self.trials}:
                continue
            self.trials.append(trial)
            if record := self._find(trial):
                self._records[trial.id] = record
            else:
                self._ready.append(trial)

    def _seeded(self, arm: str, point: Point) -> list[Trial]:
        chain = chain_at(self._sweep.arms.get(arm, []), point)
        return [Trial(arm, point, chain, seed) for seed in range(self._sweep.seeds)]

    def _tell_if_complete(self, asked: tuple[str, int]) -> None:
        arm, point = self._open[asked]
        trials = self._seeded(arm.name, point)
        records = [self._records[trial.id] for trial in trials if trial.id in self._records]
        if len(records) == len(trials):
            arm.tell(asked[1], records)
            del self._open[asked]
