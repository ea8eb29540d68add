"""What runs on the node under test, each function in a Ray task that has a GPU where it needs one."""

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
"""Relative; what separates a profile or a merge in fp32 from the textbook's formula in fp64."""
WEIGHT = 0.7
ENGINE_ERROR = re.compile(r"EngineCore.*?((?:\w+\.)*\w*(?:Error|Exception): .+)")


@dataclass(frozen=True)
class Device:
    """What the node computes on."""

    name: str
    bytes: int
    """Its memory; of a node without a GPU, the node's."""


@dataclass(frozen=True)
class Measured:
    """What a task measured of itself."""

    tokens_per_second: float | None = None
    memory: int | None = None


def look_at_device(on_gpu: bool) -> Device:
    """Multiplies two matrices in bf16 on the node's GPU, or on its processor.

    Raises:
        RuntimeError: if torch does not see the GPU, or the product is wrong.
    """
    import platform

    import torch

    from safecomm.defenses.hardware import device

    if on_gpu and not torch.cuda.is_available():
        raise RuntimeError(
            f"torch {torch.__version__} does not see the GPU that Ray gave to it; is it the build for CPUs, or the "
            "driver too old? `python -c 'import torch; torch.cuda.init()'` says why"
        )
    where = device() if on_gpu else torch.device("cpu")
    ones = torch.ones(256, 256, dtype=torch.bfloat16, device=where)
    if not bool((ones @ ones == 256).all()):
        raise RuntimeError(f"{where} multiplies wrongly: 256 ones times 256 ones is not 256")
    if on_gpu:
        properties = torch.cuda.get_device_properties(where)
        return Device(properties.name, properties.total_memory)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(f"{platform.machine()}, {os.cpu_count()} processors", memory)


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
            f"{metrics['ranks']} ranks of {workers} took the loss from {first['loss']} to {last['loss']}, in "
            f"{metrics['steps']} steps that repeat themselves"
        )
    return Measured(last["num_tokens"] / metrics["seconds"], metrics["peak_bytes"])


def realign(files: Files) -> Measured:
    """ProfileCache the fine-tuned adapter and merges it with the safe one, and compares with the formulas in fp64.

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
            f"the profile's rho of {name} is {module.rho:.4f}, by its formula {_rho(files, tuned, name):.4f}"
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
    """Returns cos(C dW, dW) with C = V V^T, formed as the paper writes it."""
    from safecomm.defenses.weights import WeightDelta

    V, update = WeightDelta(files.base, files.aligned).of(name).double().cpu(), _update(adapter, name)
    projected = V @ V.T @ update
    return float((projected * update).sum() / (projected.norm() * update.norm()))


def ask_transformers(
    model: Path, settings: EngineSettings, questions: list[Question], adapters: dict[str, Path | None]
) -> tuple[dict[str, list[Answer]], Measured]:
    """Has transformers and PEFT answer with each adapter."""
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
    """Returns the process of an application's only replica, 0 where there is none."""
    found = _replica(app)
    return found.pid if found else 0


def kill_engine(app: str) -> int:
    """Kills vLLM's engine process, as the system does when memory runs out; returns the process of its replica."""
    replica = _replica(app)
    if replica is None:
        raise RuntimeError(f"there is no process of {app} on this node")
    _engine(replica).kill()
    return int(replica.pid)


def engine_bytes(app: str) -> int:
    """Returns the memory of the engine's process."""
    replica = _replica(app)
    return int(_engine(replica).memory_info().rss) if replica else 0


def engine_error(app: str) -> str:
    """Returns the last error that vLLM's engine process wrote into the replica's log, "" where there is none."""
    import ray

    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    errors = ""
    for log in sorted(logs.glob("worker-*"), key=lambda path: path.stat().st_mtime):
        text = log.read_text(encoding="utf-8", errors="replace")
        if f"ServeReplica:{app}" in text and (found := ENGINE_ERROR.findall(text)):
            errors = found[-1]
    return errors


def _replica(app: str) -> Any:
    """Returns the newest process of an application's replica, None where there is none."""
    import psutil

    start = f"ray::ServeReplica:{app}"
    named = [one for one in psutil.process_iter(["name"]) if (one.info["name"] or "").startswith(start)]
    return max(named, key=lambda process: float(process.create_time()), default=None)


def _engine(replica: Any) -> Any:
    """Returns the largest of a replica's processes: vLLM's engine or, where the engine has none, the replica's own."""
    children = replica.children(recursive=True)
    return max(children, key=lambda process: int(process.memory_info().rss), default=replica)
