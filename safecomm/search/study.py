"""An arm's Optuna study: the settings that are proposed for an arm with ranges.

It is kept in a journal beside the run, so that a sweep which was stopped goes on with what it learnt. What is proposed
depends on nothing but the seed and the results of the batches before: the same sweep takes the same way each time,
however many trials run at once and wherever it was interrupted.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from safecomm.defenses.space import Choice, Exact, Grid, LogUniform, RandInt, Strict, Uniform
from safecomm.spec import Sweep
from safecomm.spec.arms import dimensions
from safecomm.statistics.metric_table import BY_NAME
from safecomm.storage.own_code import is_dotted, load, refuse

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
COMPLETE = "complete"
"""The mark of a proposal that was written as a whole before the sweep was interrupted."""

logging.getLogger("optuna").setLevel(logging.WARNING)


def distribution(space: Strict) -> BaseDistribution:
    """Returns Optuna's form of a searched setting; of an `exact` the share of its values that lie below."""
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
        case Exact():
            return FloatDistribution(0, 1)
    raise TypeError(f"{type(space).__name__} is no searched setting")


def objectives(sweep: Sweep) -> list[str]:
    """Returns the objectives that the sweep has benchmarks for."""
    return [name for name in sweep.search.objectives if getattr(sweep.evaluate, BY_NAME[name].kind)]


class ArmStudy:
    """What has been proposed for one arm, and what it gave."""

    def __init__(self, arm: str, sweep: Sweep, journal: Path):
        """Opens the study, or goes on with it."""
        self._settings = sweep.search.of(arm)
        self._seed, self.later_batches = sweep.search.seed, sweep.search.batch
        self._spaces = {key: distribution(space) for key, space in dimensions(sweep.arms[arm]).items()}
        self._study = optuna.create_study(
            study_name=arm,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            load_if_exists=True,
            directions=[DIRECTIONS[BY_NAME[name].direction] for name in objectives(sweep)],
        )
        if not self._study.trials:
            with warnings.catch_warnings(action="ignore"):  # Optuna calls it experimental
                for point in sweep.search.points_of(arm, self._spaces):
                    self._study.enqueue_trial(point)
        self._drop_halves()

    @property
    def budget(self) -> int:
        """Distinct points that the arm is given."""
        assert self._settings.trials is not None, "Search.of fills it in"
        return self._settings.trials

    @property
    def most(self) -> int:
        """Proposals after which the arm ends: in a small space they all come to the same few points at last."""
        return 4 * self.budget

    @property
    def first_batch(self) -> int:
        """Points that are proposed before any is measured."""
        return max(self.later_batches, self.budget // 3)

    def proposals(self, start: int, count: int) -> list[FrozenTrial]:
        """Returns proposals: those of a former run, and new ones where there are too few.

        Args:
            start: how many there were before, all of which must have been told.
            count: how many.
        """
        known = self._known()
        return known[start : start + count] + [self._ask(place) for place in range(len(known), start + count)]

    def tell(self, number: int, values: Sequence[float] | None, violation: float = 0.0) -> None:
        """Reports the result of a proposal; repeated calls have no effect.

        Args:
            number: the proposal.
            values: its objectives; None if it failed.
            violation: by how much it misses the constraints, at most 0 if it keeps them. Samplers that know
                constraints (`tpe`, `nsga2`) prefer points that keep them, whatever their objectives.
        """
        trial = self._study.trials[number]
        if trial.state != TrialState.RUNNING:
            return
        if values:
            # The proposal may be from an earlier run of the sweep, whose Trial object is gone.
            optuna.Trial(self._study, trial._trial_id).set_constraint("keeps the target", violation)
        self._study.tell(number, values, state=None if values else TrialState.FAIL)

    def _known(self) -> list[FrozenTrial]:
        alive = (TrialState.COMPLETE, TrialState.RUNNING)
        return self._study.get_trials(deepcopy=False, states=alive)

    def _ask(self, place: int) -> FrozenTrial:
        # A sampler of its own for each proposal: none depends on how often the sweep was started.
        self._study.sampler = _sampler(str(self._settings.algorithm), self._seed + place, self.budget)
        trial = self._study.ask(self._spaces)
        trial.set_user_attr(COMPLETE, True)
        return self._study.trials[trial.number]

    def _drop_halves(self) -> None:
        """Gives up proposals that an interruption left half written."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if COMPLETE not in trial.user_attrs:
                self._study.tell(trial.number, state=TrialState.FAIL)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "random": lambda seed, budget: RandomSampler(seed=seed),
    "tpe": lambda seed, budget: TPESampler(seed=seed, n_startup_trials=max(4, budget // 3)),
    "nsga2": lambda seed, budget: NSGAIISampler(seed=seed, population_size=max(4, budget // 4)),
    "cmaes": lambda seed, budget: CmaEsSampler(seed=seed),
}
"""Make the samplers, given a seed and how many points an arm has; a user's own is such a function too."""
WITHOUT_RANGES = "tpe"
"""Samples an arm under `grid`, whose lists are then picked from."""


def _sampler(algorithm: str, seed: int, budget: int) -> BaseSampler:
    """Returns a new sampler.

    Raises:
        UsageError: where a user's own function returns something else.
    """
    if not is_dotted(algorithm):
        return SAMPLERS.get(algorithm, SAMPLERS[WITHOUT_RANGES])(seed, budget)
    made = load(algorithm)(seed, budget)
    if not isinstance(made, BaseSampler):
        raise refuse(algorithm, f"(seed, budget) returned {made!r}; return an optuna.samplers.BaseSampler")
    return made
