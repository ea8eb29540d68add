"""Runs a fine-tune on Ray Train workers and checks the saved adapter."""

import itertools
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from safecomm.cluster.session import CPU_SHARE
from safecomm.defenses.adapter import Adapter
from safecomm.errors import TrainingError
from safecomm.finetune.checkpoints import drop_incomplete, last_step
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.simulated import simulated_training, write_simulated_adapter
from safecomm.finetune.worker import train
from safecomm.spec.simulation import Simulation
from safecomm.storage import shared
from safecomm.storage.names import TRAINING
from safecomm.storage.store import Store, local_copy, write_json

logger = logging.getLogger(__name__)

WAIT_SECONDS = 2 * 3600
"""Timeout of collective operations. Ranks wait in one while another tokenizes; Ray Train itself notices dead ranks."""
ATTEMPTS = 3
"""Number of consecutive failures without a new checkpoint after which a fine-tune is abandoned."""


def finetune(
    job: FinetuneJob,
    out: Path,
    store: Store,
    *,
    on_gpu: bool,
    callbacks: Sequence[Any] = (),
    labels: Mapping[str, str] | None = None,
    spread: bool = False,
    simulation: Simulation | None = None,
) -> None:
    """Trains the job's adapter and writes it to `out`, with `training.json` (steps, loss, seconds, curve) beside it.

    An interrupted run resumes from its last checkpoint. If a rank or its node dies, all ranks are stopped and the
    fine-tune is retried from the last checkpoint.

    Args:
        job: the fine-tune.
        out: the adapter's output folder.
        store: the store whose scratch folder holds the checkpoints.
        on_gpu: whether each rank has a GPU.
        callbacks: Ray Train callbacks.
        labels: required labels of the training nodes.
        spread: whether to place the ranks on different nodes if possible.
        simulation: the speed of a simulated fine-tune, which writes a random adapter; None to train.

    Raises:
        TrainingError: if the loss is not finite, the workers fail repeatedly, or the saved adapter is untrained or not
            finite.
    """
    checkpoints = store.root / "scratch" / f"finetune-{job.name}-checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    runs = store.root / "scratch" / "train"
    settings = {"job": asdict(job), "out": str(out), "checkpoints": str(checkpoints)}
    scaling = ray.train.ScalingConfig(
        num_workers=job.workers,
        use_gpu=on_gpu,
        resources_per_worker={"CPU": CPU_SHARE, "GPU": int(on_gpu)},
        label_selector=dict(labels or {}),
        placement_strategy="SPREAD" if spread else "PACK",
    )

    def attempt(number: int) -> DataParallelTrainer:
        # A new name for each attempt: Ray Train restores the state of a run with a known name.
        return _trainer(settings, scaling, runs, f"{out.name}-{number}", callbacks, simulation)

    metrics, attempts = _fit(attempt, checkpoints, job.workers)
    write_json(out / TRAINING, metrics)
    if simulation:
        for folder in (out, *(out / str(step) for step in job.kept_steps)):
            write_simulated_adapter(job, local_copy(Path(job.data)), folder)
    shared.fetch(out)  # rank 0 may have run on another node
    Adapter.load(out).check_trained()
    _remove(checkpoints, *(runs / f"{out.name}-{number}" for number in range(1, attempts + 1)))
    shared.unpublish(out)


def _fit(attempt: Callable[[int], DataParallelTrainer], checkpoints: Path, ranks: int) -> tuple[Any, int]:
    """Trains until an attempt succeeds, each from the last checkpoint of the one before.

    Args:
        attempt: returns the trainer of an attempt, numbered from 1.
        checkpoints: the folder of the checkpoints.
        ranks: the number of ranks, all of which write a part of a checkpoint.

    Returns:
        What rank 0 returned, and the number of attempts.

    Raises:
        TrainingError: as `finetune`.
    """
    failures, reached = 0, -1
    drop_incomplete(checkpoints, ranks)
    for number in itertools.count(1):
        try:
            return attempt(number).fit().return_value, number
        except ray.train.TrainingFailedError as error:
            cause = _training_error(error)
            drop_incomplete(checkpoints, ranks)
            step = last_step(checkpoints)
            failures, reached = (failures + 1, reached) if step <= reached else (1, step)
            if cause or failures == ATTEMPTS:
                raise cause or TrainingError(f"the fine-tune failed {failures} times: {_last_line(error)}") from error
            logger.warning("the fine-tune's workers failed (%s); resuming from the last checkpoint", _last_line(error))
    raise AssertionError("itertools.count does not end")


def _remove(*folders: Path) -> None:
    """Deletes what the attempts left, here and in the bucket."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        shared.unpublish(folder)


def _trainer(
    settings: dict[str, Any],
    scaling: ray.train.ScalingConfig,
    runs: Path,
    name: str,
    callbacks: Sequence[Any],
    simulation: Simulation | None = None,
) -> DataParallelTrainer:
    """Returns a trainer for one attempt."""
    on_gpu = scaling.use_gpu
    run = ray.train.RunConfig(
        name=name,
        storage_path=shared.address(runs),
        callbacks=list(callbacks),
        worker_runtime_env=None if on_gpu else {"env_vars": {"DS_ACCELERATOR": "cpu"}},
    )
    if simulation:
        settings = settings | {"simulation": simulation.model_dump()}
        return DataParallelTrainer(
            simulated_training, train_loop_config=settings, scaling_config=scaling, run_config=run
        )
    return TorchTrainer(
        train,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=WAIT_SECONDS),
        scaling_config=scaling,
        run_config=run,
    )


def training_metrics(adapter: Path) -> dict[str, Any]:
    """Returns the metrics that a fine-tune wrote beside its adapter."""
    value: dict[str, Any] = json.loads((adapter / TRAINING).read_text(encoding="utf-8"))
    return value


def _training_error(error: Exception) -> TrainingError | None:
    """Returns the TrainingError among the workers' failures, if there is one."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "cause", None) or failure
        if isinstance(cause, TrainingError):
            return cause
        for line in reversed(str(cause).splitlines()):
            if "TrainingError: " in line:
                return TrainingError(line.partition("TrainingError: ")[2])
    return None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
