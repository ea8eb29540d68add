"""The engines of a sweep: those of the model under test and of the judge models."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from safecomm.judging.model_judge import judge_fleets
from safecomm.plan.plan import Plan
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Fleet, wait_for_fleet
from safecomm.spec import Sweep
from safecomm.sweep.stages import Stages


@contextmanager
def running_fleets(sweep: Sweep, stages: Stages, plan: Plan, say: Callable[[str], object]) -> Iterator[list[Fleet]]:
    """Runs the engines; call `wait_for_engines` before using them.

    In a phased sweep, engines on several GPUs are up before the judges start, which could otherwise occupy one of the
    GPUs that an engine needs on one node.
    """
    targets = sweep.cluster.target.model_copy(update={"replicas": plan.target_replicas})
    judges = sweep.cluster.judge.model_copy(update={"replicas": plan.judge_replicas})
    settings = EngineSettings(
        max_new_tokens=sweep.evaluate.max_new_tokens,
        max_model_len=sweep.evaluate.max_model_len,
        max_lora_rank=plan.max_lora_rank,
        lora_targets=tuple(sweep.finetune.lora.targets),
        sampled=sweep.evaluate.sampling != "greedy",
        simulation=sweep.speed.model_dump() if sweep.speed else None,
    )
    target = Fleet.of(sweep.evaluate.engine, str(stages.aligned.path), settings, targets, stages.on_gpu)
    fleets = [target, *judge_fleets(stages.measurement().panel, target, judges)]
    with ExitStack() as running:
        for fleet in fleets:
            running.enter_context(fleet.running())
            if sweep.cluster.phased and fleet.settings.gpus > 1:
                wait_for_engines([fleet], say)
        yield fleets


def wait_for_engines(fleets: Sequence[Fleet], say: Callable[[str], object]) -> None:
    """Waits until all engines run, however long the cluster takes to start nodes for them.

    The driver waits before it starts trials, because a trial gives up waiting for an engine after half an hour and is
    then recorded as failed.

    Raises:
        EvaluationError: if engines fail to start.
    """
    for fleet in fleets:
        say(f"waiting for the engines of the {fleet.name} fleet")
        wait_for_fleet(seconds=math.inf, fleet=fleet.name)
