"""What a sweep would run and on what, worked out before anything runs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from safecomm.errors import SafecommError
from safecomm.ray_session import Resources
from safecomm.spec import REFERENCE_ARMS, Defense, Sweep
from safecomm.spec.arms import RestaInstruct, SafeMerge, Training, dimensions
from safecomm.spec.space import Exact, values_of
from safecomm.sweep.fine_tunes import fine_tunes
from safecomm.sweep.outcomes import Outcomes

TRIALS_WITHOUT_GPU = 2


class PlacementError(SafecommError):
    """The sweep can't run on this hardware."""


@dataclass(frozen=True)
class ArmPlan:
    """One arm in numbers, over all seeds."""

    settings: int
    """Settings that are asked for."""
    trials: int
    """Those that come to something of their own, as far as it is known; at most so many are measured."""


@dataclass(frozen=True)
class Plan:
    """A sweep in numbers."""

    arms: dict[str, ArmPlan]
    finetunes: int | None
    """Distinct fine-tunes; None where a range leaves it to the search."""
    fleet_gpus: int
    finetune_gpus: int
    """GPUs of one fine-tune."""
    concurrent_trials: int
    max_lora_rank: int
    """The largest rank that an adapter of this sweep can have."""

    @property
    def trials(self) -> int:
        """Trials of the search."""
        return sum(arm.trials for arm in self.arms.values())

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON-able values."""
        return asdict(self)


def make_plan(sweep: Sweep, resources: Resources, outcomes: Outcomes) -> Plan:
    """Works out the trials and their placement.

    Args:
        sweep: the sweep.
        resources: what it is to run on.
        outcomes: tells which settings come to the same.

    Raises:
        PlacementError: when the hardware can't hold the fleet and one fine-tune at the same time.
    """
    on_gpu = resources.gpus > 0
    fleet = _fleet_gpus(sweep) if on_gpu else 0
    workers = sweep.cluster.finetune.workers if on_gpu else 0
    open_ended = any(outcomes.trainings(arm) is None for arm in sweep.arms)
    return Plan(
        arms={arm: _arm(sweep, arm, outcomes) for arm in [*REFERENCE_ARMS, *sweep.arms]},
        finetunes=None if open_ended else len(fine_tunes(sweep, outcomes)),
        fleet_gpus=fleet,
        finetune_gpus=workers,
        concurrent_trials=_concurrency(sweep, resources, fleet, workers),
        max_lora_rank=_largest_rank(sweep),
    )


def _arm(sweep: Sweep, arm: str, outcomes: Outcomes) -> ArmPlan:
    points = outcomes.points(arm)
    if points is None:
        trials = sweep.seeds * int(sweep.search.of(arm).trials or 0)
        return ArmPlan(trials, trials)
    if not points:  # the values of `exact` are not known before the fine-tune
        spaces = dimensions(sweep.arms[arm]).values()
        most = math.prod(space.exact if isinstance(space, Exact) else len(values_of(space)) for space in spaces)
        return ArmPlan(sweep.seeds * most, sweep.seeds * most)
    return ArmPlan(sweep.seeds * len(points), sweep.seeds * len({outcomes.key(arm, point) for point in points}))


def _fleet_gpus(sweep: Sweep) -> int:
    target, judge = sweep.cluster.target, sweep.cluster.judge
    return target.gpus + len(sweep.evaluate.judge_models) * judge.gpus


def _concurrency(sweep: Sweep, resources: Resources, fleet: int, workers: int) -> int:
    """Returns how many trials may run at a time; the only brake, as Ray Tune does not count Ray Train's GPUs."""
    asked = sweep.cluster.concurrent_trials
    if not workers:
        return asked or TRIALS_WITHOUT_GPU
    room = int(resources.gpus - fleet) // workers
    if room < 1:
        raise PlacementError(
            f"the fleet needs {fleet} GPUs (cluster.target, cluster.judge) and one fine-tune {workers} "
            f"(cluster.finetune.workers), together {fleet + workers}; there are {resources.gpus:g}. Lower replicas, "
            "tensor_parallel or workers there, or add GPUs"
        )
    return min(asked or room, room)


def _largest_rank(sweep: Sweep) -> int:
    """A `cat` merge adds the safe adapter's rank to the fine-tuned one's, RESTA that of the alignment's part."""
    return max((_rank(sweep, chain) for chain in sweep.arms.values()), default=sweep.finetune.lora.r)


def _rank(sweep: Sweep, chain: list[Defense]) -> int:
    section = sweep.finetune.lora.r
    trained = [step.settings.rank for step in chain if isinstance(step.settings, Training) and step.settings.rank]
    rank = max((value for ranks in trained for value in values_of(ranks)), default=section)
    return max(section, rank + sum(_added_rank(step, section) for step in chain))


def _added_rank(step: Defense, rank: int) -> int:
    if isinstance(step.settings, SafeMerge) and step.settings.combine == "cat":
        return rank
    return max(values_of(step.settings.rank)) if isinstance(step.settings, RestaInstruct) else 0
