"""Computes a sweep's trials and their placement before anything runs."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from safecomm.cluster.session import TRIALS_WITHOUT_GPU, Resources
from safecomm.data.rows import Prompt
from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.space import Exact, values_of
from safecomm.errors import DataError, ModelError, SafecommError
from safecomm.plan.data import all_prompts, datasets_to_download, split_prompts
from safecomm.plan.fit import check_finetune, check_fleet
from safecomm.plan.memory import GIB, Serving
from safecomm.plan.shapes import find_shape
from safecomm.search.arms import seeded
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.run_folder import RunFolder
from safecomm.spec import REFERENCE_ARMS, Step, Sweep
from safecomm.spec.arms import dimensions


class PlacementError(SafecommError):
    """The sweep can't run on this hardware."""


@dataclass(frozen=True)
class ArmPlan:
    """The number of an arm's trials, over all seeds."""

    settings: int
    """Requested settings."""
    trials: int
    """Distinct settings, as far as known before the run; the maximum number of trials."""
    done: int
    """Trials that are already finished."""


@dataclass(frozen=True)
class Prompts:
    """The number of prompts per model."""

    search: int
    """Maximum per trial of the search."""
    report: int
    """Per point on the report split."""
    judged: int
    """Answers on both splits that each judge labels."""
    unknown: str = ""
    """Why the prompts could not be counted, e.g. because a benchmark is not available here; empty if they were."""


@dataclass(frozen=True)
class Plan:
    """The trials, prompts and hardware of a sweep."""

    arms: dict[str, ArmPlan]
    finetunes: int | None
    """Distinct fine-tunes; None if they depend on the search."""
    finetunes_done: int
    """Fine-tunes that already exist."""
    prompts: Prompts
    fleet_gpus: int
    finetune_gpus: int
    """GPUs of one fine-tune."""
    least_gpus: int
    """The minimum number of GPUs; 0 without GPUs."""
    concurrent_trials: int
    max_lora_rank: int
    """The largest rank that an adapter of this sweep can have."""
    memory: list[str]
    """The memory that each GPU needs, as text."""

    @property
    def trials(self) -> int:
        """Trials of the search."""
        return sum(arm.trials for arm in self.arms.values())

    @property
    def trials_remaining(self) -> int:
        """Trials that are not finished yet."""
        return sum(arm.trials - arm.done for arm in self.arms.values())

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as the JSON values of `plan.json`, which calls finished trials and fine-tunes `over`."""
        plan = asdict(self)
        plan["finetunes_over"] = plan.pop("finetunes_done")
        for arm in plan["arms"].values():
            arm["over"] = arm.pop("done")
        return plan


def make_plan(sweep: Sweep, resources: Resources, equivalent: EquivalentPoints, *, fetch: bool = True) -> Plan:
    """Computes the trials and their placement.

    Args:
        sweep: the sweep.
        resources: the available hardware.
        equivalent: determines which settings are equivalent.
        fetch: whether to download benchmarks that are not available locally, to count their prompts.

    Raises:
        PlacementError: if the hardware is too small for the fleet and a fine-tune.
    """
    on_gpu = resources.gpus > 0
    fleet = _fleet_gpus(sweep) if on_gpu else 0
    workers = sweep.cluster.finetune.workers if on_gpu else 0
    shared, folder = fine_tunes(sweep, equivalent), RunFolder(sweep)
    rank = _largest_rank(sweep)
    return Plan(
        arms={arm: _arm(sweep, arm, equivalent, folder) for arm in [*REFERENCE_ARMS, *sweep.arms]},
        finetunes=None if _open_ended(sweep, equivalent) else len(shared),
        finetunes_done=sum(folder.find(trial) is not None for trial in shared),
        prompts=_prompts(sweep, fetch),
        fleet_gpus=fleet,
        finetune_gpus=workers,
        least_gpus=least_gpus(sweep, equivalent) if on_gpu else 0,
        concurrent_trials=_concurrency(sweep, resources, equivalent),
        max_lora_rank=rank,
        memory=_memory(sweep, rank) if on_gpu else [],
    )


def _arm(sweep: Sweep, arm: str, equivalent: EquivalentPoints, folder: RunFolder) -> ArmPlan:
    done = folder.count(arm)
    points = equivalent.points(arm)
    if points is None:
        trials = sweep.seeds * int(sweep.search.of(arm).trials or 0)
        return ArmPlan(trials, trials, min(done, trials))
    if not points:  # the values of `exact` are not known before the fine-tune
        spaces = dimensions(sweep.arms[arm]).values()
        most = math.prod(space.exact if isinstance(space, Exact) else len(values_of(space)) for space in spaces)
        return ArmPlan(sweep.seeds * most, sweep.seeds * most, 0)
    distinct = {equivalent.key(arm, point): point for point in reversed(points)}
    own = [trial for point in distinct.values() for trial in seeded(sweep, arm, point)]
    return ArmPlan(sweep.seeds * len(points), len(own), sum(folder.find(trial) is not None for trial in own))


def _prompts(sweep: Sweep, fetch: bool) -> Prompts:
    if not fetch and (away := datasets_to_download(sweep)):
        return Prompts(0, 0, 0, f"{', '.join(away)} would have to be fetched first; a local copy is given as `path:`")
    try:
        everything = all_prompts(sweep)
    except DataError as error:  # it may be there where the sweep is to run
        return Prompts(0, 0, 0, str(error))

    def answers(prompts: Iterable[Prompt]) -> int:
        return sum(1 if prompt.options else sweep.evaluate.samples for prompt in prompts)

    harmful = answers(prompt for prompt in everything if prompt.kind == "red_team")
    return Prompts(answers(split_prompts(sweep, "search")), answers(split_prompts(sweep, "report")), judged=harmful)


def _memory(sweep: Sweep, rank: int) -> list[str]:
    """Describes the memory that each GPU needs.

    Raises:
        PlacementError: if even the certain part of the memory does not fit.
    """
    if sweep.cluster.gpu_memory is None:
        return ["not estimated: say in cluster.gpu_memory how many GiB a GPU has"]
    gpu_bytes = int(sweep.cluster.gpu_memory * GIB)
    cluster, evaluate = sweep.cluster, sweep.evaluate
    length, targets = evaluate.max_model_len, sweep.finetune.lora.targets
    try:
        shape = find_shape(sweep.model.aligned)
        verdicts = [check_fleet(Serving(shape, cluster.target, length, rank, targets), gpu_bytes)]
        if sweep.finetune.data or sweep.finetune.safe_adapter:
            verdicts.append(check_finetune(shape, sweep.finetune, cluster.finetune.workers, gpu_bytes))
    except ModelError as error:
        return [f"not estimated: {error}"]
    unknown = []
    for model in evaluate.judge_models.values():
        try:
            verdicts.append(check_fleet(Serving(find_shape(model), cluster.judge, length), gpu_bytes, "cluster.judge"))
        except ModelError as error:
            unknown.append(f"not estimated: {error}")
    if impossible := [verdict.text for verdict in verdicts if verdict.fits == "no"]:
        raise PlacementError("; ".join(impossible))
    return [("" if verdict.fits == "yes" else "may not fit: ") + verdict.text for verdict in verdicts] + unknown


def least_gpus(sweep: Sweep, equivalent: EquivalentPoints) -> int:
    """Returns the minimum number of GPUs for a sweep's engines and one fine-tune."""
    fleet, workers = _fleet_gpus(sweep), sweep.cluster.finetune.workers
    return max(fleet, workers) if _take_turns(sweep, equivalent) else fleet + workers


def _fleet_gpus(sweep: Sweep) -> int:
    target, judge = sweep.cluster.target, sweep.cluster.judge
    return target.gpus + len(sweep.evaluate.judge_models) * judge.gpus


def _open_ended(sweep: Sweep, equivalent: EquivalentPoints) -> bool:
    """Returns whether the fine-tunes depend on the search, because a training setting is a range."""
    return any(equivalent.trainings(arm) is None for arm in sweep.arms)


def _take_turns(sweep: Sweep, equivalent: EquivalentPoints) -> bool:
    """Returns whether all fine-tunes end before the engines start, so that both can use the same GPUs."""
    return sweep.cluster.phased and not _open_ended(sweep, equivalent)


def _concurrency(sweep: Sweep, resources: Resources, equivalent: EquivalentPoints) -> int:
    """Returns the maximum number of concurrent trials. It is the only limit: Ray Tune ignores Ray Train's GPUs."""
    asked = sweep.cluster.concurrent_trials
    if not resources.gpus:
        return asked or TRIALS_WITHOUT_GPU
    fleet, workers, turns = _fleet_gpus(sweep), sweep.cluster.finetune.workers, _take_turns(sweep, equivalent)
    if resources.gpus < (least := least_gpus(sweep, equivalent)):
        raise PlacementError(
            f"the fleet needs {fleet} GPUs (cluster.target, cluster.judge) and one fine-tune {workers} "
            f"(cluster.finetune.workers), {'in turn' if turns else 'together'} {least}; there are {resources.gpus:g}. "
            f"It would fit with {least} GPUs{_size(sweep)}, or with fewer replicas or workers, or a smaller "
            "tensor_parallel, where memory allows it"
        )
    room = int(resources.gpus - (0 if turns else fleet)) // workers
    return min(asked or room, room)


def _size(sweep: Sweep) -> str:
    return f" of {sweep.cluster.gpu_memory:g} GiB" if sweep.cluster.gpu_memory else ""


def _largest_rank(sweep: Sweep) -> int:
    return max((_rank(sweep, chain) for chain in sweep.arms.values()), default=sweep.finetune.lora.r)


def _rank(sweep: Sweep, chain: list[Step]) -> int:
    """Returns the largest rank of an arm's adapter: the trained rank plus the rank that its realignments add."""
    section = sweep.finetune.lora.r
    steps = [step.settings for step in chain]
    trained = [rank for step in steps if isinstance(step, TrainingDefense) and (rank := step.trained_rank())]
    return max(section, max(trained, default=section) + sum(step.added_rank(section) for step in steps))
