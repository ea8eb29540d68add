"""An arm's Optuna study, which proposes the settings of an arm with ranges.

The study is stored in a journal in the run folder, so an interrupted sweep continues with its earlier results.
Proposals depend only on the seed and the results of earlier batches: a sweep always makes the same proposals, however
many trials run concurrently and wherever it was interrupted.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from safecomm.defenses.space import Choice, Exact, Grid, LogUniform, RandInt, Strict, Uniform
from safecomm.search.journal import open_journal
from safecomm.spec import Sweep
from safecomm.spec.arms import dimensions
from safecomm.statistics.metric_table import BY_NAME
from safecomm.storage.own_code import is_dotted, load, refuse
from safecomm.storage.store import digest

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
COMPLETE = "complete"
"""The attribute that marks a proposal as written completely, in case the sweep was interrupted."""

logging.getLogger("optuna").setLevel(logging.WARNING)


def distribution(space: Strict) -> BaseDistribution:
    """Returns Optuna's distribution for a searched setting; for an `exact`, a relative position among its values."""
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
    raise TypeError(f"{type(space).__name__} is not a search space")


def objectives(sweep: Sweep) -> list[str]:
    """Returns the objectives for which the sweep has benchmarks."""
    return [name for name in sweep.search.objectives if getattr(sweep.evaluate, BY_NAME[name].kind)]


class ArmStudy:
    """The proposals for one arm and their results."""

    def __init__(self, arm: str, sweep: Sweep, journal: Path):
        """Creates the study, or continues the one in the journal."""
        self._settings = sweep.search.of(arm)
        self._seed = sweep.search.seed
        self.first_batch, self.later_batches = sweep.search.first_batch_of(arm), sweep.search.batch_of(arm)
        self._spaces = {key: distribution(space) for key, space in dimensions(sweep.arms[arm]).items()}
        directions = [DIRECTIONS[BY_NAME[name].direction] for name in objectives(sweep)]
        self._study = _study(open_journal(journal), arm, self._spaces, directions)
        if not self._all():
            with warnings.catch_warnings(action="ignore"):  # Optuna marks it as experimental
                for point in sweep.search.points_of(arm, self._spaces):
                    self._study.enqueue_trial(point)
        self._drop_incomplete()

    @property
    def budget(self) -> int:
        """The number of distinct points to try in the arm."""
        assert self._settings.trials is not None, "Search.of sets it"
        return self._settings.trials

    @property
    def most(self) -> int:
        """The maximum number of proposals, because a small space may have fewer distinct points than the budget."""
        return 4 * self.budget

    def proposals(self, start: int, count: int) -> list[FrozenTrial]:
        """Returns proposals: those of an earlier run first, then new ones.

        Args:
            start: the number of earlier proposals, whose results must all have been reported with `tell`.
            count: the number of proposals to return.
        """
        known = self._known()
        return known[start : start + count] + [self._ask(place) for place in range(len(known), start + count)]

    def tell(self, number: int, values: Sequence[float] | None, violation: float = 0.0) -> None:
        """Reports the result of a proposal; repeated calls have no effect.

        Args:
            number: the proposal.
            values: its objectives; None if it failed.
            violation: by how much it violates the constraints; at most 0 if it satisfies them. Samplers that support
                constraints (`tpe`, `nsga2`) prefer points that satisfy them, whatever their objectives.
        """
        trial = self._all()[number]
        if trial.state != TrialState.RUNNING:
            return
        if values:
            # The proposal may be from an earlier run of the sweep, whose Trial object is gone.
            optuna.Trial(self._study, trial._trial_id).set_constraint("keeps the target", violation)
        self._study.tell(number, values, state=None if values else TrialState.FAIL)

    def _all(self) -> list[FrozenTrial]:
        """Returns all trials; not `Study.trials`, which copies each of them deeply."""
        return self._study.get_trials(deepcopy=False)

    def _known(self) -> list[FrozenTrial]:
        alive = (TrialState.COMPLETE, TrialState.RUNNING)
        return self._study.get_trials(deepcopy=False, states=alive)

    def _ask(self, place: int) -> FrozenTrial:
        # A new sampler per proposal makes proposals independent of how often the sweep was restarted.
        self._study.sampler = _sampler(str(self._settings.algorithm), self._seed + place, self.budget)
        trial = self._study.ask(self._spaces)
        trial.set_user_attr(COMPLETE, True)
        return self._all()[trial.number]

    def _drop_incomplete(self) -> None:
        """Marks proposals that an interruption left incomplete as failed."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if COMPLETE not in trial.user_attrs:
                self._study.tell(trial.number, state=TrialState.FAIL)


def _study(
    storage: JournalStorage, arm: str, spaces: Mapping[str, BaseDistribution], directions: list[StudyDirection]
) -> optuna.Study:
    """Returns an arm's study, or one beside it if it searched other settings, choices or objectives."""
    create = partial(optuna.create_study, storage=storage, load_if_exists=True, directions=directions)
    study = create(study_name=arm)
    known = [trial.distributions for trial in study.get_trials(deepcopy=False) if trial.distributions]
    if study.directions == directions and all(_fits(spaces, before) for before in known):
        return study
    texts = {name: distribution_to_json(space) for name, space in spaces.items()}
    return create(study_name=f"{arm} {digest([texts, [one.name for one in directions]])}")


def _fits(spaces: Mapping[str, BaseDistribution], before: Mapping[str, BaseDistribution]) -> bool:
    """Whether proposals of earlier spaces are proposals of these; a range may have become wider or narrower."""
    try:
        for name, space in spaces.items():
            check_distribution_compatibility(before[name], space)
    except (KeyError, ValueError):
        return False
    return before.keys() == spaces.keys()


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "random": lambda seed, budget: RandomSampler(seed=seed),
    "tpe": lambda seed, budget: TPESampler(seed=seed, n_startup_trials=max(4, budget // 3)),
    "nsga2": lambda seed, budget: NSGAIISampler(seed=seed, population_size=max(4, budget // 4)),
    "cmaes": lambda seed, budget: CmaEsSampler(seed=seed),
}
"""Functions that return a sampler, given a seed and the budget of an arm; a user's own sampler is such a function."""
WITHOUT_RANGES = "tpe"
"""The sampler for `choice` lists in an arm whose algorithm is `grid`."""


def _sampler(algorithm: str, seed: int, budget: int) -> BaseSampler:
    """Returns a new sampler.

    Raises:
        UsageError: if a user's own function does not return a sampler.
    """
    if not is_dotted(algorithm):
        return SAMPLERS.get(algorithm, SAMPLERS[WITHOUT_RANGES])(seed, budget)
    sampler = load(algorithm)(seed, budget)
    if not isinstance(sampler, BaseSampler):
        raise refuse(algorithm, f"(seed, budget) returned {sampler!r}; return an optuna.samplers.BaseSampler")
    return sampler
