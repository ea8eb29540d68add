"""Computes a sweep's trials and their placement before anything runs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from safecomm.cluster.session import Resources
from safecomm.data.judgeable import check_judgeable
from safecomm.data.rows import Prompt
from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.space import Exact, values_of
from safecomm.errors import DataError, ModelError
from safecomm.plan.data import (
    all_prompts,
    check_enough,
    check_safety_data,
    datasets_to_download,
    non_commercial,
    overlaps,
    split_prompts,
)
from safecomm.plan.fit import check_finetune, check_fleet
from safecomm.plan.hours import hours
from safecomm.plan.memory import GIB, Serving
from safecomm.plan.node_memory import node_memory
from safecomm.plan.placement import Phase, PhaseName, PlacementError, is_open_ended, least_gpus, place
from safecomm.plan.power import power
from safecomm.plan.shapes import find_shape
from safecomm.plan.targets import check_cpu_engine, check_targets
from safecomm.search.arms import TAMPER, seeded
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.run_folder import RunFolder
from safecomm.spec import REFERENCE_ARMS, Step, Sweep
from safecomm.spec.arms import dimensions
from safecomm.spec.drift import POLICIES


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
    """Answers of either that judges read, by each judge."""
    tampered: int = 0
    """Per adapter that was trained further (`tamper`)."""
    overlaps: tuple[str, ...] = ()
    """What is left out because it is in the training data."""
    power: tuple[str, ...] = ()
    """What the report split can show (see `power`)."""
    unknown: str = ""
    """Why the prompts could not be counted, e.g. because a benchmark is not available here; empty if they were."""


@dataclass(frozen=True)
class FurtherTraining:
    """The work of the section `tamper`, on every arm's best adapter; it is not in the phases' hours."""

    trainings: int
    steps: int
    """Optimizer steps of each training."""
    trials: int
    """Trained adapters to measure."""
    prompts: int
    """Per trial; 0 if they could not be counted."""


@dataclass(frozen=True)
class DriftStudy:
    """The work of the section `drift`, on every arm's best adapter; it is not in the phases' hours."""

    trials: int
    """Adapters to train and to measure on the report split."""
    finetunes: int
    """The most fine-tunes; policies that take the same decisions share them."""
    measurements: int
    """The most adapters that are measured on the search split, to decide on a defense."""


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
    """GPUs of all engines."""
    finetune_gpus: int
    """GPUs of one fine-tune."""
    least_gpus: int
    """GPUs that the sweep takes at least; 0 where there are none."""
    target_replicas: int
    """Engines of the model under test."""
    judge_replicas: int
    """Engines of each judge that is a model."""
    phases: list[Phase]
    """Train, search and report."""
    max_lora_rank: int
    """The largest rank that an adapter of this sweep can have."""
    memory: list[str]
    """The memory that each GPU needs, and that a defense needs on a node, as text."""
    licences: list[str]
    """The training sets that are not for commercial use."""
    further: FurtherTraining | None = None
    """Further training; None without the section `tamper`."""
    drift: DriftStudy | None = None
    """Later generations; None without the section `drift`."""

    @property
    def trials(self) -> int:
        """Trials of the search."""
        return sum(arm.trials for arm in self.arms.values())

    @property
    def trials_remaining(self) -> int:
        """Trials that are not finished yet."""
        return sum(arm.trials - arm.done for arm in self.arms.values())

    def trials_at_a_time(self, phase: PhaseName) -> int:
        """Returns the limit on a phase's concurrent trials."""
        return next(one.trials_at_a_time for one in self.phases if one.name == phase)

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
        PlacementError: when the hardware can't hold the fleet and one fine-tune at the same time.
        ModelError: if the adapter's targets are experts.
    """
    on_gpu = resources.gpus > 0
    if sweep.finetune.data or sweep.finetune.safe_adapter:
        check_targets(sweep.model.aligned, sweep.finetune.lora.targets)
    if not on_gpu:
        check_cpu_engine(sweep.model.aligned, sweep.evaluate.engine)
    shared, folder = fine_tunes(sweep, equivalent), RunFolder(sweep)
    missing = [trial for trial in shared if folder.find(trial) is None]
    rank = _largest_rank(sweep)
    arms = {arm: _arm(sweep, arm, equivalent, folder) for arm in [*REFERENCE_ARMS, *sweep.arms]}
    trials, reported = sum(arm.trials for arm in arms.values()), sweep.seeds * len(arms)
    reported *= len(sweep.search.reported_splits)
    placed = place(sweep, resources, equivalent, _trials_at_once(sweep, arms, equivalent), reported)
    left: dict[PhaseName, int] = {"search": trials - sum(arm.done for arm in arms.values()), "report": reported}
    prompts = _prompts(sweep, fetch)
    return Plan(
        arms=arms,
        finetunes=None if is_open_ended(sweep, equivalent) else len(shared),
        finetunes_done=len(shared) - len(missing),
        prompts=prompts,
        fleet_gpus=placed.fleet_gpus,
        finetune_gpus=placed.finetune_gpus,
        least_gpus=least_gpus(sweep, equivalent) if on_gpu else 0,
        target_replicas=placed.target_replicas,
        judge_replicas=placed.judge_replicas,
        phases=hours(sweep, placed, missing, left),
        max_lora_rank=rank,
        memory=[*(_memory(sweep, rank) if on_gpu else []), *node_memory(sweep)],
        licences=non_commercial(sweep),
        further=_further(sweep, prompts),
        drift=_drift(sweep, arms),
    )


def _trials_at_once(sweep: Sweep, arms: Mapping[str, ArmPlan], equivalent: EquivalentPoints) -> int:
    """Returns the most trials that the search itself allows at a time: a sampler's first batch is its largest."""
    return sum(
        plan.trials if equivalent.points(arm) is not None else sweep.seeds * sweep.search.first_batch_of(arm)
        for arm, plan in arms.items()
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
        return Prompts(
            0, 0, 0, unknown=f"{', '.join(away)} would have to be fetched first; a local copy is given as `path:`"
        )
    try:
        everything = all_prompts(sweep, fetch)
    except DataError as error:  # it may be there where the sweep is to run
        return Prompts(0, 0, 0, unknown=str(error))
    check_enough(sweep, everything)
    check_safety_data(sweep, fetch=False)
    check_judgeable(everything, sweep.evaluate.judges[0].name, "evaluate.judges")

    def answers(prompts: Iterable[Prompt]) -> int:
        return sum(1 if prompt.options else sweep.evaluate.samples for prompt in prompts)

    harmful = answers(prompt for prompt in everything if prompt.kind == "red_team")
    search, report = (split_prompts(sweep, split, fetch) for split in ("search", "report"))
    return Prompts(
        answers(search),
        answers(report),
        judged=harmful,
        tampered=answers(split_prompts(sweep, TAMPER, fetch)),
        overlaps=tuple(overlaps(sweep, fetch)),
        power=tuple(power(report, sweep.search.target_asr)),
    )


def _further(sweep: Sweep, prompts: Prompts) -> FurtherTraining | None:
    if sweep.tamper is None:
        return None
    settings = len(sweep.tamper.curves) * len(sweep.tamper.learning_rates)
    trainings = sweep.seeds * settings * (len(sweep.arms) + 1)  # of the arms and of undefended
    steps = sweep.tamper.steps
    return FurtherTraining(trainings, steps[-1], trainings * len(steps), prompts.tampered)


def _drift(sweep: Sweep, arms: Mapping[str, ArmPlan]) -> DriftStudy | None:
    if sweep.drift is None:
        return None
    study = sweep.drift
    courses = sweep.seeds * len(study.starts) * len(study.permutations()) * len(study.generations)
    trials = finetunes = measurements = 0
    for arm, chain in sweep.arms.items():
        trains = any(step.trains for step in chain)
        points = arms[arm].trials // sweep.seeds
        for how in (POLICIES[name] for name in study.policies):
            undefended = how.when != "always"
            applied = 0 if how.when == "never" else points if how.searches else 1
            trials += courses
            finetunes += courses * (undefended + (applied if trains else 1 - undefended))
            measurements += courses * ((how.when == "on_failure") + (points if how.searches else 0))
    return DriftStudy(trials, finetunes, measurements)


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


def _largest_rank(sweep: Sweep) -> int:
    return max((_rank(sweep, chain) for chain in sweep.arms.values()), default=sweep.finetune.lora.r)


def _rank(sweep: Sweep, chain: list[Step]) -> int:
    """Returns the largest rank of an arm's adapter: the trained rank plus the rank that its realignments add.

    In a drift study each generation adds it again; with `merge`, it adds that of a new adapter too.
    """
    section = sweep.finetune.lora.r
    steps = [step.settings for step in chain]
    trained = max(
        [rank for step in steps if isinstance(step, TrainingDefense) and (rank := step.trained_rank())], default=section
    )
    added = sum(step.added_rank(section) for step in steps)
    starts, generations = (sweep.drift.starts, len(sweep.drift.generations)) if sweep.drift else ([], 0)
    later = added * generations if "continue" in starts else 0
    later = (added + trained) * generations if "merge" in starts else later
    return max(section, trained + added + later)
