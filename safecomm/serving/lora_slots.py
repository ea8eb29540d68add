"""How many adapters one vLLM engine holds at once: as many as fit into a small share of the memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from safecomm.errors import EvaluationError, ModelError
from safecomm.serving.engine import EngineSettings
from safecomm.statistics.selection import module_type

if TYPE_CHECKING:
    from safecomm.defenses.weights import Weights

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be started with."""
GPU_SHARE = 0.05
"""Of a GPU's memory for adapters; every further byte is one less for the KV cache."""
CPU_BYTES = 1 << 30
"""For adapters without a GPU."""
MOST_ON_GPU = 16
MOST_ON_CPU = 8
OF_UNKNOWN_SIZE = 4
PACKED = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))
"""Modules that vLLM makes one layer of, whose slots it sets up for all of them where it does for one."""


def served_rank(rank: int) -> int:
    """Returns the rank that vLLM is started with to serve adapters up to `rank`.

    Raises:
        EvaluationError: beyond the largest.
    """
    if rank > LORA_RANKS[-1]:
        raise EvaluationError(
            f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, but this sweep can make one of rank {rank}; lower "
            "finetune.lora.r, or merge with `combine: linear`"
        )
    return next(one for one in LORA_RANKS if one >= rank)


def adapters_at_once(
    shapes: Iterable[tuple[int, ...]], rank: int, itemsize: int, settings: EngineSettings, gpu_bytes: int | None
) -> int:
    """Returns how many adapters fit into an engine's share for them: at least 1, at most 16, without a GPU 8.

    vLLM holds the factors A and B of a module in the model's dtype and in the largest rank, whatever an adapter's own:
    rank x (d_in + d_out) numbers. The GPUs of a tensor-parallel engine share one of the two factors and each hold the
    other; the larger is counted as the one that each holds, since which it is depends on vLLM's layer.

    Args:
        shapes: d_out x d_in of every module that has slots.
        rank: vLLM's `max_lora_rank`.
        itemsize: bytes of one of the model's numbers.
        settings: how many GPUs the engine is split among.
        gpu_bytes: all memory of one GPU; None without one.
    """
    held = sum(max(shape) + min(shape) / settings.tensor_parallel for shape in shapes)
    slot = rank * held * itemsize / settings.pipeline_parallel
    return slots_within(slot, gpu_bytes)


def slots_within(slot: float, gpu_bytes: int | None) -> int:
    """Returns how many slots of so many bytes fit into the share of memory that adapters get."""
    budget, most = (CPU_BYTES, MOST_ON_CPU) if gpu_bytes is None else (GPU_SHARE * gpu_bytes, MOST_ON_GPU)
    return min(most, max(1, int(budget / slot)))


def lora_arguments(model: Path, settings: EngineSettings, gpu_bytes: int | None) -> dict[str, object]:
    """Returns vLLM's arguments about adapters; none where no adapter will be asked for."""
    if not settings.max_lora_rank:
        return {}
    rank = served_rank(settings.max_lora_rank)
    from safecomm.defenses.weights import Weights  # brings torch, which a plan does without

    try:
        shapes, itemsize = _modules(Weights(model), set(settings.lora_targets))
        at_once = adapters_at_once(shapes, rank, itemsize, settings, gpu_bytes)
    except ModelError:  # a quantized checkpoint, which vLLM can serve all the same
        at_once = OF_UNKNOWN_SIZE
    return {
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": at_once,
        # Also keeps vLLM's LoRA layer off the output head, where it can't give the log-probabilities of a prompt.
        "lora_target_modules": list(settings.lora_targets),
    }


def _modules(weights: "Weights", targets: set[str]) -> tuple[list[tuple[int, ...]], int]:
    """Returns the shapes of the modules that get slots and the bytes of a number, from the checkpoint's headers."""
    packed = {kind for group in PACKED if group & targets for kind in group}
    there = {module_type(name.removesuffix(".weight")) for name in weights.files}
    names = weights.modules(targets | packed & there)
    return [weights.shape(name) for name in names], weights.tensor(names[0]).dtype.itemsize
