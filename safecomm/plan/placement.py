"""The placement of a sweep's phases: GPUs for fine-tunes and engines, and the number of concurrent trials.

GPUs limit the fine-tunes, and engines limit the search. In a phased sweep the engines start after the fine-tunes and
use all GPUs, with as many additional replicas as fit.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from safecomm.cluster.session import TRIALS_WITHOUT_GPU, Resources
from safecomm.errors import SafecommError
from safecomm.plan.fit import NODE_GPUS
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import SAFE_ADAPTER, fine_tunes
from safecomm.spec import Sweep
from safecomm.spec.cluster import Replicas

TRIALS_PER_REPLICA = 8
"""Concurrent trials of the search per engine: enough to keep it busy while some of them judge, realign or start."""
PhaseName = Literal["train", "search", "report"]


class PlacementError(SafecommError):
    """The sweep can't run on this hardware."""


@dataclass(frozen=True)
class Phase:
    """One phase of a sweep."""

    name: PhaseName
    gpus: int
    """All GPUs of the cluster."""
    gpus_in_use: int
    """GPUs that fine-tunes and engines occupy."""
    trials_at_a_time: int
    """Limit on concurrent trials; Ray Tune needs it because it does not count the GPUs of Ray Train and Ray Serve."""
    hours: float | None = None
    """Estimated duration; None if the amount of work is unknown."""


@dataclass(frozen=True)
class Placement:
    """The GPUs of a sweep."""

    target_replicas: int
    """Engines of the model under test."""
    judge_replicas: int
    """Engines of each judge model."""
    fleet_gpus: int
    """GPUs of all engines."""
    finetune_gpus: int
    """GPUs of one fine-tune."""
    phases: list[Phase]


def place(sweep: Sweep, resources: Resources, equivalent: EquivalentPoints, trials: int, reported: int) -> Placement:
    """Distributes the GPUs.

    Args:
        sweep: the sweep.
        resources: the hardware.
        equivalent: determines which settings give the same adapter.
        trials: the most trials that the search has at a time.
        reported: the number of trials on the report split.

    Raises:
        PlacementError: if there are too few GPUs for the engines and one fine-tune, in turn or together, or no node is
            large enough for an engine.
    """
    cluster, gpus, limit = sweep.cluster, int(resources.gpus), sweep.cluster.concurrent_trials
    together = sweep.seeds if sweep.stops_early else 1  # trials that wait for each other
    if not gpus:
        at_a_time = dict.fromkeys(get_args(PhaseName), limit or TRIALS_WITHOUT_GPU)
        at_a_time["search"] = max(at_a_time["search"], together)
        phases = [Phase(name, 0, 0, trials) for name, trials in at_a_time.items()]
        return Placement(cluster.target.replicas, cluster.judge.replicas, 0, 0, phases)
    _check(sweep, gpus, equivalent)
    _check_groups(sweep, resources)
    targets, judges = _replicas(sweep, resources, equivalent)
    fleet, workers, tuned = _fleet_gpus(sweep, targets, judges), cluster.finetune.workers, _trained(sweep, equivalent)
    concurrent = 0 if _in_turn(sweep, equivalent) else fleet
    room = (gpus - concurrent) // workers
    training = min(limit or room, room, max(1, tuned))
    measuring = searching = limit or targets * TRIALS_PER_REPLICA
    tuning = training * workers if tuned else 0
    tuning_in_search = 0
    if is_open_ended(sweep, equivalent):  # trials of the search train as well
        searching = min(measuring, room)
        tuning_in_search = min(max(together, searching), room) * workers
    phases = [
        Phase("train", gpus, concurrent + tuning, training),
        Phase("search", gpus, fleet + tuning_in_search, max(together, min(searching, trials))),
        Phase("report", gpus, fleet, max(1, min(measuring, reported))),
    ]
    return Placement(targets, judges, fleet, workers, phases)


def least_gpus(sweep: Sweep, equivalent: EquivalentPoints) -> int:
    """Returns the minimum number of GPUs for a sweep: those of its engines and of one fine-tune."""
    cluster = sweep.cluster
    fleet = _fleet_gpus(sweep, cluster.target.replicas, cluster.judge.replicas)
    workers = cluster.finetune.workers
    return max(fleet, workers) if _in_turn(sweep, equivalent) else fleet + workers


def is_open_ended(sweep: Sweep, equivalent: EquivalentPoints) -> bool:
    """Returns whether the search decides which fine-tunes are trained, because a training defense has a range."""
    return any(equivalent.trainings(arm) is None for arm in sweep.arms)


def _in_turn(sweep: Sweep, equivalent: EquivalentPoints) -> bool:
    """Returns whether all fine-tunes end before the engines start, so that both can use the same GPUs."""
    return sweep.cluster.phased and not is_open_ended(sweep, equivalent)


def _trained(sweep: Sweep, equivalent: EquivalentPoints) -> int:
    """Returns the number of shared fine-tunes to train, which excludes a given `finetune.adapter`."""
    return sum(trial.arm == SAFE_ADAPTER or not sweep.finetune.adapter for trial in fine_tunes(sweep, equivalent))


def _fleet_gpus(sweep: Sweep, targets: int, judges: int) -> int:
    cluster = sweep.cluster
    return targets * cluster.target.engine_gpus + len(sweep.evaluate.judge_models) * judges * cluster.judge.engine_gpus


def _replicas(sweep: Sweep, resources: Resources, equivalent: EquivalentPoints) -> tuple[int, int]:
    """Returns the replicas of the target and of each judge: the configured ones or, in a phased sweep, as many as fit.

    The target gets the GPUs first, because its answers take longer than the verdicts. With labels, which reserve nodes,
    the configured numbers are kept.
    """
    target, judge, models = sweep.cluster.target, sweep.cluster.judge, len(sweep.evaluate.judge_models)
    if not _in_turn(sweep, equivalent) or target.labels or (models and judge.labels):
        return target.replicas, judge.replicas
    free = _gpus_by_node(resources)
    as_set = [_fit(target, target.replicas, free), _fit(judge, judge.replicas * models, free)]
    if as_set != [target.replicas, judge.replicas * models]:
        return target.replicas, judge.replicas
    more_targets = _fit(target, sum(free), free)
    more_judges = _fit(judge, sum(free), free) // models if models else 0
    return target.replicas + more_targets, judge.replicas + more_judges


def _fit(size: Replicas, most: int, free: list[int]) -> int:
    """Places up to `most` engines on the free GPUs of nodes; a tensor-parallel group stays on one node."""
    group, groups = size.tensor_parallel, size.pipeline_parallel
    possible = min(most * groups, sum(gpus // group for gpus in free)) // groups
    left = possible * groups
    for node, gpus in enumerate(free):
        taken = min(left, gpus // group)
        free[node] -= taken * group
        left -= taken
    return possible


def _gpus_by_node(resources: Resources) -> list[int]:
    """Returns the GPUs of each node; nodes that the cluster has yet to start are assumed to have eight."""
    known = [int(gpus) for gpus in resources.node_gpus]
    full, rest = divmod(int(resources.gpus) - sum(known), NODE_GPUS)
    return [*known, *[NODE_GPUS] * full, rest]


def _check(sweep: Sweep, gpus: int, equivalent: EquivalentPoints) -> None:
    least, cluster = least_gpus(sweep, equivalent), sweep.cluster
    if gpus >= least:
        return
    fleet = _fleet_gpus(sweep, cluster.target.replicas, cluster.judge.replicas)
    memory = f" of {cluster.gpu_memory:g} GiB" if cluster.gpu_memory else ""
    when = "in turn" if _in_turn(sweep, equivalent) else "together"
    raise PlacementError(
        f"the engines need {fleet} GPUs (cluster.target, cluster.judge) and one fine-tune needs "
        f"{cluster.finetune.workers} (cluster.finetune.workers), {when} {least}; there are {gpus}. Use {least} "
        f"GPUs{memory}, fewer replicas or workers, or a smaller tensor_parallel if memory allows it"
    )


def _check_groups(sweep: Sweep, resources: Resources) -> None:
    """Checks that an engine without pipeline parallelism fits on one node, where Ray is asked to place it."""
    largest = max(_gpus_by_node(resources))
    sizes = {"target": sweep.cluster.target, **({"judge": sweep.cluster.judge} if sweep.evaluate.judge_models else {})}
    for name, size in sizes.items():
        if size.pipeline_parallel == 1 and size.tensor_parallel > largest:
            raise PlacementError(
                f"cluster.{name}.tensor_parallel: an engine's {size.tensor_parallel} GPUs must be on one node, and the "
                f"largest node has {largest}; set tensor_parallel to at most {largest} and pipeline_parallel to the "
                "number of nodes"
            )
