"""Checks whether a fine-tune and an engine fit into GPU memory, and suggests settings that would make them fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from safecomm.plan.finetune_memory import finetune_memory, host_memory
from safecomm.plan.memory import GIB, Parts, Serving, fleet_memory, served
from safecomm.plan.shapes import ModelShape
from safecomm.spec import Finetune
from safecomm.spec.cluster import Replicas
from safecomm.spec.finetune import Nvme

USABLE = 0.9
"""A fine-tune fits if its estimate is at most this share of a GPU."""
MAX_WORKERS = 64
NODE_GPUS = 8
"""GPUs per node, the limit for tensor parallelism."""
MAX_STAGES = 8
MIN_LENGTH = 256
"""Shortest text length in tokens that the advice suggests."""


@dataclass(frozen=True)
class Fit:
    """Whether something fits, and why."""

    fits: Literal["yes", "perhaps", "no"]
    """`no`: the certain part alone is too large. `perhaps`: only the full estimate is too large."""
    text: str
    """The memory needed, the memory available and, unless it fits, what to change."""


def check_finetune(shape: ModelShape, finetune: Finetune, workers: int, gpu_bytes: int) -> Fit:
    """Checks whether the workers of a fine-tune fit their GPUs and, if not, which changes would make them fit.

    Args:
        shape: the aligned model's shape.
        finetune: the sweep's `finetune` section.
        workers: `cluster.finetune.workers`.
        gpu_bytes: memory of one GPU.

    Raises:
        ModelError: if an adapter target is not a linear module of the model.
    """
    memory, usable = finetune_memory(shape, finetune, workers), int(USABLE * gpu_bytes)
    text = f"each of {workers} fine-tuning workers needs {_sum(memory)} on a GPU with {_gib(gpu_bytes)}"
    text += _host(shape, finetune, workers)
    if memory.total <= usable:
        return Fit("yes", text)
    changes = _finetune_changes(shape, finetune, workers, usable)
    return Fit("no" if memory.certain > gpu_bytes else "perhaps", text + _advice(changes, _finetune_key))


def check_fleet(serving: Serving, gpu_bytes: int, section: str = "cluster.target") -> Fit:
    """Checks whether an engine fits its GPUs and, if not, which changes would make it fit.

    Args:
        serving: the engine.
        gpu_bytes: memory of one GPU.
        section: the sweep section with the engine's size.

    Raises:
        ModelError: if an adapter target is not a linear module of the model.
    """

    def fits(way: dict[str, int]) -> bool:
        length = way.get("max_model_len", serving.max_model_len)
        split = serving.size.model_copy(update={key: value for key, value in way.items() if key != "max_model_len"})
        return fleet_memory(replace(serving, size=split, max_model_len=length), gpu_bytes).total <= usable

    def name(key: str) -> str:
        return f"evaluate.{key}" if key == "max_model_len" else f"{section}.{key}"

    needed, usable = fleet_memory(serving, gpu_bytes), served(gpu_bytes)
    text = f"each GPU of {section} needs {_sum(needed)} of the {_gib(usable)} that vLLM uses of {_gib(gpu_bytes)}"
    if needed.total <= usable:
        at_once = f"{needed.sequences(gpu_bytes)} sequences of {serving.max_model_len} tokens run concurrently"
        return Fit("yes", f"{text}; {at_once}")
    cuts = [{"max_model_len": cut} for cut in _halves(serving.max_model_len, MIN_LENGTH)]
    found = [_first(ways, fits) for ways in (_splits(serving.shape, serving.size), cuts)]
    return Fit("no" if needed.certain > usable else "perhaps", text + _advice(found, name))


def _finetune_changes(shape: ModelShape, finetune: Finetune, workers: int, usable: int) -> list[dict[str, Any]]:
    """Returns alternative changes that make a fine-tune fit, preferring the least intrusive kinds."""

    def fits(way: dict[str, Any]) -> bool:
        changed = finetune.model_copy(update=way)
        return finetune_memory(shape, changed, way.get("workers", workers)).total <= usable

    # Quantized weights can't be sharded or offloaded.
    shard: dict[str, Any] = {"zero": 3} if finetune.quantize == "none" else {}
    smaller = [way for way in _smaller_batches(finetune, workers) if way]
    wider = [
        shard | {"workers": count, **way}
        for count in _doubles(workers, MAX_WORKERS)
        for way in _smaller_batches(finetune, count)
    ]
    smallest = smaller[-1] if smaller else {}
    shorter = [shard | {**smallest, "max_length": cut} for cut in _halves(finetune.max_length, MIN_LENGTH)]
    offloaded = [shard | {"offload": "cpu", **way} for way in [{}, *smaller]] if shard else []
    for kinds in ([[shard], smaller], [[shard | way for way in smaller]], [wider, shorter, offloaded]):
        if found := [way for ways in kinds if (way := _first(ways, fits))]:
            return [
                {key: value for key, value in way.items() if getattr(finetune, key, None) != value} for way in found
            ]
    return []


def _host(shape: ModelShape, finetune: Finetune, workers: int) -> str:
    """Describes the offloaded memory of the node with most workers."""
    if finetune.offload == "none":
        return ""
    on_node = min(workers, NODE_GPUS)
    text = f", plus {_gib(on_node * host_memory(shape, finetune, workers))} of RAM on a node with {on_node} of them"
    if isinstance(finetune.offload, Nvme):
        text += f" and {_gib(on_node * shape.weight_bytes() / workers)} of its disk"
    return text


def _smaller_batches(finetune: Finetune, workers: int) -> list[dict[str, Any]]:
    """Returns changes to the micro batch, largest first: none if the workers divide the batch, then smaller sizes."""
    micro = finetune.micro_batch(workers)
    ways: list[dict[str, Any]] = [{}, *({"micro_batch_size": share} for share in _halves(micro, 1))]
    return [way for way in ways if finetune.batch_size % (workers * way.get("micro_batch_size", micro)) == 0]


def _splits(shape: ModelShape, size: Replicas) -> list[dict[str, int]]:
    """Returns ways to split an engine over more GPUs, within one node first; heads must divide evenly."""
    wider = [way for way in _doubles(size.tensor_parallel, NODE_GPUS) if shape.heads % way == 0]
    widest = max([size.tensor_parallel, *wider])
    stages = [way for way in _doubles(size.pipeline_parallel, MAX_STAGES) if way <= shape.layers]
    return [{"tensor_parallel": way} for way in wider] + [
        {"tensor_parallel": widest, "pipeline_parallel": way} for way in stages
    ]


def _first(ways: list[dict[str, Any]], fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    return next((way for way in ways if fits(way)), None)


def _doubles(start: int, most: int) -> list[int]:
    return [start << steps for steps in range(1, most.bit_length()) if start << steps <= most]


def _halves(start: int, least: int) -> list[int]:
    return [start >> steps for steps in range(1, start.bit_length()) if start >> steps >= least]


def _advice(changes: Sequence[dict[str, Any] | None], name: Callable[[str], str]) -> str:
    found = [" and ".join(f"{name(key)}: {value}" for key, value in change.items()) for change in changes if change]
    return f"; it would fit with {', or with '.join(found)}" if found else "; use larger GPUs or a smaller model"


def _finetune_key(key: str) -> str:
    return "cluster.finetune.workers" if key == "workers" else f"finetune.{key}"


def _sum(memory: Parts) -> str:
    """Formats the total and its two largest parts."""
    largest = sorted(memory.parts.items(), key=lambda part: -part[1])[:2]
    named = ", ".join(f"{name.replace('_', ' ')} {_gib(size)}" for name, size in largest)
    return f"about {_gib(memory.total)} ({named})"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
