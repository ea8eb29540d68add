"""A fine-tune that trains nothing, to rehearse a sweep: its ranks take the time of real ones."""

import json
import random
import time
from pathlib import Path
from typing import Any

from safecomm.data.rows import estimated_tokens
from safecomm.finetune.job import FinetuneJob
from safecomm.spec.simulation import Simulation
from safecomm.storage.store import local_copy

REPORTS = 5
"""Progress reports of a fine-tune; Ray Train handles one every two seconds, and all ranks wait for it."""
SECONDS_PER_REPORT = 4.0
"""Shorter fine-tunes report less often."""


def simulated_training(settings: dict[str, Any]) -> dict[str, Any]:
    """Takes a training's time on every rank.

    Args:
        settings: `job` (a FinetuneJob's fields) and `simulation` (a Simulation's fields).

    Returns:
        The same as `worker.train`, with a made-up loss.
    """
    import ray.train

    job, speed = FinetuneJob(**settings["job"]), Simulation(**settings["simulation"])
    rows = local_copy(Path(job.data)).read_text(encoding="utf-8").splitlines()
    seconds = speed.training_seconds(trained_tokens(job, rows), job.workers)
    steps = job.steps or max(1, round(len(rows) * job.epochs / job.batch_size))
    curve = []
    reports = max(1, min(REPORTS, int(seconds / SECONDS_PER_REPORT)))
    for report in range(1, reports + 1):
        time.sleep(seconds / reports)
        done = round(steps * report / reports)
        curve.append({"step": done, "loss": 1 / (1 + report)})
        if report < reports:
            ray.train.report(
                {
                    "train/loss": 1 / (1 + report),
                    "train/learning_rate": job.learning_rate,
                    "train/step": done,
                    "train/steps": steps,
                    "train/tokens_per_second": speed.trained_tokens_per_second * job.workers,
                }
            )
    return {
        "steps": steps,
        "loss": curve[-1]["loss"],
        "seconds": round(seconds, 2),
        "ranks": ray.train.get_context().get_world_size(),
        "peak_bytes": 0,
        "curve": curve,
    }


def trained_tokens(job: FinetuneJob, rows: list[str]) -> float:
    """Returns about how many tokens a fine-tune trains on, in all epochs.

    Args:
        job: the fine-tune.
        rows: the lines of its data file.
    """
    examples = map(json.loads, rows)
    tokens = sum(min(job.max_length, estimated_tokens(row["prompt"], row["response"])) for row in examples)
    return tokens * (job.steps * job.batch_size / len(rows) if job.steps else job.epochs)


def write_simulated_adapter(job: FinetuneJob, data: Path, out: Path) -> None:
    """Writes a random adapter whose update has norm 1; it depends on the hyperparameters and the data.

    Args:
        job: the fine-tune.
        data: a copy of its data file on this node.
        out: the adapter's folder.
    """
    import torch  # not needed by the ranks, of which many may share a machine

    from safecomm.defenses.adapter import Adapter, Factors
    from safecomm.defenses.weights import Weights

    weights = Weights(local_copy(Path(job.model)))
    seed = random.Random(json.dumps([job.hyperparameters, data.read_text(encoding="utf-8")])).getrandbits(63)
    generator = torch.Generator().manual_seed(seed)
    names = weights.modules(job.targets)
    modules = {}
    for name in names:
        d_out, d_in = weights.shape(name)
        A, B = torch.randn(job.rank, d_in, generator=generator), torch.randn(d_out, job.rank, generator=generator)
        modules[name] = Factors(A, B / torch.linalg.matrix_norm(B @ A) / len(names) ** 0.5, 1.0)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": list(job.targets)}
    Adapter(modules, config, str(out)).save(out)
