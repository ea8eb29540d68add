"""The functions that run in Ray tasks on the node under test."""

import asyncio
import os
import re
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from safecomm.selftest.answers import tokens_written
from safecomm.selftest.models import Files
from safecomm.selftest.sizes import Sizes
from safecomm.serving.engine import Answer, EngineSettings, Question

TOLERANCE = 0.02
"""The largest relative difference allowed between a profile or merge in fp32 and the paper's formula in fp64."""
WEIGHT = 0.7
ENGINE_ERROR = re.compile(r"EngineCore.*?((?:\w+\.)*\w*(?:Error|Exception): .+)")


@dataclass(frozen=True)
class Device:
    """The GPU or CPU of a node."""

    name: str
    bytes: int
    """The GPU's memory; without a GPU, the node's."""


@dataclass(frozen=True)
class Measured:
    """The speed and peak memory of a task."""

    tokens_per_second: float | None = None
    memory: int | None = None


def look_at_device(on_gpu: bool) -> Device:
    """Multiplies two matrices in bf16 on the node's GPU or CPU, and returns which it is.

    Raises:
        RuntimeError: if torch does not see the GPU, or the product is wrong.
    """
    import platform

    import torch

    from safecomm.defenses.hardware import device

    if on_gpu and not torch.cuda.is_available():
        raise RuntimeError(
            f"torch {torch.__version__} does not see the GPU that Ray assigned; torch may be a CPU build or the driver "
            "too old. `python -c 'import torch; torch.cuda.init()'` shows the reason"
        )
    where = device() if on_gpu else torch.device("cpu")
    ones = torch.ones(256, 256, dtype=torch.bfloat16, device=where)
    if not bool((ones @ ones == 256).all()):
        raise RuntimeError(f"{where}: a product of two bf16 matrices is wrong: 256 ones times 256 ones is not 256")
    if on_gpu:
        properties = torch.cuda.get_device_properties(where)
        return Device(properties.name, properties.total_memory)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(f"{platform.machine()}, {os.cpu_count()} CPUs", memory)


def fine_tune(files: Files, sizes: Sizes, out: Path, workers: int, on_gpu: bool, labels: dict[str, str]) -> Measured:
    """Trains an adapter under Ray Train, as a sweep does.

    Raises:
        TrainingError: if it fails, or the loss does not fall.
    """
    from safecomm.errors import TrainingError
    from safecomm.finetune.job import FinetuneJob
    from safecomm.finetune.launch import finetune, training_metrics
    from safecomm.storage.store import Store

    job = FinetuneJob.of(sizes.finetune, model=files.aligned, data=files.data, workers=workers, seed=0)
    finetune(job, out, Store(files.folder / "store"), on_gpu=on_gpu, labels=labels)
    metrics = training_metrics(out)
    first, last = metrics["curve"][0], metrics["curve"][-1]
    if metrics["ranks"] != workers or not last["loss"] < first["loss"]:
        raise TrainingError(
            f"the fine-tune ran on {metrics['ranks']} of {workers} ranks, and its loss went from {first['loss']} to "
            f"{last['loss']} in {metrics['steps']} steps; it must fall"
        )
    return Measured(last["num_tokens"] / metrics["seconds"], metrics["peak_bytes"])


def realign(files: Files) -> Measured:
    """Profiles the fine-tuned adapter, merges it with the safe one, and compares both with the formulas in fp64.

    Raises:
        DefenseError: if they disagree.
    """
    from safecomm.defenses import Adapter, profile, safe_merge
    from safecomm.errors import DefenseError
    from safecomm.finetune.memory import peak_bytes

    tuned, safe = Adapter.load(files.tuned), Adapter.load(files.safe)
    measured = profile(files.base, files.aligned, tuned)
    merged = safe_merge(measured, safe, weight=WEIGHT, quantile=0.5)
    memory = peak_bytes()
    name = merged.modules[0]
    module = next(module for module in measured.modules if module.name == name)
    if abs(module.rho - _rho(files, tuned, name)) > TOLERANCE:
        raise DefenseError(
            f"the profile's rho of {name} is {module.rho:.4f}, but {_rho(files, tuned, name):.4f} by its formula"
        )
    by_formula = WEIGHT * _update(tuned, name) + (1 - WEIGHT) * _update(safe, name)
    if float((_update(merged.adapter, name) - by_formula).norm() / by_formula.norm()) > TOLERANCE:
        raise DefenseError(f"SafeMERGE's update of {name} is not the weighted sum of the two adapters'")
    merged.save(files.merged)
    return Measured(memory=memory)


def _update(adapter: Any, name: str) -> Any:
    factors = adapter.modules[name]
    return factors.scaling * factors.B.double() @ factors.A.double()


def _rho(files: Files, adapter: Any, name: str) -> float:
    """Returns cos(C dW, dW) with C = V V^T, computed explicitly as in the paper."""
    from safecomm.defenses.weights import WeightDelta

    V, update = WeightDelta(files.base, files.aligned).of(name).double().cpu(), _update(adapter, name)
    projected = V @ V.T @ update
    return float((projected * update).sum() / (projected.norm() * update.norm()))


def ask_transformers(
    model: Path, settings: EngineSettings, questions: list[Question], adapters: dict[str, Path | None]
) -> tuple[dict[str, list[Answer]], Measured]:
    """Answers the questions with transformers and PEFT, once per adapter."""
    from safecomm.finetune.memory import peak_bytes
    from safecomm.serving.transformers_engine import TransformersEngine

    engine = TransformersEngine(str(model), settings)
    started = time.monotonic()
    answers = {
        name: asyncio.run(engine.answer(questions, str(folder) if folder else None))
        for name, folder in adapters.items()
    }
    seconds = time.monotonic() - started
    written = tokens_written(model, chain.from_iterable(answers.values()))
    return answers, Measured(written / seconds, peak_bytes())


def replica_of(app: str) -> int:
    """Returns the process id of an application's only replica, 0 if there is none."""
    replica = _replica(app)
    return replica.pid if replica else 0


def kill_engine(app: str) -> int:
    """Kills vLLM's engine process, as the system does when memory runs out; returns its replica's process id."""
    replica = _replica(app)
    if replica is None:
        raise RuntimeError(f"no process of {app} runs on this node")
    _engine(replica).kill()
    return int(replica.pid)


def engine_bytes(app: str) -> int:
    """Returns the resident memory of the engine's process."""
    replica = _replica(app)
    return int(_engine(replica).memory_info().rss) if replica else 0


def engine_error(app: str) -> str:
    """Returns the last error of vLLM's engine process in the replica's log, "" if there is none."""
    import ray

    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    errors = ""
    for log in sorted(logs.glob("worker-*"), key=lambda path: path.stat().st_mtime):
        text = log.read_text(encoding="utf-8", errors="replace")
        if f"ServeReplica:{app}" in text and (found := ENGINE_ERROR.findall(text)):
            errors = found[-1]
    return errors


def _replica(app: str) -> Any:
    """Returns the newest replica process of an application, None if there is none."""
    import psutil

    start = f"ray::ServeReplica:{app}"
    named = [one for one in psutil.process_iter(["name"]) if (one.info["name"] or "").startswith(start)]
    return max(named, key=lambda process: float(process.create_time()), default=None)


def _engine(replica: Any) -> Any:
    """Returns the largest child process of a replica, which is vLLM's engine, or the replica's own if it has none."""
    children = replica.children(recursive=True)
    return max(children, key=lambda process: int(process.memory_info().rss), default=replica)
